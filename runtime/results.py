"""Memory for large results, taken again once nobody holds a result that lies in it.

For a new large array the system maps and clears page after page, which can take longer than filling it. So the memory
of the last few is kept here; where only this list refers to it, no array, view or buffer of the caller's lies in it.
"""

from __future__ import annotations

import sys

import numpy as np

from engine.dtypes import DType
from engine.state import ALIGNMENT, aligned_array, aligned_empty

LEAST_BYTES = 1 << 20
"""Below that, allocators keep memory themselves."""
ALIGNED_BYTES = 4096
"""Below that, what vectors across two lines of the cache cost is less than what aligning costs."""
_SHIFT = 2048
"""Where in a page large results begin, which inputs do at its first bytes: see :mod:`engine.memory`."""
_KEPT = 4


class ResultMemory:
    """Where an executor gets the arrays that it returns."""

    def __init__(self) -> None:
        self._kept: list[np.ndarray] = []

    def empty(self, shape: tuple[int, ...], dtype: DType, count: int) -> np.ndarray:
        """An uninitialised array of ``count`` bytes that shares memory with none that anyone holds."""
        if count < ALIGNED_BYTES:
            return np.empty(shape, dtype.numpy)
        if count < LEAST_BYTES or _ALONE is None:
            return aligned_empty(shape, dtype)
        kept, size = self._kept, count + ALIGNMENT + _SHIFT
        free = [i for i in range(len(kept)) if len(kept[i]) == size and _references(kept, i) == _ALONE]
        raw = kept.pop(free[-1]) if free else np.empty(size, np.uint8)
        kept.append(raw)
        del kept[:-_KEPT]
        return aligned_array(raw, shape, dtype, _SHIFT)


def _references(arrays: list[np.ndarray], place: int) -> int:
    return sys.getrefcount(arrays[place])


def _references_to_one_alone() -> int | None:
    """How Python counts an array that only a list holds, or None where objects are not counted."""
    if sys.implementation.name != "cpython":
        return None
    return _references([np.empty(0)], 0)


_ALONE = _references_to_one_alone()
