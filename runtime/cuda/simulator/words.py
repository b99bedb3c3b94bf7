"""What ``cuda`` is in kernels that are simulated: thread numbers, barriers, local arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.cuda.simulator import thread as threads
from runtime.cuda.simulator.thread import current

_GARBAGE = 0xA5


class _Integers:
    """A local array of integers: it keeps their width, and gives them as Python's."""

    __slots__ = ("_half", "_items", "_mask")

    def __init__(self, size: int, dtype: np.dtype):
        self._mask = (1 << (8 * dtype.itemsize)) - 1
        self._half = (self._mask + 1) >> 1 if dtype.kind == "i" else 0
        self._items = [0] * size
        for i in range(size):
            self[i] = int.from_bytes(bytes([_GARBAGE] * dtype.itemsize), "little")

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> int:
        return self._items[index]

    def __setitem__(self, index: int, value: int) -> None:
        self._items[index] = ((int(value) + self._half) & self._mask) - self._half


class _Local:
    @staticmethod
    def array(size: int, dtype: Any) -> Any:
        """``size`` registers of a thread, filled with garbage: NaN, or 0xA5A5..."""
        kind = np.dtype(dtype)
        if kind.kind in "iu":
            return _Integers(size, kind)
        return np.full(size, np.nan if kind.kind == "f" else True, kind)


class _Number:
    """Three coordinates, of which kernels use ``x``: grids and blocks have one dimension."""

    y = z = 0

    def __init__(self, x: Any):
        self._x = x

    @property
    def x(self) -> int:
        return self._x()


class _Size(_Number):
    y = z = 1


class Words:
    """The names of numba.cuda that kernels use."""

    local = _Local()
    threadIdx = _Number(lambda: current().number)
    blockIdx = _Number(lambda: current().block.number)
    blockDim = _Size(lambda: current().block.size)
    gridDim = _Size(lambda: current().block.blocks)
    warpsize = threads.LANES

    @property
    def laneid(self) -> int:
        return current().lane

    @staticmethod
    def syncthreads() -> None:
        threads.barrier()

    @staticmethod
    def syncwarp() -> None:
        threads.together(_meet, None)

    @staticmethod
    def threadfence() -> None:
        """Blocks run one after the other here: what one has written, the next one sees."""


def _meet(lanes: list[threads.Thread], given: list[Any]) -> None:
    lanes[0].block.clocks.meet([t.number for t in lanes])


cuda = Words()
