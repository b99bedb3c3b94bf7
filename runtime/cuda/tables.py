"""What launches read from a GPU's memory besides arrays: tables of numbers, and tensor maps.

They are made when a program is bound to addresses, and kept as long as that is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from runtime.cuda.device import Allocation, Device
from runtime.cuda.tensor_map import TensorMap

_BYTES = 1 << 15
"""Of an allocation, which many share."""
_ALIGNMENT = 128
"""That of tensor maps, and a line of the cache."""


class Tables:
    """The tables and tensor maps that one binding's launches are given, each of them once."""

    def __init__(self, device: Device):
        self._device = device
        self._found: dict[object, int] = {}
        self._memory: list[Allocation] = []
        self._used = 0
        self._uploaded: list[np.ndarray] = []  # a stream copies from them

    def numbers(self, values: Sequence[int]) -> int:
        """Where ``values``, i64, are, for launches on the stream ``compute``."""
        return self._kept(tuple(values), lambda: np.array(values, np.int64))

    def map(self, at: int, array: TensorMap) -> int:
        """Where the map of the array at address ``at`` is, for the same."""
        return self._kept((at, array), lambda: self._device.tensor_map(at, array))

    def _kept(self, key: object, make: Callable[[], np.ndarray]) -> int:
        if key not in self._found:
            data = make()
            nbytes = -(-data.nbytes // _ALIGNMENT) * _ALIGNMENT
            if not self._memory or self._used + nbytes > self._memory[-1].nbytes:
                self._memory.append(self._device.allocate(max(nbytes, _BYTES)))
                self._used = 0
            self._found[key] = self._memory[-1].address + self._used
            self._used += nbytes
            self._uploaded.append(data)
            self._device.compute.upload(self._found[key], data)
        return self._found[key]
