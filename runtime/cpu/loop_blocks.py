"""What the driver needs for loops: their blocks and patches, and memory for each thread's own argument blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine import dtypes
from engine.memory import round_up
from engine.records import dataclass
from engine.state import address, aligned_empty
from runtime.cpu.driver import COUNTER, LOOP_SLOTS, PATCH_COUNT, PATCH_FIELDS, PATCHES, TIMES

Patch = tuple[int, int, bool]
"""A private word, the bytes by which it moves at every turn, and whether it only goes there and back."""


@dataclass(frozen=True)
class Span:
    """A loop over the calls ``first .. end-1``: the addresses of its block and of the word of its guard (or 0), and how
    often it turns."""

    first: int
    end: int
    block: int
    guard: int
    times: int


class LoopBlocks:
    """The loops of a bound program. ``words`` argument words at the address ``shared`` are used in loops, the loops'
    counters, from ``counters`` on, included; ``inner`` names those that point into the blocks themselves."""

    def __init__(
        self,
        times: Sequence[int],
        patches: Sequence[Sequence[Patch]],
        counters: int,
        words: int,
        shared: int,
        inner: Sequence[int],
        threads: int,
    ):
        self.times = list(times)
        self.addresses: list[int] = []
        self.control: tuple[int, ...] = ()
        if not times:
            return
        self._patches = [np.array(p, np.int64).reshape(-1, PATCH_FIELDS) for p in patches]
        self._blocks = np.zeros((len(times), LOOP_SLOTS), np.int64)
        for n, block in enumerate(self._blocks):
            block[TIMES], block[COUNTER] = times[n], counters + n
            block[PATCHES], block[PATCH_COUNT] = address(self._patches[n]), len(patches[n])
        self.addresses = [address(block) for block in self._blocks]
        self._inner = np.array(inner, np.int64)
        stride = round_up(8 * words) + 64
        self._private = aligned_empty((threads * stride,), dtypes.u8)
        where = address(self._private)
        self.control = (shared, where, stride, words, address(self._inner), len(inner))
