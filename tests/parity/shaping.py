"""Shapes, reductions and products: cases in which Tenon and PyTorch do the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tenon as tn
from parity import Case, ModuleCase, distinct, integers, normal, uniform

X = normal(2, 3, 4)
SQUARE = normal(4, 4)
TIES = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [-1.0, 0.0, 5.0]])


def same(name: str, do: Callable[..., Any], *arrays: np.ndarray, **more: Any) -> Case:
    """``do(library, *tensors)`` on both sides."""
    return Case(name, lambda *x: do(tn, *x), lambda t, *x: do(t, *x), arrays, **more)


CASES: list[Case | ModuleCase] = [
    same("split", lambda t, x: x.split(2, 2), X, compiled=True, batched=(0,)),
    same("split/uneven", lambda t, x: t.split(x, 3, -1), X),
    same("split/sizes", lambda t, x: t.split(x, [1, 0, 2], 1), X),
    *(same(f"chunk/{n}", lambda t, x, n=n: t.chunk(x, n, 1), normal(2, 7)) for n in (1, 2, 3, 4, 9)),
    *(same(f"tensor_split/{n}", lambda t, x, n=n: t.tensor_split(x, n, 1), normal(2, 7)) for n in (3, (1, 4), (5, 2))),
    same("unbind", lambda t, x: t.unbind(x, -1), X),
    same("narrow", lambda t, x: x.narrow(1, 1, 2), X),
    same("select", lambda t, x: x.select(-1, -2), X),
    *(same(f"repeat/{r}", lambda t, x, r=r: x.repeat(*r), normal(2, 3), compiled=r == (2, 1, 3))
      for r in ((2, 1, 3), (1, 2), (0, 2))),
    *(same(f"tile/{r}", lambda t, x, r=r: t.tile(x, r), normal(2, 3)) for r in ((2,), (3, 2), (2, 1, 2))),
    *(same(f"repeat_interleave/{d}", lambda t, x, d=d: t.repeat_interleave(x, 3, dim=d), X) for d in (None, 1, -1)),
    *(same(f"flip/{d}", lambda t, x, d=d: t.flip(x, d), X) for d in ((0,), (0, -1), (2, 1))),
    *(same(f"rot90/{k}", lambda t, x, k=k: t.rot90(x, k, (1, 2)), X) for k in (0, 1, 2, 3, -1)),
    *(same(f"roll/{s}/{d}", lambda t, x, s=s, d=d: t.roll(x, s, d), X)
      for s, d in ((1, 0), (-2, 2), ((1, 5), (0, 2)), (5, None))),
    *(same(f"movedim/{s}/{d}", lambda t, x, s=s, d=d: t.movedim(x, s, d), X) for s, d in ((0, 2), ((0, 1), (-1, 0)))),
    *(same(f"{n}/{k}", lambda t, x, n=n, k=k: getattr(t, n)(x, k), normal(2, 3, 4))
      for n in ("tril", "triu") for k in (0, 1, -2)),
    *(same(f"{n}/bool", lambda t, x, n=n: getattr(t, n)(x > 0), normal(3, 4), grads=False) for n in ("tril", "triu")),
    *(same(f"diagonal/{o}/{d}", lambda t, x, o=o, d=d: t.diagonal(x, o, *d), normal(3, 4, 5))
      for o in (0, 1, -2, 9) for d in ((0, 1), (-1, 0))),
    *(same(f"diag/{o}", lambda t, x, o=o: (t.diag(x, o), t.diag(x[0], o)), normal(3, 4)) for o in (0, 2, -1)),
    same("diag_embed", lambda t, x: t.diag_embed(x, 1), normal(2, 3)),
    same("trace", lambda t, x: t.trace(x), normal(3, 4)),
    same("hstack, vstack", lambda t, x, y: (t.hstack((x, y)), t.vstack((x, y)), t.vstack((x[0], y[0]))),
         normal(2, 3), normal(2, 3)),
    same("meshgrid", lambda t, x, y: (*t.meshgrid(x, y, indexing="ij"), *t.meshgrid(x, y, indexing="xy")),
         normal(3), normal(2)),
    same("unfold", lambda t, x: x.unfold(1, 2, 1).unfold(2, 3, 2), normal(2, 3, 9), compiled=True, batched=(0,)),
    *(same(f"norm/{p}/{d}", lambda t, x, p=p, d=d: t.norm(x, p, d), distinct(3, 2, 4))
      for p in (1, 2, 3, float("inf"), -float("inf"), "fro") for d in (1, (0, 2))),
    same("norm/nothing", lambda t, x: t.norm(x), np.zeros((2, 3))),
    *(same(f"var/{d}/{c}", lambda t, x, d=d, c=c: (t.var(x, d, correction=c), t.std(x, d, correction=c, keepdim=True)), X)
      for d in (0, -1, (0, 2)) for c in (0, 1)),
    same("var_mean", lambda t, x: t.var_mean(x, 1), X),
    same("count_nonzero", lambda t, x: t.count_nonzero(x > 0.2, 1), X, grads=False),
    same("nansum, nanmean", lambda t, x: (t.nansum(x, 1), t.nanmean(x, 1)), np.array([[1.0, np.nan, 2.0], [0.5, 1, 2]])),
    *(same(f"{n}/ties", lambda t, x, n=n: getattr(t, n)(x), TIES) for n in ("max", "min")),
    *(same(f"{n}/along an axis", lambda t, x, n=n: (*getattr(t, n)(x, 1), *getattr(t, n)(x, 0, True)), distinct(3, 4)) for n in ("max", "min")),
    *(same(f"{n}/ties", lambda t, x, n=n: getattr(t, n)(x, 1), TIES) for n in ("amax", "amin")),
    *(same(f"{n}", lambda t, x, n=n: (getattr(t, n)(x), getattr(t, n)(x, 1)), distinct(3, 4), grads=False) for n in ("argmax", "argmin")),
    *(same(f"prod/{d}", lambda t, x, d=d: t.prod(x, d), np.array([[0.5, 0.0, 2.0], [1.0, 3.0, 0.2]])) for d in (0, 1)),
    *(same(f"{n}/empty", lambda t, x, n=n: getattr(t, n)(x, 1), normal(2, 0)) for n in ("sum", "prod")),
    same("any, all", lambda t, x: (t.any(x > 1, 1), t.all(x > -1, 2)), X, grads=False),
    *(same(f"logsumexp/{d}", lambda t, x, d=d: t.logsumexp(x, d), X) for d in (0, -1, (1, 2))),
    # products
    *(same(f"einsum/{e}", lambda t, *x, e=e: t.einsum(e, *x), *arrays, compiled=e == "bij,bjk->bik")
      for e, arrays in (
          ("bij,bjk->bik", (normal(2, 3, 4), normal(2, 4, 5))), ("ij,jk", (normal(2, 3), normal(3, 4))),
          ("ii->i", (SQUARE,)), ("ii", (SQUARE,)), ("ij->ji", (normal(2, 3),)), ("ij->", (normal(2, 3),)),
          ("i,j->ij", (normal(2), normal(3))), ("...ij,...jk->...ik", (normal(2, 1, 3, 4), normal(5, 4, 2))),
          ("bqhd,bkhd->bhqk", (normal(2, 3, 2, 4), normal(2, 5, 2, 4))), ("ab,bc,cd->ad", (normal(2, 3), normal(3, 4), normal(4, 2))),
          ("i...->...", (normal(2, 3),)), ("bi,oij,bj->bo", (normal(3, 2), normal(4, 2, 5), normal(3, 5))),
      )),
    same("tensordot", lambda t, x, y: t.tensordot(x, y, ((1, 0), (0, 2))), normal(2, 3, 4), normal(3, 5, 2)),
    same("tensordot/2", lambda t, x, y: t.tensordot(x, y, 2), normal(2, 3, 4), normal(3, 4, 5)),
    same("mm, bmm, mv, dot, outer", lambda t, a, b, v: (t.mm(a, b), t.bmm(a[None], b[None]), t.mv(a, v), t.dot(v, v),
         t.outer(v, v), t.addmm(b[:1], a, b, beta=0.5, alpha=2), t.baddbmm(b[:1], a[None], b[None])),
         normal(2, 3), normal(3, 3), normal(3)),
    same("matmul/vectors", lambda t, a, v: (t.matmul(a, v), t.matmul(v, a), t.matmul(v, v)), SQUARE, normal(4)),
    # order
    *(same(f"sort/{d}/{down}", lambda t, x, d=d, down=down: tuple(t.sort(x, dim=d, descending=down, stable=True)), X,
           compiled=d == 1 and down, batched=(0,)) for d in (0, 1, -1) for down in (False, True)),
    same("sort/nan", lambda t, x: tuple(t.sort(x, stable=True)), np.array([2.0, np.nan, np.inf, 1.0, 1.0, -np.inf]), grads=False),
    same("argsort", lambda t, x: t.argsort(x, 0), X, grads=False),
    *(same(f"topk/{k}/{g}", lambda t, x, k=k, g=g: tuple(t.topk(x, k, 1, g)), distinct(3, 6)) for k in (0, 1, 4) for g in (True, False)),
    same("kthvalue", lambda t, x: tuple(t.kthvalue(x, 2, 1, True)), distinct(3, 6)),
    same("median", lambda t, x: (t.median(x), *t.median(x, 1)), distinct(3, 6)),
    *(same(f"cumsum/{d}", lambda t, x, d=d: t.cumsum(x, d), X, compiled=d == 1, batched=(0,)) for d in (0, 1, -1)),
    *(same(f"cumprod/{d}", lambda t, x, d=d: t.cumprod(x, d), np.where(abs(X) < 0.2, 0.0, X)) for d in (0, 1, -1)),
    same("cumsum/integers", lambda t, x: (t.cumsum(x, 0), t.cumprod(x, 0)), integers(9, 5), grads=False, dtypes=("f64",)),
    same("cumsum/empty", lambda t, x: (t.cumsum(x, 0), t.cumsum(x, 1)), normal(0, 3)),
    same("logcumsumexp", lambda t, x: t.logcumsumexp(x, 1), X),
    same("cummax, cummin", lambda t, x: (*t.cummax(x, 1), *t.cummin(x, 1)), distinct(3, 6)),
    same("bincount", lambda t, x, w: (t.bincount(x, minlength=9), t.bincount(x, w, minlength=9)), integers(9, 20), uniform(0, 1, 20), grads=False),
    *(same(f"searchsorted/{r}", lambda t, s, x, r=r: (t.searchsorted(s, x, right=r), t.bucketize(x, s, right=r)),
           np.array([0.0, 1.0, 1.0, 2.0]), np.array([[1.0, 0.5], [-1.0, 3.0]]), grads=False) for r in (False, True)),
]  # fmt: skip
