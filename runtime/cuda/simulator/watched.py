"""Global memory as arrays, for users' kernels: what they read and write element by element is checked for races."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.cuda.simulator.memory import touched
from runtime.cuda.simulator.thread import current


class Watched(np.ndarray):
    """A view of global memory, in which addresses are ``origin`` more than where its elements lie here."""

    origin = 0

    def __array_finalize__(self, source: Any) -> None:
        self.origin = getattr(source, "origin", 0)

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        if not isinstance(found, np.ndarray):
            self._touch(index, written=False)
        return found

    def __setitem__(self, index: Any, value: Any) -> None:
        self._touch(index, written=True)
        super().__setitem__(index, value)

    def _touch(self, index: Any, written: bool) -> None:
        place = super().__getitem__((*index, ...) if isinstance(index, tuple) else (index, ...))
        start = self.origin + place.__array_interface__["data"][0]
        for at in np.ndindex(place.shape):
            offset = sum(i * s for i, s in zip(at, place.strides, strict=True))
            touched(start + offset, place.itemsize, written)


def watched(address: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype) -> Watched:
    """The array at an address. Raises BoundsError where it is not all inside one buffer."""
    found = current().block.memory.view(address, shape, strides, dtype, "holds").view(Watched)
    found.origin = address - found.__array_interface__["data"][0]
    return found
