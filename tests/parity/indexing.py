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
    same("x[i, j]/broadcast", lambda t, x, i, j: x[i[:, None], j], X, integers(4, 2), integers(5, 3)),
    same("x[i2, :, j2]", lambda t, x, i, j: x[i, 1:, j], X, ROWS, integers(3, 1, 3), compiled=True),
    same("x[..., 0, i]", lambda t, x, i: x[..., 0, i], X, integers(3, 2, 2)),
    same("x[None, i, ::2]", lambda t, x, i: x[None, i, ::2], X, WRAPPED),
    same("x[i[0]]", lambda t, x, i: x[:, i], X, np.array(-2)),
    same("x[none]", lambda t, x, i: x[i], X, integers(4, 0)),
    same("x[i]/empty", lambda t, x, i: x[i], normal(4, 0, 3), WRAPPED % 4),
    same("x[mask, i]", lambda t, x, i: x[t.tensor(MASK), i], X, integers(5, 1)),
    same("x[mask2]", lambda t, x: x[..., t.tensor(X[0] > 0)], X),
    same("x[:, mask]", lambda t, x: x[:, t.tensor(X[0, :, 0] > 0), 1:], X),
    same("gather", lambda t, x, i: t.gather(x, 1, i), X, integers(5, 4, 2, 3), compiled=True, batched=(0, 1)),
    same("gather/dim=-1", lambda t, x, i: x.gather(-1, i), X, integers(3, 4, 5, 7)),
    same("gather/nothing", lambda t, x, i: t.gather(x, 1, i), X, integers(5, 4, 0, 3)),
    same("gather/non-finite", lambda t, x, i: t.gather(x, 0, i), np.array([np.nan, np.inf, -np.inf, 1.0]), integers(4, 9)),
    same("gather/smaller", lambda t, x, i: t.gather(x, 0, i), X, integers(4, 6, 2, 1)),
    same("take_along_dim", lambda t, x, i: t.take_along_dim(x, i, 1), X, integers(5, 1, 7, 3)),
    same("take_along_dim/wrap", lambda t, x, i: t.take_along_dim(x, i, 0), X, integers(4, 2, 1, 3) - 4),
    same("take_along_dim/flat", lambda t, x, i: t.take_along_dim(x, i), X, integers(60, 7)),
    *(same(f"index_select/{d}", lambda t, x, i, d=d: t.index_select(x, d, i), X, integers(3, 6)) for d in (0, 1, -1)),
    same("take", lambda t, x, i: t.take(x, i), X, integers(120, 2, 3) - 60),
    same("scatter", lambda t, x, i, s: t.scatter(x, 0, i, s), X, unique(4, 2, 5, 3), normal(2, 5, 3), compiled=True),
    same("scatter/value", lambda t, x, i: t.scatter(x, 1, i, 2.5), X, integers(5, 4, 2, 3)),
    same("scatter/number", lambda t, x, i: x.scatter(-1, i, value=0.5), X, unique(3, 2, 5, 4).transpose(2, 1, 0)),
    same("scatter/smaller", lambda t, x, i, s: t.scatter(x, 0, i, s), X, unique(4, 2, 3, 2), normal(2, 3, 2), compiled=True),
    *(same(f"scatter/{how}", lambda t, x, i, s, how=how: t.scatter(x, 1, i, s, reduce=how), X, integers(5, 2, 7, 1),
           normal(4, 9, 2), grads=False) for how in ("add", "multiply")),
    same("scatter_add/smaller", lambda t, x, i, s: x.scatter_add(1, i, s), X, integers(5, 2, 7, 2), normal(2, 7, 2)),
    same("scatter_add/larger", lambda t, x, i, s: x.scatter_add(1, i, s), X, integers(5, 2, 7, 2), normal(4, 9, 3), grads=False),
    same("scatter_add/nothing", lambda t, x, i, s: t.scatter_add(x, 0, i, s), X, integers(4, 0, 5, 3), normal(0, 5, 3)),
    same("scatter_reduce/smaller", lambda t, x, i, s: t.scatter_reduce(x, 1, i, s, "mean", include_self=False), X,
         integers(5, 2, 7, 2), normal(2, 7, 2)),
    *(same(f"scatter_reduce/{how}/integers/{own}", lambda t, x, i, s, how=how, own=own:
           t.scatter_reduce(x, 0, i, s, how, include_self=own), integers(9, 6) - 4, integers(3, 12), integers(9, 12) - 4)
      for how in ("sum", "prod", "mean", "amax", "amin") for own in (True, False)),
    *(same(f"index_reduce/{how}/{own}", lambda t, x, i, s, how=how, own=own:
           t.index_reduce(x, 1, i, s, how, include_self=own), distinct(4, 5, 3), np.array([4, 0, 4, 2]), distinct(4, 4, 3) * 1.01)
      for how in ("prod", "mean", "amax", "amin") for own in (True, False)),
    same("scatter_add", lambda t, x, i, s: t.scatter_add(x, 1, i, s), X, integers(5, 4, 7, 3), normal(4, 7, 3), compiled=True),
    *(same(f"scatter_reduce/{how}/{own}", lambda t, x, i, s, how=how, own=own:
           t.scatter_reduce(x, 1, i, s, how, include_self=own), distinct(4, 5, 3), integers(5, 4, 7, 3), distinct(4, 7, 3) * 1.01)
      for how in ("sum", "prod", "mean", "amax", "amin") for own in (True, False)),
    same("index_add", lambda t, x, i, s: t.index_add(x, 1, i, s, alpha=2), X, integers(5, 7), normal(4, 7, 3)),
    same("index_copy", lambda t, x, i, s: t.index_copy(x, 1, i, s), X, np.array([3, 0]), normal(4, 2, 3)),
    same("index_fill", lambda t, x, i: t.index_fill(x, 1, i, -1.0), X, np.array([3, 0, 3])),
    same("index_add/dim=-1", lambda t, x, i, s: x.index_add(-1, i, s), X, integers(3, 5), normal(4, 5, 5), compiled=True),
    same("index_fill/wrap", lambda t, x, i: t.index_fill(x, 0, i, 2), X, np.array([-1, 1])),
    same("masked_fill/broadcast", lambda t, x, m: x.masked_fill(m > 0, float("-inf")), X, normal(5, 1)),
    same("masked_fill/integers", lambda t, x: x.masked_fill(x > 4, 3.7), integers(9, 4, 3)),
    same("masked_select", lambda t, x: t.masked_select(x, t.tensor(X[:, :1] > 0)), X),
    same("masked_scatter", lambda t, x, s: x.masked_scatter(x > 0.2, s), X, normal(7, 10), compiled=True),
    same("masked_scatter/broadcast", lambda t, x, m, s: t.masked_scatter(x, m > 0, s), X, normal(5, 1), normal(70)),
    same("masked_scatter/nothing", lambda t, x, s: t.masked_scatter(x, x > 9, s), X, normal(0)),
    same("index_put/one", lambda t, x, i, v: x.index_put((i,), v), X, np.array([2, 0]), normal(2, 1, 3)),
    same("index_put/broadcast", lambda t, x, i, j, v: t.index_put(x, (i, j), v, accumulate=True), X, integers(4, 3, 1),
         integers(5, 4), normal(3)),
    same("index_put/mask", lambda t, x, v: x.index_put((t.tensor(MASK),), v), X, normal(5, 1)),
    *(same(f"index_put/where/{a}", lambda t, x, v, a=a: x.index_put((x[..., 0] > 0,), v, accumulate=a), X, normal(), grads=False)
      for a in (False, True)),
    same("slice_scatter", lambda t, x, s: t.slice_scatter(x, s, 1, 1, None, 2), X, normal(4, 2, 3), compiled=True, batched=(0, 1)),
    same("slice_scatter/-", lambda t, x, s: x.slice_scatter(s, -1, -2), X, normal(4, 5, 2)),
    same("slice_scatter/nothing", lambda t, x, s: x.slice_scatter(s, 0, 3, 1), X, normal(0, 5, 3)),
    same("select_scatter", lambda t, x, s: t.select_scatter(x, s, 1, -2), X, normal(4, 3)),
    same("masked_fill", lambda t, x: x.masked_fill(x > 0.3, -2.0), X),
    *(same(f"index_put/{a}", lambda t, x, i, j, v, a=a: t.index_put(x, (i, j), v, accumulate=a), X,
           np.array([0, 2, 3, -1]) if not a else np.array([0, 2, 0, -1]), np.array([1, 1, 4, 0]), normal(4, 3))
      for a in (False, True)),
]  # fmt: skip
