"""Tensor maps: what TMA knows of a matrix in global memory and of the box of it that one copy takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BYTES = 128
"""The size of an encoded map, which lies at a multiple of 64 bytes in global memory."""

_FIELDS = 16


@dataclass(frozen=True)
class TensorMap:
    """A matrix of ``rows`` x ``columns`` elements of ``itemsize`` bytes, its rows ``stride`` bytes apart (a multiple of
    16), of which a copy takes ``box_rows`` x ``box_columns``. Its rows follow one another in shared memory, where
    ``swizzle`` (0, 32, 64 or 128 bytes: the most that a row of the box may have) exchanges their chunks of 16 bytes.
    What lies outside of the matrix is read as zero and not written."""

    rows: int
    columns: int
    itemsize: int
    stride: int
    box_rows: int
    box_columns: int
    swizzle: int = 128

    def for_simulator(self, address: int) -> np.ndarray:
        """The map of the matrix at ``address`` as the simulator encodes it: 128 bytes."""
        values = [address, self.rows, self.columns, self.itemsize, self.stride, self.box_rows, self.box_columns]
        return np.array([*values, self.swizzle] + [0] * (_FIELDS - len(values) - 1), np.int64).view(np.uint8)


def from_simulator(encoded: np.ndarray) -> tuple[int, TensorMap]:
    """The address of the matrix, and the map."""
    address, *fields = (int(v) for v in encoded.view(np.int64)[:8])
    return address, TensorMap(*fields)
