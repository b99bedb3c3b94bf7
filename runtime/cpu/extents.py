"""Where arrays lie: the addresses of one, and whether one meets the memory that a program writes."""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterable

import numpy as np

from engine.state import address


def extent(array: np.ndarray) -> tuple[int, int]:
    """The addresses of a contiguous array: its first byte's, and the one behind its last."""
    first = address(array)
    return first, first + array.nbytes


class Memory:
    """The memory of some contiguous arrays: from the address ``first`` to ``end``, with gaps in which other arrays may
    lie."""

    def __init__(self, arrays: Iterable[np.ndarray]):
        ranges: list[tuple[int, int]] = []
        for first, end in sorted(map(extent, arrays)):
            if ranges and first <= ranges[-1][1]:
                before, reached = ranges.pop()
                first, end = before, max(end, reached)
            if first < end:
                ranges.append((first, end))
        self._bounds = list(itertools.chain.from_iterable(ranges))
        self.first, self.end = (self._bounds[0], self._bounds[-1]) if ranges else (0, 0)

    def holds(self, first: int, end: int) -> bool:
        """Whether some byte from the address ``first`` to ``end`` belongs to it."""
        before = bisect_right(self._bounds, first)
        return before % 2 == 1 or before < bisect_left(self._bounds, end)
