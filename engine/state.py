"""State that outlives a call: one cell a logical buffer, shared by every program that names it."""

from __future__ import annotations

import ctypes
import math
import sys

import numpy as np

from engine.dtypes import DType
from engine.errors import DTypeError, ShapeError

ALIGNMENT = 64


_memory = (ctypes.c_int64 * (sys.maxsize >> 4)).from_address(0)  # all of it, as words
_DATA = object.__basicsize__


def _first_field(array: np.ndarray) -> int:
    """Where the first element of ``array`` lies: the address in the array's own record, where NumPy's C interface keeps
    it behind the object's header. Asking for ``__array_interface__`` takes seven times as long, and a call asks for
    every input and output."""
    return _memory[(id(array) + _DATA) >> 3]


def _interface(array: np.ndarray) -> int:
    """Where the first element of ``array`` lies."""
    return array.__array_interface__["data"][0]


def _records_are_readable() -> bool:
    """Whether this Python keeps objects at their ``id``, as CPython does, and has 64-bit addresses."""
    if sys.implementation.name != "cpython" or sys.maxsize < 1 << 32:
        return False
    arrays = [np.empty(n, np.uint8)[n // 2 :] for n in (1, 10, 1000)]
    return all(_first_field(a) == _interface(a) for a in arrays)


address = _first_field if _records_are_readable() else _interface


def aligned_empty(shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    """An uninitialised C-contiguous array whose address is a multiple of a cache line (64 bytes)."""
    return aligned_array(np.empty(math.prod(shape) * dtype.itemsize + ALIGNMENT, np.uint8), shape, dtype)


def aligned_array(raw: np.ndarray, shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    """An aligned array in ``raw``, bytes that are ALIGNMENT more than it takes."""
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
