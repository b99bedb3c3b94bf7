"""State that outlives a call: one cell a logical buffer, shared by every program that names it."""

from __future__ import annotations

import ctypes
import itertools
import math
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np

from engine.dtypes import DType, u8
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


def aligned_empty(shape: tuple[int, ...], dtype: DType, shift: int = 0) -> np.ndarray:
    """An uninitialised C-contiguous array whose address is a multiple of a cache line (64 bytes), moved on by
    ``shift`` bytes from where such an array would lie: large arrays begin with a page, see :mod:`engine.memory`."""
    raw = np.empty(math.prod(shape) * dtype.itemsize + ALIGNMENT + shift, np.uint8)
    return aligned_array(raw, shape, dtype, shift)


def aligned_array(raw: np.ndarray, shape: tuple[int, ...], dtype: DType, shift: int = 0) -> np.ndarray:
    """An aligned array in ``raw``, bytes that are ALIGNMENT and ``shift`` more than it takes."""
    return np.ndarray(shape, dtype.numpy, raw, -address(raw) % ALIGNMENT + shift)


class Newer(Protocol):
    """Memory that is not the host's, and holds what a cell's array does not hold yet. Whoever writes there holds
    ``lock``."""

    @property
    def lock(self) -> AbstractContextManager[object]: ...

    def fetch(self, array: np.ndarray) -> None:
        """Copy what is there into ``array``."""


class Elsewhere:
    """``writes`` counts the steps that wrote state outside of the host's memory. While it stands still, arrays that a
    program has once asked its cells for are still the newest."""

    def __init__(self) -> None:
        self.writes = 0


elsewhere = Elsewhere()

_making = threading.Lock()


class Cell:
    """One logical buffer. Programs on the CPU update ``array`` in place; ``version`` counts the writes, so whatever was
    derived from the buffer (packed weights, a copy on a GPU) knows when it is stale. The array itself is never
    replaced. ``in_use`` says that a program was built over it. ``order`` lists the axes from the outermost in memory to
    the innermost, where they do not lie as they are counted: the array is a transposed view then.

    The array is made when somebody first asks for it. So a parameter that is initialised and then loaded from a file
    is written once. And what a program on a GPU has written stays there, and is fetched when somebody asks.
    """

    __slots__ = ("__weakref__", "_array", "_fill", "_newer", "dtype", "in_use", "order", "shape", "version")

    def __init__(self, value: np.ndarray, dtype: DType, order: tuple[int, ...] | None = None):
        self._start(np.shape(value), dtype, order)
        self.array[...] = value

    def _start(self, shape: tuple[int, ...], dtype: DType, order: tuple[int, ...] | None) -> None:
        self.shape = shape
        self.dtype = dtype
        self.order = order
        self.version = 0
        self.in_use = False
        self._array: np.ndarray | None = None
        self._fill: Callable[[np.ndarray], object] | None = None
        self._newer: Newer | None = None

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: DType, order: tuple[int, ...] | None = None) -> Cell:
        """A cell that holds anything."""
        cell = cls.__new__(cls)
        cell._start(shape, dtype, order)
        return cell

    @property
    def array(self) -> np.ndarray:
        """The contents, in the host's memory. Whoever writes into it adds one to ``version``."""
        if self._newer is not None:
            self._fetch(self._newer)
        if self._array is None:
            with _making:
                if self._array is None:
                    self._take(aligned_empty(self._shape_in_memory, self.dtype))
        assert self._array is not None
        return self._array

    @property
    def _shape_in_memory(self) -> tuple[int, ...]:
        return self.shape if self.order is None else tuple(self.shape[axis] for axis in self.order)

    def _take(self, memory: np.ndarray) -> None:
        """Hold ``memory`` from now on."""
        array = memory if self.order is None else memory.transpose(np.argsort(self.order))
        if self._fill is not None:
            self._fill_in(array, self._fill)
        self._array, self._fill = array, None

    def _fill_in(self, array: np.ndarray, fill: Callable[[np.ndarray], object]) -> None:
        """Have ``fill`` write into ``array``, which it takes to be row-major."""
        if self.order is None:
            fill(array)
        else:
            fill(filled := np.empty(self.shape, self.dtype.numpy))
            array[...] = filled

    def _fetch(self, newer: Newer) -> None:
        with newer.lock:
            if self._newer is newer and self._array is not None:
                newer.fetch(self._array)
                self._newer = None

    def written_in(self, newer: Newer) -> None:
        """A program has written a new value into memory that is not the host's. The array was asked for before."""
        self.version += 1
        self._newer = newer

    def fill(self, fill: Callable[[np.ndarray], object]) -> None:
        """Replace the contents by what ``fill`` writes into an array: now, or where nobody has asked for the array yet,
        when somebody does."""
        self._newer = None
        if self._array is None:
            self._fill = fill
        else:
            self._fill_in(self._array, fill)
        self.version += 1

    def write(self, value: np.ndarray) -> None:
        """Replace the contents. Raises ShapeError, or DTypeError where values of ``value`` would be lost."""
        value = np.asarray(value)
        if value.shape != self.shape:
            raise ShapeError(f"a value of shape {value.shape} does not fit state of shape {self.shape}")
        if not np.can_cast(value.dtype, self.dtype.numpy, "same_kind"):
            raise DTypeError(f"a value of dtype {value.dtype} does not fit state of dtype {self.dtype}")
        self._fill = self._newer = None
        self.array[...] = value
        self.version += 1


def place_together(cells: Iterable[Cell], keep: bool = True) -> None:
    """Make the arrays of those cells that have none yet, side by side in one allocation: where it is large the system
    gives it huge pages, and touching those for the first time takes less time. They hold what they are to hold, or
    where that is nothing, or not to ``keep``, zeros."""
    with _making:
        bare = [c for c in dict.fromkeys(cells) if c._array is None]
        sizes = [math.prod(c.shape) * c.dtype.itemsize for c in bare]
        starts = list(itertools.accumulate((s + -s % ALIGNMENT for s in sizes), initial=0))
        block = aligned_array(np.zeros(starts[-1] + ALIGNMENT, np.uint8), (starts[-1],), u8)
        for cell, start in zip(bare, starts, strict=False):
            if not keep:
                cell._fill = None
            cell._take(np.ndarray(cell._shape_in_memory, cell.dtype.numpy, block, start))
