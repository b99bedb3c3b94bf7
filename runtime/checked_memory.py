"""Memory for kernels that run in Python: every access is checked against the buffer that its address belongs to.

Addresses are numbers like any others, but far apart: a terabyte lies between one region and the next, so that an index
that is off, by whatever a kernel would get it wrong, is still seen to be off in the region that it started from.
"""

from __future__ import annotations

import linecache
import sys

import numpy as np

from engine.errors import BoundsError
from runtime.sources import PREFIX

_BITS = 40
_MIDDLE = 1 << (_BITS - 1)
_MASK = (1 << _BITS) - 1


class Region:
    """``nbytes`` bytes of memory, called ``name``: those of an array, whose axes may lie in any order."""

    def __init__(self, name: str, array: np.ndarray):
        self.name = name
        self.array = array
        flat = array.transpose(sorted(range(array.ndim), key=lambda axis: -array.strides[axis])).reshape(-1)
        assert flat.size == 0 or np.shares_memory(flat, array), "a region is contiguous"
        self.bytes = flat.view(np.uint8)
        self.nbytes = flat.nbytes
        self._typed: dict[np.dtype, np.ndarray] = {}

    def typed(self, dtype: np.dtype) -> np.ndarray:
        """The whole elements of ``dtype`` in it."""
        if dtype not in self._typed:
            whole = self.nbytes - self.nbytes % dtype.itemsize
            self._typed[dtype] = self.bytes[:whole].view(dtype)
        return self._typed[dtype]


class CheckedMemory:
    """Regions by address. ``add`` gives a region's address; all else raises BoundsError for what lies outside of it."""

    def __init__(self) -> None:
        self._regions: list[Region] = []

    def add(self, name: str, array: np.ndarray) -> int:
        """The address of the first byte of a contiguous array."""
        self._regions.append(Region(name, array))
        return (len(self._regions) << _BITS) + _MIDDLE

    def remove(self, address: int) -> None:
        """Forget the region that begins at ``address``."""
        region, _ = self.place(address, 0, "frees")
        self._regions[(address >> _BITS) - 1] = Region(f"{region.name}, which has been freed", np.empty(0, np.uint8))

    def truncate(self, count: int) -> None:
        """Forget all but the first ``count`` regions."""
        del self._regions[count:]

    def __len__(self) -> int:
        return len(self._regions)

    def place(self, address: int, nbytes: int, what: str, low: int = 0) -> tuple[Region, int]:
        """The region of ``address`` and the byte in it, if ``nbytes`` bytes from there on (and ``low`` before) are
        inside."""
        number = (address >> _BITS) - 1
        start = (address & _MASK) - _MIDDLE
        if not 0 <= number < len(self._regions):
            raise _outside(f"{what} at the address {address}, which belongs to no buffer")
        region = self._regions[number]
        if start - low < 0 or start + nbytes > region.nbytes:
            at = start - low if start - low < 0 else start
            raise _outside(f"{what} {nbytes + low} bytes at byte {at} of {region.name}, which has {region.nbytes}")
        return region, start

    def load(self, address: int, dtype: np.dtype) -> np.generic:
        region, start = self.place(address, dtype.itemsize, "reads")
        if start % dtype.itemsize == 0:
            return region.typed(dtype)[start // dtype.itemsize]
        return region.bytes[start : start + dtype.itemsize].view(dtype)[0]

    def store(self, address: int, value: object, dtype: np.dtype) -> None:
        region, start = self.place(address, dtype.itemsize, "writes")
        if not region.array.flags.writeable:
            raise _outside(f"writes into {region.name}, which is only read")
        region.bytes[start : start + dtype.itemsize].view(dtype)[0] = value

    def view(
        self, address: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype, what: str
    ) -> np.ndarray:
        """``shape`` elements from ``address`` on, ``strides`` bytes apart."""
        if 0 in shape:
            return np.empty(shape, dtype)
        reach = [s * (n - 1) for s, n in zip(strides, shape, strict=True)]
        low = -sum(min(r, 0) for r in reach)
        region, start = self.place(address, sum(max(r, 0) for r in reach) + dtype.itemsize, what, low)
        base = np.ndarray((region.nbytes - start,), np.uint8, region.bytes[start:])
        return np.lib.stride_tricks.as_strided(base[: dtype.itemsize].view(dtype), shape, strides)


def _outside(what: str) -> BoundsError:
    """The error, with the kernel's line that asked for it."""
    frame = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith(PREFIX):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None:
        return BoundsError(f"a kernel {what}")
    name, line = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(name, line).strip()
    return BoundsError(f"the kernel {frame.f_code.co_name} {what}: line {line}, {text}")
