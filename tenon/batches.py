"""Data sets as arrays that programs take, and their batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from engine.dtypes import DType, as_dtype, i64
from engine.errors import DTypeError, ShapeError, TenonError
from engine.records import dataclass
from frontend import random
from tenon.specs import TensorSpec, spec

Batch = tuple[np.ndarray, ...]


class Source(Protocol):
    """What fit, evaluate and predict read: batches of arrays of the same dtypes, and the same sizes but for axis 0."""

    specs: tuple[TensorSpec, ...]
    samples: int | None

    def epoch(self, epoch: int, skip: int) -> Iterator[Batch]:
        """The batches of an epoch, without the first ``skip``."""
        ...


@dataclass(frozen=True)
class Data:
    """Inputs ``x`` (one array or several), targets ``y`` and sample weights, or None, all along axis 0."""

    x: tuple[np.ndarray, ...]
    y: np.ndarray | None = None
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.x[0])

    @property
    def arrays(self) -> Batch:
        return (*self.x, *(a for a in (self.y, self.weights) if a is not None))

    def part(self, rows: slice) -> Data:
        y, weights = (None if a is None else a[rows] for a in (self.y, self.weights))
        return Data(tuple(a[rows] for a in self.x), y, weights)


class ArraySource:
    """Batches of ``size`` out of arrays (the last may be smaller), in an order drawn anew each epoch from the generator
    that ``tn.seed`` seeds where ``shuffle``."""

    def __init__(self, data: Data, size: int, shuffle: bool = False):
        self.data, self.size, self.shuffle = data, size, shuffle
        self.specs = specs_of(data.arrays)
        self.samples: int | None = len(data)

    def epoch(self, epoch: int, skip: int) -> Iterator[Batch]:
        count = len(self.data)
        order = random.default.generator.permutation(count) if self.shuffle else None
        for start in range(skip * self.size, count, self.size):
            rows = slice(start, start + self.size) if order is None else order[start : start + self.size]
            yield tuple(a[rows] for a in self.data.arrays)


class LoaderSource:
    """The batches of any iterable that can be walked again, such as a :class:`tn.data.Loader`: tuples of arrays, inputs
    first, then targets. One that has ``seek(epoch, batch)`` begins an epoch in its middle without reading what comes
    before."""

    def __init__(self, loader: Iterable[Any], floating: DType, what: str, targets: bool):
        if isinstance(loader, Iterator):
            raise TenonError(
                f"{what} got a {type(loader).__name__}, which is over after one walk, and each epoch walks anew; a "
                "tn.data.Loader of the function that makes it was expected, or any object with __iter__"
            )
        self.loader, self.floating, self.what, self.targets = loader, floating, what, targets
        first = next(iter(self.epoch(0, 0)), None)
        if first is None:
            raise TenonError(f"{what} got a loader without a batch")
        self.specs = specs_of(first)
        samples = getattr(loader, "samples", None)
        self.samples: int | None = samples if isinstance(samples, int) else None

    def epoch(self, epoch: int, skip: int) -> Iterator[Batch]:
        seek = getattr(self.loader, "seek", None)
        if callable(seek):
            seek(epoch, skip)
            batches = iter(self.loader)
        else:
            batches = itertools.islice(iter(self.loader), skip, None)
        return map(self._arrays, batches)

    def _arrays(self, batch: Any) -> Batch:
        parts = tuple(batch.values()) if isinstance(batch, Mapping) else batch
        parts = parts if isinstance(parts, (tuple, list)) else (parts,)
        last = len(parts) - 1 if self.targets else len(parts)
        return tuple(
            as_array(part, self.floating, f"a batch of {self.what}", labels=i >= last) for i, part in enumerate(parts)
        )


def specs_of(arrays: Batch) -> tuple[TensorSpec, ...]:
    """One program takes every batch of such data: its first axis is the dim ``B``."""
    return tuple(spec("B", *a.shape[1:], dtype=a.dtype) for a in arrays)


def is_loader(x: object) -> bool:
    """Whether ``x`` gives batches by itself, rather than being arrays."""
    return not isinstance(x, (np.ndarray, list, tuple, dict)) and not hasattr(x, "__array__") and hasattr(x, "__iter__")


def as_data(x: object, y: object | None, floating: DType, what: str, weights: object | None = None) -> Data:
    """``x`` (an array, or a tuple or dict of arrays) and ``y`` as arrays. Floats become ``floating``; class labels i64.

    Raises TenonError for empty data or different lengths, ShapeError for scalars, DTypeError for other dtypes; ``what``
    says whose data it is.
    """
    several = tuple(x.values()) if isinstance(x, dict) else x if isinstance(x, tuple) else (x,)
    samples = tuple(as_array(part, floating, f"the x of {what}") for part in several)
    targets = None if y is None else as_array(y, floating, f"the y of {what}", labels=True)
    share = None if weights is None else as_array(weights, floating, f"the sample_weight of {what}")
    count = len(samples[0])
    for name, other in (("inputs", samples[-1]), ("targets y", targets), ("weights", share)):
        if other is not None and len(other) != count:
            raise TenonError(f"{what} got {count} samples x and {len(other)} {name}; as many were expected")
    if share is not None and share.ndim != 1:
        raise ShapeError(f"sample_weight has shape {share.shape}; one number a sample was expected")
    if not count:
        raise TenonError(f"{what} got no samples: x has shape {samples[0].shape}")
    return Data(samples, targets, None if share is None else share.astype(floating.numpy))


def class_weights(y: np.ndarray, weights: Mapping[int, float]) -> np.ndarray:
    """The weight of each sample by its class; classes that are not named weigh 1. Raises TenonError unless ``y`` holds
    one class a sample."""
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise TenonError(f"class_weight needs one integer class a sample, not targets {y.dtype} of shape {y.shape}")
    found = np.ones(len(y))
    for label, weight in weights.items():
        found[y == label] = weight
    return found


def split(data: Data, share: float) -> tuple[Data, Data]:
    """``data`` without its last ``share``, and that part. Raises TenonError where one of them would be empty."""
    count = int(len(data) * share)
    if not 0 < share < 1 or count in (0, len(data)):
        raise TenonError(
            f"validation_split={share} of {len(data)} samples leaves {len(data) - count} for training and {count} for "
            "validation; a share above 0 and below 1 that leaves some for both was expected"
        )
    cut = len(data) - count
    return data.part(slice(cut)), data.part(slice(cut, None))


def as_array(value: object, floating: DType, what: str, labels: bool = False) -> np.ndarray:
    """One array as programs take it: see :func:`as_data`."""
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
