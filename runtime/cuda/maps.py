"""Tensor maps in a GPU's memory: made when a program is bound to addresses, and kept as long as that is."""

from __future__ import annotations

import numpy as np

from runtime.cuda.device import Allocation, Device
from runtime.cuda.tensor_map import BYTES, TensorMap

_AT_ONCE = 256
"""How many maps an allocation has room for."""


class Maps:
    """The tensor maps that one binding's launches are given, each of them once."""

    def __init__(self, device: Device):
        self._device = device
        self._found: dict[tuple[int, TensorMap], int] = {}
        self._memory: list[Allocation] = []
        self._encoded: list[np.ndarray] = []  # a stream copies from them

    def address(self, at: int, array: TensorMap) -> int:
        """Where the map of the array at address ``at`` is, for launches on the stream ``compute``."""
        key = at, array
        if key not in self._found:
            place = len(self._found) % _AT_ONCE
            if place == 0:
                self._memory.append(self._device.allocate(_AT_ONCE * BYTES))
            encoded = self._device.tensor_map(at, array)
            self._found[key] = self._memory[-1].address + place * BYTES
            self._encoded.append(encoded)
            self._device.compute.upload(self._found[key], encoded)
        return self._found[key]
