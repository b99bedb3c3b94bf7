"""State that outlives a call: one cell a logical buffer, shared by every program that names it."""

from __future__ import annotations

import math

import numpy as np

from engine.dtypes import DType
from engine.errors import DTypeError, ShapeError

ALIGNMENT = 64


def address(array: np.ndarray) -> int:
    """Where the first element of ``array`` lies."""
    return array.__array_interface__["data"][0]


def aligned_empty(shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    """An uninitialised C-contiguous array whose address is a multiple of a cache line (64 bytes)."""
    raw = np.empty(math.prod(shape) * dtype.itemsize + ALIGNMENT, np.uint8)
    return np.ndarray(shape, dtype.numpy, raw, -address(raw) % ALIGNMENT)


class Cell:
    """One logical buffer. Programs update ``array`` in place; ``version`` counts the writes, so whatever was
    derived from the buffer (packed weights) knows when it is stale. The array itself is never replaced. ``in_use``
    says that a program was built over it."""

    __slots__ = ("array", "dtype", "in_use", "version")

    def __init__(self, value: np.ndarray, dtype: DType):
        self.dtype = dtype
        self.array = aligned_empty(np.shape(value), dtype)
        self.array[...] = value
        self.version = 0
        self.in_use = False

    def write(self, value: np.ndarray) -> None:
        """Replace the contents. Raises ShapeError, or DTypeError where values of ``value`` would be lost."""
        value = np.asarray(value)
        if value.shape != self.array.shape:
            raise ShapeError(f"a value of shape {value.shape} does not fit state of shape {self.array.shape}")
        if not np.can_cast(value.dtype, self.array.dtype, "same_kind"):
            raise DTypeError(f"a value of dtype {value.dtype} does not fit state of dtype {self.dtype}")
        self.array[...] = value
        self.version += 1
