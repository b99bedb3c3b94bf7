"""Elements by rank: medians, quantiles, and the k-th least."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine import dtypes
from engine.errors import ShapeError, TenonError
from engine.rules import need_float, normal_axis
from frontend.dispatch import call
from frontend.ordering import Sorted, sort
from frontend.sizes import SizeLike, plain, rely_on

if TYPE_CHECKING:
    from frontend.tensor import Tensor


def kthvalue(x: Tensor, k: SizeLike, dim: int = -1, keepdim: bool = False) -> Sorted:
    """The ``k``-th least along ``dim``, counted from 1, and where it is. NaN is the greatest.

    PyTorch: torch.kthvalue.
    """
    if x.ndim == 0:
        return kthvalue(x.reshape(1), k)
    axis = normal_axis(dim, x.ndim, "kthvalue")
    at, size = plain(k), plain(x.shape[axis])
    rely_on((at - 1, size - at), f"kthvalue: there is no number {k} in an axis of {size}")
    return _picked(sort(x, axis), _missing(x, axis) * 0 + (k - 1), axis, keepdim)


def median(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The middle element, the lower of two: of all, or along ``dim`` with its position. NaN where there is one.

    PyTorch: torch.median. Differs: of equal elements one alone has the gradient.
    """
    return _median("median", x, dim, keepdim, lambda missing, size: size - missing)


def nanmedian(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The middle of the elements that are not NaN, the lower of two: of all, or along ``dim`` with its position.

    PyTorch: torch.nanmedian. Differs: of equal elements one alone has the gradient.
    """
    return _median("nanmedian", x, dim, keepdim, lambda missing, size: call("maximum", size - missing - 1, 0) // 2)


def _median(op: str, x: Tensor, dim: int | None, keepdim: bool, rank: Any) -> Any:
    """``rank(missing, size)`` is that of the wanted element where NaNs are missing."""
    if dim is None:
        return _median(op, x.reshape(-1), 0, False, rank).values
    if x.ndim == 0:
        return sort(x)
    axis = normal_axis(dim, x.ndim, op)
    size, missing = x.shape[axis], _missing(x, axis)
    rely_on((plain(size) - 1,), f"{op}: axis {dim} has no elements")
    place = call("where", missing > 0, rank(missing, size), (size - 1) // 2)
    return _picked(sort(x, axis), place, axis, keepdim)


def _missing(x: Tensor, axis: int) -> Tensor:
    """How many elements along an axis, which is kept, are NaN."""
    return call("sum", call("ne", x, x), axes=(axis,), keepdims=True)


def _picked(ordered: Sorted, rank: Tensor, axis: int, keepdim: bool) -> Sorted:
    parts = [call("gather", part, rank, axis=axis) for part in ordered]
    return Sorted(*(part if keepdim else part.squeeze(axis) for part in parts))


_BETWEEN = ("linear", "lower", "higher", "midpoint", "nearest")


def quantile(
    x: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """The element below which the share ``q`` of all lies, or of those along ``dim``; several for a vector of shares,
    along a new first axis. Between two elements ``interpolation`` decides. NaN where there is one.

    PyTorch: torch.quantile.
    """
    return _quantile("quantile", x, q, dim, keepdim, interpolation)


def nanquantile(
    x: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """As :func:`quantile`, of the elements that are not NaN.

    PyTorch: torch.nanquantile.
    """
    return _quantile("nanquantile", x, q, dim, keepdim, interpolation)


def _quantile(op: str, x: Tensor, q: Any, dim: int | None, keepdim: bool, interpolation: str) -> Tensor:
    from frontend.tensor import as_tensor

    need_float(op, x._type)
    shares = as_tensor(q, x.dtype)
    if shares.ndim > 1:
        raise ShapeError(f"{op}: the shares are a number or a vector, not of shape {tuple(shares.shape)}")
    if interpolation not in _BETWEEN:
        raise TenonError(f"{op}: interpolation is one of {', '.join(_BETWEEN)}, not {interpolation!r}")
    axis = 0 if dim is None else normal_axis(dim, max(x.ndim, 1), op)
    flat = x.reshape(-1) if dim is None or x.ndim == 0 else x.movedim(axis, -1)
    last = flat.ndim - 1
    size = flat.shape[-1]
    rely_on((plain(size) - 1,), f"{op}: there are no elements")
    missing = _missing(flat, last)
    if op == "nanquantile":
        rank = shares.reshape(-1) * call("maximum", size - missing - 1, 0).to(x.dtype)
    else:
        rank = call(
            "where", missing > 0, size - 1, shares.reshape(-1) * call("cast", missing * 0 + size - 1, dtype=x.dtype)
        )
    ordered = sort(flat, -1).values

    def at(place: Tensor) -> Tensor:
        return call("gather", ordered, call("cast", place, dtype=dtypes.i64), axis=last)

    rounding = {"lower": "floor", "higher": "ceil", "nearest": "round"}.get(interpolation)
    if rounding is not None:
        found = at(call(rounding, rank))
    else:
        below = call("floor", rank)
        weight = 0.5 if interpolation == "midpoint" else rank - below
        found = call("lerp", at(below), at(call("ceil", rank)), weight)
    shape = [1] * x.ndim if dim is None else [1 if i == axis else n for i, n in enumerate(x.shape)]
    rest = shape if keepdim else [n for i, n in enumerate(shape) if i != axis and dim is not None]
    if shares.ndim == 0:
        return found.reshape(tuple(rest))
    return found.movedim(-1, 0).reshape((shares.shape[0], *rest))
