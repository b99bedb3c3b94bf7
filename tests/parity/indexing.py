"""Elements by index: cases in which Tenon and PyTorch do the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tenon as tn
from parity import Case, ModuleCase, distinct, integers, normal

X = normal(4, 5, 3)
ROWS, WRAPPED = integers(4, 2, 3), integers(8, 3) - 4
MASK = X[:, 0, 0] > 0


def same(name: str, do: Callable[..., Any], *arrays: np.ndarray, **more: Any) -> Case:
    """``do(library, *tensors)`` on both sides."""
    return Case(name, lambda *x: do(tn, *x), lambda t, *x: do(t, *x), arrays, **more)


def unique(n: int, *shape: int) -> np.ndarray:
    """Different indices along axis 0."""
    return np.argsort(normal(n, *shape[1:]), 0)[: shape[0]]


CASES: list[Case | ModuleCase] = [
    same("x[i]", lambda t, x, i: x[i], X, ROWS, compiled=True, batched=(1,)),
    same("x[-i]", lambda t, x, i: x[i], X, WRAPPED),
    same("x[:, i]", lambda t, x, i: x[:, i], X, WRAPPED),
    same("x[..., i]", lambda t, x, i: x[..., i % 3], X, WRAPPED),
    same("x[i, j]", lambda t, x, i, j: x[i, j], X, ROWS, integers(5, 3)),
    same("x[i, :, j]", lambda t, x, i, j: x[i, :, j], X, ROWS, integers(3, 3)),
    same("x[:, i, j]", lambda t, x, i, j: x[:, i, j], X, integers(5, 4), integers(3, 4)),
    same("x[1:, i, None]", lambda t, x, i: x[1:, i, None], X, WRAPPED),
    same("x[2, i]", lambda t, x, i: x[2, i], X, WRAPPED),
    same("x[[0, 2]]", lambda t, x: x[[0, 2]], X),
    same("x[mask]", lambda t, x: x[t.tensor(MASK)], X),
    same("x[:, mask]", lambda t, x: x[:, t.tensor(X[0, :, 0] > 0), 1:], X),
    same("gather", lambda t, x, i: t.gather(x, 1, i), X, integers(5, 4, 2, 3), compiled=True, batched=(0, 1)),
    same("gather/smaller", lambda t, x, i: t.gather(x, 0, i), X, integers(4, 6, 2, 1)),
    same("take_along_dim", lambda t, x, i: t.take_along_dim(x, i, 1), X, integers(5, 1, 7, 3)),
    same("take_along_dim/flat", lambda t, x, i: t.take_along_dim(x, i), X, integers(60, 7)),
    *(same(f"index_select/{d}", lambda t, x, i, d=d: t.index_select(x, d, i), X, integers(3, 6)) for d in (0, 1, -1)),
    same("take", lambda t, x, i: t.take(x, i), X, integers(120, 2, 3) - 60),
    same("scatter", lambda t, x, i, s: t.scatter(x, 0, i, s), X, unique(4, 2, 5, 3), normal(2, 5, 3), compiled=True),
    same("scatter/value", lambda t, x, i: t.scatter(x, 1, i, 2.5), X, integers(5, 4, 2, 3)),
    same("scatter_add", lambda t, x, i, s: t.scatter_add(x, 1, i, s), X, integers(5, 4, 7, 3), normal(4, 7, 3), compiled=True),
    *(same(f"scatter_reduce/{how}/{own}", lambda t, x, i, s, how=how, own=own:
           t.scatter_reduce(x, 1, i, s, how, include_self=own), distinct(4, 5, 3), integers(5, 4, 7, 3), distinct(4, 7, 3) * 1.01)
      for how in ("sum", "prod", "mean", "amax", "amin") for own in (True, False)),
    same("index_add", lambda t, x, i, s: t.index_add(x, 1, i, s, alpha=2), X, integers(5, 7), normal(4, 7, 3)),
    same("index_copy", lambda t, x, i, s: t.index_copy(x, 1, i, s), X, np.array([3, 0]), normal(4, 2, 3)),
    same("index_fill", lambda t, x, i: t.index_fill(x, 1, i, -1.0), X, np.array([3, 0, 3])),
    same("masked_fill", lambda t, x: x.masked_fill(x > 0.3, -2.0), X),
    *(same(f"index_put/{a}", lambda t, x, i, j, v, a=a: t.index_put(x, (i, j), v, accumulate=a), X,
           np.array([0, 2, 3, -1]) if not a else np.array([0, 2, 0, -1]), np.array([1, 1, 4, 0]), normal(4, 3))
      for a in (False, True)),
]  # fmt: skip
