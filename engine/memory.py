"""Placing buffers with known lifetimes in one arena."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

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
    offsets = dict.fromkeys(lifetimes, 0)
    order = sorted((n for n in lifetimes if sizes[n]), key=lambda n: (-sizes[n], lifetimes[n], n))
    first, last, start, end = np.zeros((4, len(order)), np.int64)
    for i, name in enumerate(order):
        need = round_up(sizes[name])
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
