"""Data sets as arrays that programs take, and their batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engine.dtypes import DType, as_dtype, i64
from engine.errors import DTypeError, ShapeError, TenonError
from tenon.specs import TensorSpec, spec


@dataclass(frozen=True)
class Data:
    """Samples ``x`` and targets ``y`` (None where there are none), along axis 0."""

    x: np.ndarray
    y: np.ndarray | None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """One program takes every batch of such data: its first axis is the dim ``B``."""
        arrays = [a for a in (self.x, self.y) if a is not None]
        return tuple(spec("B", *a.shape[1:], dtype=a.dtype) for a in arrays)

    def batches(self, size: int, order: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, ...]]:
        """Batches of ``size`` (the last may be smaller), in the given order of samples."""
        for start in range(0, len(self), size):
            rows = slice(start, start + size) if order is None else order[start : start + size]
            yield (self.x[rows],) if self.y is None else (self.x[rows], self.y[rows])


def as_data(x: object, y: object | None, floating: DType, what: str) -> Data:
    """``x`` and ``y`` as arrays. Floats become ``floating``; class labels i64.

    Raises TenonError for empty data or different lengths, ShapeError for scalars, DTypeError for other dtypes; ``what``
    says whose data it is.
    """
    samples = _as_array(x, floating, f"the x of {what}")
    targets = None if y is None else _as_array(y, floating, f"the y of {what}", labels=True)
    if targets is not None and len(samples) != len(targets):
        raise TenonError(f"{what} got {len(samples)} samples x and {len(targets)} targets y; as many were expected")
    if not len(samples):
        raise TenonError(f"{what} got no samples: x has shape {samples.shape}")
    return Data(samples, targets)


def split(data: Data, share: float) -> tuple[Data, Data]:
    """``data`` without its last ``share``, and that part. Raises TenonError where one of them would be empty."""
    count = int(len(data) * share)
    if not 0 < share < 1 or count in (0, len(data)):
        raise TenonError(
            f"validation_split={share} of {len(data)} samples leaves {len(data) - count} for training and {count} for "
            "validation; a share above 0 and below 1 that leaves some for both was expected"
        )
    cut = len(data) - count
    first, last = (None, None) if data.y is None else (data.y[:cut], data.y[cut:])
    return Data(data.x[:cut], first), Data(data.x[cut:], last)


def _as_array(value: object, floating: DType, what: str, labels: bool = False) -> np.ndarray:
    array = np.asarray(value)
    if array.ndim == 0:
        raise ShapeError(f"{what} is a scalar; an array with one row a sample was expected")
    if array.dtype.kind == "f":
        return array.astype(floating.numpy, copy=False)
    if array.dtype.kind in "iu" and (labels or array.dtype != np.uint8):
        return array.astype(i64.numpy, copy=False)
    try:
        as_dtype(array.dtype)
    except DTypeError:
        raise DTypeError(f"{what} has dtype {array.dtype}; numbers were expected") from None
    return array
