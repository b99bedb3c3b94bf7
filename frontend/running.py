"""Sums, products and extrema that run along an axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine import dtypes
from engine.rules import normal_axis
from frontend.dispatch import call
from frontend.reducing import Extremum
from frontend.sizes import plain, plain_shape

if TYPE_CHECKING:
    from frontend.tensor import Tensor


def _wide(x: Tensor, dtype: object) -> Tensor:
    if dtype is not None:
        return x.to(dtype)
    return x if x.dtype.is_float else x.long()


def cumsum(x: Tensor, dim: int, dtype: object = None) -> Tensor:
    """The sum of the elements so far along ``dim``; integers and bools in i64.

    PyTorch: torch.cumsum.
    """
    from frontend.tensor import as_tensor

    wide, axis = _wide(x, dtype), normal_axis(dim, max(x.ndim, 1), "cumsum")
    return wide if wide.ndim == 0 else call("linear_scan", as_tensor(1, wide.dtype), wide, axis=axis)


def cumprod(x: Tensor, dim: int, dtype: object = None) -> Tensor:
    """The product of the elements so far along ``dim``; integers and bools in i64.

    PyTorch: torch.cumprod.
    """
    wide, axis = _wide(x, dtype), normal_axis(dim, max(x.ndim, 1), "cumprod")
    if wide.ndim == 0:
        return wide
    first = call("iota", shape=plain_shape(wide.shape), axis=axis) == 0
    # A scan whose terms are all zero but the first: h[i] = x[i] * h[i-1].
    factors, terms = call("where", first, 0, wide), call("where", first, wide, 0)
    return call("linear_scan", factors, terms, axis=axis)


def logcumsumexp(x: Tensor, dim: int) -> Tensor:
    """The logarithm of the sum of exp of the elements so far along ``dim``.

    Each sum is kept relative to the greatest element so far, so that none overflows and none vanishes:
    ``s[i] = s[i-1] * exp(m[i-1] - m[i]) + exp(x[i] - m[i])``, and ``m[i] + log(s[i])`` is the result (as in Milakov and
    Gimelshein, 2018, "Online normalizer calculation for softmax").

    PyTorch: torch.logcumsumexp.
    """
    axis = normal_axis(dim, max(x.ndim, 1), "logcumsumexp")
    if x.ndim == 0:
        return x
    lowest = -float("inf")
    best = cummax(x.detach(), axis).values
    along = tuple(plain(n) if i == axis else 1 for i, n in enumerate(best.shape))
    one_less = call("maximum", call("iota", shape=along, axis=axis) - 1, 0)
    before = call("gather", best, one_less, axis=axis)
    shift = call("where", call("isfinite", best), best, 0)
    shift_before = call("where", call("isfinite", before), before, 0)
    factors = call("where", before == lowest, 0, call("exp", shift_before - shift))
    nothing = best == lowest
    sums = call("linear_scan", factors, call("exp", x - shift), axis=axis)
    return call("where", nothing, lowest, shift + call("log", call("where", nothing, 1, sums)))


def cummax(x: Tensor, dim: int) -> Extremum:
    """The greatest so far along ``dim``, and where it is: the last of equal ones. NaN wins.

    PyTorch: torch.cummax.
    """
    return _running("cummax", x, dim)


def cummin(x: Tensor, dim: int) -> Extremum:
    """The least so far along ``dim``, and where it is: the last of equal ones. NaN wins.

    PyTorch: torch.cummin.
    """
    return _running("cummin", x, dim)


def _running(op: str, x: Tensor, dim: int) -> Extremum:
    axis = normal_axis(dim, max(x.ndim, 1), op)
    if x.ndim:
        return Extremum(*call(op, x, axis=axis))
    return Extremum(x, call("cast", x != x, dtype=dtypes.i64) * 0)
