"""Tensor maps: what TMA knows of an array in global memory and of the box of it that one copy takes."""

from __future__ import annotations

import numpy as np

from engine.program import Window
from engine.records import dataclass

BYTES = 128
"""The size of an encoded map, which lies at a multiple of 64 bytes in global memory."""

AXES = 5
"""The most axes of an array."""


@dataclass(frozen=True)
class TensorMap:
    """An array of two to five axes and elements of ``itemsize`` bytes, neighbours along the last axis and ``strides``
    bytes apart (multiples of 16) along the others, of which a copy takes a box of the sizes ``box``. The box's rows,
    along the last axis, follow one another in shared memory, where ``swizzle`` (0, 32, 64 or 128 bytes: the most that a
    row may have) exchanges their chunks of 16 bytes. What lies outside of the array is read as zero and not written.

    With a ``window`` the array has images, rows, columns and channels, and a copy takes ``box`` pixels by channels:
    those that so many outputs of a convolution meet with one of their taps, in order, from one output on."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int
    box: tuple[int, ...]
    swizzle: int = 128
    window: Window | None = None

    def for_simulator(self, address: int) -> np.ndarray:
        """The map of the array at ``address`` as the simulator encodes it: 128 bytes."""
        rank = len(self.shape)
        assert len(self.strides) == rank - 1 and len(self.box) == (2 if self.window else rank) <= AXES
        encoded = np.zeros(BYTES // 8, np.int64)
        encoded[:2] = address, rank | self.itemsize << 8 | self.swizzle << 16 | bool(self.window) << 32
        for start, sizes in zip(_PARTS, (self.shape, self.strides, self.box), strict=True):
            encoded[start : start + len(sizes)] = sizes
        if self.window:
            numbers = np.array([*self.window.sizes, *self.window.step, 0, 0], np.int8)
            encoded[_WINDOW] = numbers.view(np.int64)[0]
        return encoded.view(np.uint8)


_PARTS = (2, 2 + AXES, 1 + 2 * AXES)
"""Where the simulator's maps have shape, strides and box."""
_WINDOW = BYTES // 8 - 1
"""And the window, whose numbers take a byte each: a GPU's maps have no more for them. Steps are 8 at most."""
LARGEST_STEP = 8


def from_simulator(encoded: np.ndarray) -> tuple[int, TensorMap]:
    """The address of the array, and the map."""
    values = [int(v) for v in encoded.view(np.int64)]
    rank, itemsize, swizzle, windowed = (
        values[1] & 0xFF,
        values[1] >> 8 & 0xFF,
        values[1] >> 16 & 0xFFFF,
        values[1] >> 32,
    )
    counts = (rank, rank - 1, 2 if windowed else rank)
    shape, strides, box = (tuple(values[i : i + n]) for i, n in zip(_PARTS, counts, strict=True))
    window = None
    if windowed:
        top, left, bottom, right, down, across = (int(n) for n in encoded.view(np.int8)[8 * _WINDOW :][:6])
        window = Window((top, left), (bottom, right), (down, across))
    return values[0], TensorMap(shape, strides, itemsize, box, swizzle, window)
