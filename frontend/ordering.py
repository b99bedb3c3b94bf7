"""Sorting, the greatest few, and searching in what is sorted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from engine import dtypes
from engine.errors import ShapeError, TenonError
from engine.rules import normal_axis
from frontend.dispatch import call
from frontend.sizes import SizeLike, plain, rely_on

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
        return Sorted(x, call("cast", x != x, dtype=dtypes.i64) * 0)
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


def _first(x: Tensor, axis: int, start: int, count: SizeLike) -> Tensor:
    return x[(*(slice(None),) * axis, slice(start, start + count))]


def topk(x: Tensor, k: SizeLike, dim: int = -1, largest: bool = True, sorted: bool = True) -> Sorted:
    """The ``k`` greatest along ``dim`` (or least), in order, and where they are. NaN is the greatest.

    PyTorch: torch.topk. Differs: always sorted.
    """
    axis = normal_axis(dim, x.ndim, "topk")
    size = x.shape[axis]
    rely_on((plain(k), plain(size) - plain(k)), f"topk: there are no {k} elements in an axis of {size}")
    found = sort(x, axis, descending=largest)
    return Sorted(_first(found.values, axis, 0, k), _first(found.indices, axis, 0, k))


# --- searching ----------------------------------------------------------------------------------------------------


def searchsorted(
    sorted_sequence: Tensor, values: Any, *, out_int32: bool = False, right: bool = False, side: str | None = None
) -> Tensor:
    """How many elements of a sorted vector are less than each value (with ``right``, or ``side="right"``: not greater);
    or of the sorted last axis of a tensor, for values with the same axes before it.

    By bisection; by comparing with every element where their number is symbolic.

    PyTorch: torch.searchsorted. Differs: there is no sorter.
    """
    from frontend.tensor import as_tensor

    if side not in (None, "left", "right") or (side == "left" and right):
        raise TenonError(f'searchsorted: side is "left" or "right", as right says, not {side!r}')
    sequence, sought = as_tensor(sorted_sequence), as_tensor(values)
    if sequence.ndim == 0 or (sequence.ndim > 1 and tuple(sequence.shape[:-1]) != tuple(sought.shape[:-1])):
        shapes = f"{tuple(sequence.shape)} and {tuple(sought.shape)}"
        raise ShapeError(f"searchsorted: a vector, or axes before the last as the values have, not shapes {shapes}")
    flat = sought.reshape(-1) if sequence.ndim == 1 else sought
    search = _bisected if isinstance(sequence.shape[-1], int) else _counted
    found = search(sequence, flat, right or side == "right").reshape(sought.shape)
    return found.to(dtypes.i32) if out_int32 else found


def _before(element: Tensor, value: Tensor, right: bool) -> Tensor:
    """Whether the value belongs behind the element; NaN belongs behind all."""
    return call("not_", element > value if right else element >= value)


def _counted(sequence: Tensor, values: Tensor, right: bool) -> Tensor:
    return _before(sequence.unsqueeze(-2), values.unsqueeze(-1), right).sum(-1)


def _bisected(sequence: Tensor, values: Tensor, right: bool) -> Tensor:
    size = sequence.shape[-1]
    found = call("cast", values != values, dtype=dtypes.i64) * 0
    step = 1 << size.bit_length() >> 1
    while step:
        probe = found + step
        element = call("gather", sequence, call("minimum", probe, size) - 1, axis=sequence.ndim - 1)
        found = call("where", call("and_", probe <= size, _before(element, values, right)), probe, found)
        step >>= 1
    return found


def bucketize(input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """The number of the bucket of each value between sorted boundaries: as :func:`searchsorted`, the other way round.

    PyTorch: torch.bucketize.
    """
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)
