"""Arguments on which ops are tried: what a sample is, and numbers to make them of.

Each module of this package lists its area's ``SAMPLES``; ``op_samples`` puts them together.
Float arguments are f64 and lie away from kinks and poles, so that finite differences make sense.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_rng = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    return _rng.normal(size=shape)


def distinct(*shape: int) -> np.ndarray:
    """Numbers of both signs, each at least 0.1 from the others and from 0."""
    n = int(np.prod(shape))
    return (_rng.permutation(n) - n // 2 + 0.5).reshape(shape) * 0.3


def between(low: float, high: float, *shape: int) -> np.ndarray:
    return _rng.uniform(low, high, shape)


def integers(high: int, *shape: int, dtype: str = "int64") -> np.ndarray:
    return _rng.integers(0, high, shape).astype(dtype)


@dataclass(frozen=True, eq=False)
class Sample:
    """``op(*arrays, **attrs)``. ``torch`` names what is equivalent in ``torch`` (dotted), or computes it."""

    op: str
    arrays: tuple[np.ndarray, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    torch: str | Callable[..., Any] | None = None

    def __str__(self) -> str:
        shapes = "_".join("x".join(map(str, a.shape)) or "scalar" for a in self.arrays)
        attrs = "_".join(f"{k}={v}".replace(" ", "") for k, v in self.attrs.items())
        return "-".join(filter(None, (self.op, shapes, attrs)))
