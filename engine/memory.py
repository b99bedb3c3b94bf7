"""Placing buffers with known lifetimes in one arena."""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping

ALIGNMENT = 64
"""Every buffer starts on a cache line; sizes are rounded up to it."""


def round_up(size: int, alignment: int = ALIGNMENT) -> int:
    return -(-size // alignment) * alignment


def place(lifetimes: Mapping[str, tuple[int, int]], sizes: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Byte offsets at which buffers that live at the same time do not overlap, and the arena's size in bytes.

    ``lifetimes`` gives each buffer's first and last step, both included; ``sizes`` its bytes. Offsets and the
    total are multiples of 64; an empty buffer gets offset 0. Greedy by size (Pisarchyk and Lee, 2020, "Efficient
    memory management for deep neural net inference"): the largest first, each in the smallest gap that holds it
    between those already placed that live with it. The result depends only on the arguments.
    """
    offsets: dict[str, int] = {}
    placed: list[tuple[int, int, int, int]] = []  # (offset, end, first step, last step), by offset
    total = 0
    for name in sorted(lifetimes, key=lambda n: (-sizes[n], lifetimes[n], n)):
        need = round_up(sizes[name])
        if not need:
            offsets[name] = 0
            continue
        first, last = lifetimes[name]
        at = _smallest_gap(need, [(start, end) for start, end, born, dies in placed if born <= last and first <= dies])
        offsets[name] = at
        insort(placed, (at, at + need, first, last))
        total = max(total, at + need)
    return offsets, total


def _smallest_gap(need: int, taken: list[tuple[int, int]]) -> int:
    """Where ``need`` bytes fit best between the ranges ``taken`` (sorted), or the end of the last one."""
    best, best_size = -1, 0
    end = 0
    for start, stop in taken:
        gap = start - end
        if gap >= need and (best < 0 or gap < best_size):
            best, best_size = end, gap
        end = max(end, stop)
    return best if best >= 0 else end
