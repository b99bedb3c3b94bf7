"""Data sets: samples by number, each a tuple of arrays and numbers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from engine.errors import TenonError


@runtime_checkable
class Dataset(Protocol):
    """Samples by number. Any object with these two methods is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any:
        """Sample ``index``: a tuple of arrays and numbers, or one of them."""


class ArrayDataset:
    """Arrays of as many rows each, a sample being a row of each."""

    def __init__(self, *arrays: Any):
        if not arrays:
            raise TenonError("ArrayDataset takes at least one array")
        self.arrays = tuple(np.asarray(a) for a in arrays)
        lengths = {a.shape[0] if a.ndim else None for a in self.arrays}
        if len(lengths) != 1 or None in lengths:
            raise TenonError(
                f"ArrayDataset takes arrays of as many rows each, not shapes {[a.shape for a in self.arrays]}"
            )

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return tuple(a[index] for a in self.arrays)

    def rows(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """Many samples at once."""
        return tuple(a[indices] for a in self.arrays)


class Subset:
    """The samples of a data set that ``indices`` name."""

    def __init__(self, dataset: Dataset, indices: Sequence[int] | np.ndarray):
        self.dataset = dataset
        self.indices = np.asarray(indices, np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[index])]


class ConcatDataset:
    """Data sets one after the other."""

    def __init__(self, datasets: Sequence[Dataset]):
        self.datasets = list(datasets)
        self._ends = np.cumsum([len(d) for d in self.datasets]).tolist()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"there is no sample {index} among {len(self)}")
        index %= len(self)
        number = bisect_right(self._ends, index)
        return self.datasets[number][index - (self._ends[number - 1] if number else 0)]


def random_split(dataset: Dataset, lengths: Sequence[float], seed: int = 0) -> list[Subset]:
    """Parts of so many samples each, or of such shares, drawn without replacement.

    Raises TenonError where the lengths do not add up.
    """
    count = len(dataset)
    sizes = [int(n) for n in lengths]
    if all(0 < n < 1 for n in lengths) and abs(sum(lengths) - 1) < 1e-9:
        sizes = [int(count * n) for n in lengths]
        for i in range(count - sum(sizes)):  # what rounding left over
            sizes[i % len(sizes)] += 1
    if sum(sizes) != count:
        raise TenonError(f"random_split: {list(lengths)} do not add up to {count} samples, or to 1")
    order = np.random.default_rng(seed).permutation(count)
    ends = np.cumsum(sizes)
    return [Subset(dataset, order[end - size : end]) for size, end in zip(sizes, ends, strict=True)]


def train_test_split(*arrays: Any, test_size: float = 0.25, seed: int = 0) -> list[np.ndarray]:
    """Each array as a part for training and one for testing, split alike after shuffling: ``x, xt, y, yt``."""
    found = ArrayDataset(*arrays)
    count = len(found)
    held = int(round(count * test_size)) if test_size < 1 else int(test_size)
    if not 0 < held < count:
        raise TenonError(f"test_size={test_size} of {count} samples leaves none for one of the parts")
    order = np.random.default_rng(seed).permutation(count)
    return [a[part] for a in found.arrays for part in (order[held:], order[:held])]
