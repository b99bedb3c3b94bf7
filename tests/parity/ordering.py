"""Ordering, running along an axis, and counting: cases in which Tenon and PyTorch do the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tenon as tn
from parity import Case, ModuleCase, distinct, integers, normal

X = distinct(3, 4, 5)
ODD = np.array([[3.0, np.nan, 1.0, -np.inf], [np.inf, 2.0, np.nan, np.nan], [-np.inf, 4.0, -1.0, np.inf]])
REPEATED = integers(3, 6, 5)
ZEROS = X * (np.abs(X) > 1.5)


def same(name: str, do: Callable[..., Any], *arrays: np.ndarray, **more: Any) -> Case:
    """``do(library, *tensors)`` on both sides; named tuples as tuples."""
    return Case(name, lambda *x: do(tn, *x), lambda t, *x: do(t, *x), arrays, **more)


def both(name: str, do: Callable[..., Any], *arrays: np.ndarray, **more: Any) -> Case:
    return same(name, lambda t, *x: tuple(do(t, *x)), *arrays, **more)


SORTING = [
    both("sort", lambda t, x: t.sort(x), X, compiled=True, batched=(0,)),
    both("sort/dim", lambda t, x: t.sort(x, 0, descending=True), X),
    both("sort/method", lambda t, x: x.sort(dim=-2), X),
    both("sort/non-finite", lambda t, x: t.sort(x), ODD, grads=False),
    both("sort/non-finite-descending", lambda t, x: t.sort(x, dim=0, descending=True, stable=True), ODD, grads=False),
    both("sort/equal", lambda t, x: t.sort(x, dim=0, stable=True), REPEATED),
    both("sort/equal-descending", lambda t, x: t.sort(x, dim=0, descending=True, stable=True), REPEATED),
    both("sort/bools", lambda t, x: t.sort(x > 1, stable=True), REPEATED),
    both("sort/empty", lambda t, x: t.sort(x, 1), normal(2, 0, 3)),
    both("sort/one", lambda t, x: t.sort(x, 1), normal(2, 1)),
    both("sort/scalar", lambda t, x: t.sort(x, 0), np.array(2.5)),
    same("argsort", lambda t, x: t.argsort(x, 1, descending=True), X, grads=False),
    same("argsort/method", lambda t, x: x.argsort(), ODD, grads=False),
    same("msort", lambda t, x: t.msort(x), X),
    both("topk", lambda t, x: t.topk(x, 2), X, compiled=True, batched=(0,)),
    both("topk/least", lambda t, x: x.topk(3, dim=0, largest=False), X),
    both("topk/all", lambda t, x: t.topk(x, 5, -1), X),
    both("topk/none", lambda t, x: t.topk(x, 0), X),
    both("topk/nan", lambda t, x: t.topk(x, 2, 0), ODD[:, :2], grads=False),
]

RANKS = [
    both("kthvalue", lambda t, x: t.kthvalue(x, 2), X, compiled=True, batched=(0,)),
    both("kthvalue/keepdim", lambda t, x: x.kthvalue(3, 0, True), X),
    both("median/dim", lambda t, x: t.median(x, 1), X, compiled=True, batched=(0,)),
    both("median/keepdim", lambda t, x: x.median(-1, True), X),
    both("median/nan", lambda t, x: t.median(x, 1), ODD, grads=False),
    both("median/integers", lambda t, x: t.median(x.long() * 7 + t.arange(5), 1), REPEATED),
    same("median", lambda t, x: t.median(x), X),
    same("median/nan-of-all", lambda t, x: t.median(x), ODD, grads=False),
    both("nanmedian/dim", lambda t, x: t.nanmedian(x, 1), ODD, grads=False),
    both("median/scalar", lambda t, x: t.median(x, 0), np.array(2.0)),
    both("kthvalue/scalar", lambda t, x: t.kthvalue(x, 1), np.array(2.0)),
    same("quantile/scalar", lambda t, x: t.quantile(x, 0.3, 0), np.array(2.0)),
    same("nanmedian", lambda t, x: x.nanmedian(), X),
    same("nanmedian/only-nan", lambda t, x: t.nanmedian(x), np.array([np.nan, np.nan]), grads=False),
    same("quantile", lambda t, x: t.quantile(x, 0.3), X),
    same("quantile/dim", lambda t, x: t.quantile(x, 0.37, 1), X, compiled=True, batched=(0,)),
    same("quantile/keepdim", lambda t, x: t.quantile(x, 0.5, -1, True), X),
    same("quantile/keepdim-of-all", lambda t, x: t.quantile(x, 0.5, keepdim=True), X),
    same("quantile/several", lambda t, x, q: t.quantile(x, q, 0), X, np.array([0.0, 0.1, 0.75, 1.0]), grads=False),
    same("quantile/several-keepdim", lambda t, x, q: x.quantile(q, 1, True), X, np.array([0.2, 0.5]), grads=False),
    same("quantile/nan", lambda t, x: t.quantile(x, 0.4, 0), np.where(np.isinf(ODD), 0.0, ODD), grads=False),
    same("nanquantile", lambda t, x: t.nanquantile(x, 0.4, 1), np.where(np.isinf(ODD), 0.0, ODD), grads=False),
    same("nanquantile/only-nan", lambda t, x: t.nanquantile(x, 0.4, 1), ODD[:2, 1:2], grads=False),
    *(same(f"quantile/{how}", lambda t, x, how=how: t.quantile(x, 0.4, 2, interpolation=how), X)
      for how in ("lower", "higher", "midpoint", "nearest")),
]  # fmt: skip

RUNNING = [
    same("cumsum", lambda t, x: t.cumsum(x, 1), X, compiled=True, batched=(0,)),
    same("cumsum/dim", lambda t, x: x.cumsum(-1), X),
    same("cumsum/integers", lambda t, x: t.cumsum(x.to(t.int32), 0), REPEATED),
    same("cumsum/bools", lambda t, x: t.cumsum(x > 1, 0), REPEATED),
    same("cumsum/dtype", lambda t, x: t.cumsum(x, 0, dtype=t.float64), REPEATED),
    same("cumsum/non-finite", lambda t, x: t.cumsum(x, 0), ODD, grads=False),
    same("cumsum/empty", lambda t, x: t.cumsum(x, 1), normal(2, 0, 3)),
    same("cumsum/one", lambda t, x: t.cumsum(x, 1), normal(2, 1)),
    same("cumsum/scalar", lambda t, x: t.cumsum(x, 0), np.array(1.5)),
    same("cumprod", lambda t, x: t.cumprod(x, 1), X, compiled=True, batched=(0,)),
    same("cumprod/zeros", lambda t, x: t.cumprod(x, -1), ZEROS),
    same("cumprod/integers", lambda t, x: x.cumprod(0), REPEATED),
    same("cumprod/non-finite", lambda t, x: t.cumprod(x, 0), ODD, grads=False),
    same("cumprod/first-not-finite", lambda t, x: t.cumprod(x, 0), np.array([np.inf, 2.0, 0.0, 1.0]), grads=False),
    same("cumprod/empty", lambda t, x: t.cumprod(x, 0), normal(0, 3)),
    both("cummax", lambda t, x: t.cummax(x, 1), X, compiled=True, batched=(0,)),
    both("cummax/nan", lambda t, x: x.cummax(1), ODD, grads=False),
    both("cummax/equal", lambda t, x: t.cummax(x, 0), REPEATED),
    both("cummax/bools", lambda t, x: t.cummax(x > 1, 0), REPEATED),
    both("cummin", lambda t, x: t.cummin(x, 2), X, compiled=True, batched=(0,)),
    both("cummin/nan", lambda t, x: t.cummin(x, -1), ODD, grads=False),
    both("cummin/empty", lambda t, x: t.cummin(x, 0), normal(0, 3), grads=False),
    both("cummin/scalar", lambda t, x: t.cummin(x, 0), np.array(1.5)),
    same("logcumsumexp", lambda t, x: t.logcumsumexp(x, 1), X, compiled=True, batched=(0,)),
    same("logcumsumexp/far", lambda t, x: x.logcumsumexp(0), np.array([-900.0, -905.0, 0.0, 900.0, -900.0, 899.0])),
    same("logcumsumexp/non-finite", lambda t, x: t.logcumsumexp(x, 1), ODD, grads=False),
    same("logcumsumexp/nothing-first", lambda t, x: t.logcumsumexp(x, 0), np.array([-np.inf, -np.inf, -999.0, 2.0]),
         grads=False),
    same("logcumsumexp/empty", lambda t, x: t.logcumsumexp(x, 0), normal(0, 3)),
]  # fmt: skip

EDGES = np.sort(distinct(9))
SOUGHT = np.concatenate([EDGES[::3], distinct(5), [np.nan, np.inf, -np.inf]])
COUNTING = [
    *(same(f"searchsorted/right={r}", lambda t, s, v, r=r: t.searchsorted(s, v, right=r), EDGES, SOUGHT, grads=False,
           compiled=r) for r in (False, True)),
    same("searchsorted/rows", lambda t, s, v: t.searchsorted(t.sort(s, -1)[0], v), X, normal(3, 4, 2), grads=False),
    same("searchsorted/side", lambda t, s, v: t.searchsorted(s, v.reshape(2, -1)[:, :3], side="right", out_int32=True),
         EDGES, SOUGHT[:10], grads=False),
    same("searchsorted/number", lambda t, s: t.searchsorted(s, 0.2), EDGES, grads=False),
    same("searchsorted/empty", lambda t, s, v: t.searchsorted(s, v), normal(0), normal(3), grads=False),
    same("bucketize", lambda t, v, s: t.bucketize(v, s), SOUGHT, EDGES, grads=False),
    same("bucketize/right", lambda t, v, s: t.bucketize(v, s, right=True), SOUGHT, EDGES, grads=False),
    same("bincount", lambda t, i: t.bincount(i, minlength=7), integers(7, 30), compiled=True),
    same("bincount/weights", lambda t, i, w: t.bincount(i, w, minlength=7), integers(7, 9), normal(9), grads=False,
         dtypes=("f64",)),
    same("histc", lambda t, x: t.histc(x, 5, -1, 1), normal(40), grads=False, compiled=True),
    same("histc/range", lambda t, x: t.histc(x, bins=4), X, grads=False),
    same("histc/one-value", lambda t, x: t.histc(x, bins=4), np.full(3, 2.0), grads=False),
    same("histc/empty", lambda t, x: t.histc(x, 3), normal(0), grads=False),
]  # fmt: skip

CASES: list[Case | ModuleCase] = [*SORTING, *RANKS, *RUNNING, *COUNTING]
