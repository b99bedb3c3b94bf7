"""Sorting, ranking, and sums and products that run along an axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from engine import dtypes
from engine.errors import DTypeError, ShapeError, TenonError
from engine.rules import normal_axis
from frontend.dispatch import call
from frontend.gathering import checked_index
from frontend.reducing import Extremum
from frontend.sizes import plain_shape

if TYPE_CHECKING:
    from frontend.tensor import Tensor


class Sorted(NamedTuple):
    """Elements in order, and where each came from (i64)."""

    values: Tensor
    indices: Tensor


def sort(x: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> Sorted:
    """The elements in order along ``dim``, and where each came from. Equal ones keep their order; NaN is the greatest.

    PyTorch: torch.sort. Differs: always stable.
    """
    if x.ndim == 0:
        return Sorted(x, call("cast", x * 0, dtype=dtypes.i64))
    return Sorted(*call("sort", x, axis=normal_axis(dim, x.ndim, "sort"), descending=descending))


def argsort(x: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """Where the elements in order come from.

    PyTorch: torch.argsort. Differs: always stable.
    """
    return sort(x, dim, descending).indices


def msort(x: Tensor) -> Tensor:
    """The elements in order along the first axis.

    PyTorch: torch.msort.
    """
    return sort(x, 0).values


def _first(x: Tensor, axis: int, start: int, count: int) -> Tensor:
    return x[(*(slice(None),) * axis, slice(start, start + count))]


def topk(x: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Sorted:
    """The ``k`` greatest along ``dim`` (or least), in order, and where they are. NaN is the greatest.

    PyTorch: torch.topk. Differs: always sorted.
    """
    axis = normal_axis(dim, x.ndim, "topk")
    size = x.shape[axis]
    if k < 0 or (isinstance(size, int) and k > size):
        raise ShapeError(f"topk: {k} elements of an axis of {size}")
    found = sort(x, axis, descending=largest)
    return Sorted(_first(found.values, axis, 0, k), _first(found.indices, axis, 0, k))


def kthvalue(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Sorted:
    """The ``k``-th least along ``dim``, counted from 1, and where it is.

    PyTorch: torch.kthvalue.
    """
    axis = normal_axis(dim, x.ndim, "kthvalue")
    size = x.shape[axis]
    if not isinstance(size, int) or not 1 <= k <= size:
        raise ShapeError(f"kthvalue: there is no number {k} in an axis of {size}")
    found = sort(x, axis)
    parts = [_first(part, axis, k - 1, 1) for part in found]
    return Sorted(*(part if keepdim else part.squeeze(axis) for part in parts))


def median(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The middle element, the lower of two: of all, or along ``dim`` with its position. NaN is the greatest.

    PyTorch: torch.median. Differs: a NaN does not win.
    """
    if dim is None:
        return kthvalue(x.reshape(-1), (_known(x.numel(), "median") + 1) // 2, 0).values
    return kthvalue(x, (_known(x.shape[normal_axis(dim, x.ndim, "median")], "median") + 1) // 2, dim, keepdim)


def _known(size: Any, op: str) -> int:
    if not isinstance(size, int):
        raise ShapeError(f"{op} needs an axis of known size, not {size}")
    return size


# --- running along an axis -----------------------------------------------------------------------------------------


def _wide(x: Tensor, dtype: object) -> Tensor:
    if dtype is not None:
        return x.to(dtype)
    return x if x.dtype.is_float else x.long()


def cumsum(x: Tensor, dim: int, dtype: object = None) -> Tensor:
    """The sum of the elements so far along ``dim``; integers and bools in i64.

    PyTorch: torch.cumsum.
    """
    wide = _wide(x, dtype)
    if wide.ndim == 0:
        return wide
    return call("linear_scan", _one(wide), wide, axis=normal_axis(dim, x.ndim, "cumsum"))


def _one(x: Tensor) -> Tensor:
    from frontend.tensor import as_tensor

    return as_tensor(1, x.dtype)


def cumprod(x: Tensor, dim: int, dtype: object = None) -> Tensor:
    """The product of the elements so far along ``dim``; integers and bools in i64.

    PyTorch: torch.cumprod.
    """
    wide = _wide(x, dtype)
    if wide.ndim == 0:
        return wide
    axis = normal_axis(dim, x.ndim, "cumprod")
    first = call("iota", shape=plain_shape(wide.shape), axis=axis) == 0
    factors, terms = call("where", first, 0, wide), call("where", first, wide, 0)
    return call("linear_scan", factors, terms, axis=axis)


def logcumsumexp(x: Tensor, dim: int) -> Tensor:
    """The logarithm of the sum of exp of the elements so far along ``dim``, shifted by the greatest of all.

    PyTorch: torch.logcumsumexp.
    """
    axis = normal_axis(dim, x.ndim, "logcumsumexp")
    greatest = call("detach", call("max", x, axes=(axis,), keepdims=True))
    return call("log", cumsum(call("exp", x - greatest), axis)) + greatest


def _running(x: Tensor, dim: int, greatest: bool, op: str) -> Extremum:
    """Every prefix's extremum, by windows over a padded axis: quadratic in the size of the axis."""
    axis = normal_axis(dim, x.ndim, op)
    size = _known(x.shape[axis], op)
    if not x.dtype.is_float:
        raise DTypeError(f"{op} takes floating point tensors, not {x.dtype}")
    low = tuple(size - 1 if i == axis else 0 for i in range(x.ndim))
    worst = -float("inf") if greatest else float("inf")
    wide = call("pad", x, low=low, high=(0,) * x.ndim, step=(1,) * x.ndim, value=worst)
    windows = call("window", wide, axis=axis, size=size, step=1)
    last = windows.flip(-1)  # of equal ones the last wins
    behind = call("argmax" if greatest else "argmin", last, axis=x.ndim)
    position = call("iota", shape=plain_shape(windows.shape[:-1]), axis=axis) - behind
    return Extremum(call("gather", x, position, axis=axis), position)


def cummax(x: Tensor, dim: int) -> Extremum:
    """The greatest so far along ``dim``, and where it is.

    PyTorch: torch.cummax.
    """
    return _running(x, dim, True, "cummax")


def cummin(x: Tensor, dim: int) -> Extremum:
    """The least so far along ``dim``, and where it is.

    PyTorch: torch.cummin.
    """
    return _running(x, dim, False, "cummin")


# --- counting ------------------------------------------------------------------------------------------------------


def bincount(x: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each of the numbers 0 to ``minlength - 1`` occurs (i64), or the sum of the weights of each.

    PyTorch: torch.bincount. Differs: in a traced function the length is ``minlength``.
    """
    from frontend import creation

    if x.ndim != 1:
        raise ShapeError(f"bincount takes a vector, not shape {tuple(x.shape)}")
    if not x.is_symbolic:
        minlength = max(minlength, int(x.max()) + 1 if x.numel() else 0)
    elif minlength < 1:
        raise TenonError("bincount needs minlength in a traced function, where the greatest number is not known")
    where = checked_index(x, minlength, "bincount")
    one = creation.ones_like(where) if weights is None else weights
    return call("scatter", creation.zeros(minlength, dtype=one.dtype), where, one, axis=0, mode="add")


def searchsorted(sorted_sequence: Tensor, values: Tensor, *, right: bool = False) -> Tensor:
    """How many elements of a sorted vector are less than each value (with ``right``: not greater).

    PyTorch: torch.searchsorted. Differs: the sequence is a vector.
    """
    if sorted_sequence.ndim != 1:
        raise ShapeError(f"searchsorted takes a sorted vector, not shape {tuple(sorted_sequence.shape)}")
    each = values.unsqueeze(-1)
    before = sorted_sequence <= each if right else sorted_sequence < each
    return before.sum(-1)


def bucketize(values: Tensor, boundaries: Tensor, *, right: bool = False) -> Tensor:
    """The number of the bucket of each value: as :func:`searchsorted`, the other way round.

    PyTorch: torch.bucketize.
    """
    return searchsorted(boundaries, values, right=right)
