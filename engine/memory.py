"""The memory that a program takes at given sizes: its buffers with known lifetimes, placed in one arena."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from engine import dims
from engine.dims import Size
from engine.program import Program
from engine.records import dataclass

ALIGNMENT = 64
"""Every buffer starts on a cache line; sizes are rounded up to it."""
_LARGE, _SHIFT = 1 << 16, 1088
"""What lies behind a buffer of ``_LARGE`` bytes or more begins ``_SHIFT`` later, a quarter of a page and a line. Sizes
are often whole pages, and a load waits for a store that is on its way to the same place of another page."""


def round_up(size: int, alignment: int = ALIGNMENT) -> int:
    return -(-size // alignment) * alignment


def place(lifetimes: Mapping[str, tuple[int, int]], sizes: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Byte offsets at which buffers that live at the same time do not overlap, and the arena's size in bytes.

    ``lifetimes`` gives each buffer's first and last step, both included; ``sizes`` its bytes. Offsets and the
    total are multiples of 64; an empty buffer gets offset 0. Greedy by size (Pisarchyk and Lee, 2020, "Efficient
    memory management for deep neural net inference"): the largest first, each in the smallest gap that holds it
    between those already placed that live with it; what lies behind a large one starts elsewhere in its page. The
    result depends only on the arguments.
    """
    offsets = dict.fromkeys(lifetimes, 0)
    order = sorted((n for n in lifetimes if sizes[n]), key=lambda n: (-sizes[n], lifetimes[n], n))
    first, last, start, end = np.zeros((4, len(order)), np.int64)
    for i, name in enumerate(order):
        need = round_up(sizes[name]) + (_SHIFT if sizes[name] >= _LARGE else 0)
        first[i], last[i] = lifetimes[name]
        together = (first[:i] <= last[i]) & (last[:i] >= first[i])
        start[i] = offsets[name] = _smallest_gap(need, start[:i][together], end[:i][together])
        end[i] = start[i] + need
    return offsets, int(end.max(initial=0))


def _smallest_gap(need: int, starts: np.ndarray, ends: np.ndarray) -> int:
    """Where ``need`` bytes fit best between the ranges that are taken, or behind the last of them."""
    by_start = np.argsort(starts, kind="stable")
    free_from = np.maximum.accumulate(np.concatenate(([0], ends[by_start])))
    gaps = starts[by_start] - free_from[:-1]
    fitting = np.flatnonzero(gaps >= need)
    if not fitting.size:
        return int(free_from[-1])
    return int(free_from[fitting[np.argmin(gaps[fitting])]])


class Sizes:
    """The program's sizes as numbers."""

    def __init__(self, values: Mapping[str, int]):
        self.values = dict(values)
        self._known: dict[Size, int] = {}

    def __call__(self, size: Size) -> int:
        if isinstance(size, int):
            return size
        found = self._known.get(size)
        if found is None:
            found = self._known[size] = dims.evaluate(size, self.values)
        return found


@dataclass(frozen=True)
class Plan:
    """Bytes of every buffer and, for the temps, where in the arena each starts."""

    nbytes: dict[str, int]
    offsets: dict[str, int]
    arena: int


def plan(program: Program, sizes: Sizes) -> Plan:
    """The memory that ``program`` takes at these sizes. A temp that ``main`` never touches lives throughout, one
    that is an output as it is to the end."""
    nbytes = {b.name: sizes(b.size) * b.dtype.itemsize for b in program.buffers}
    end = len(program.main)
    returned = {port.buffer for port in program.outputs}
    lifetimes = {}
    for buffer in program.buffers:
        if buffer.kind == "temp":
            first, last = program.lifetimes.get(buffer.name, (0, end))
            lifetimes[buffer.name] = first, end if buffer.name in returned else last
    offsets, arena = place(lifetimes, nbytes)
    return Plan(nbytes, offsets, arena)


@dataclass(frozen=True)
class MemoryLimit:
    """At most so many bytes of arena, for these sizes of the dims."""

    nbytes: int
    sizes: Mapping[str, int]
