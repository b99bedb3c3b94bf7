"""Counting numbers: how often each occurs, and how many fall into each of equal intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine import dtypes
from engine.errors import ShapeError, TenonError
from engine.rules import need_float
from frontend.dispatch import call
from frontend.gathering import checked_index

if TYPE_CHECKING:
    from frontend.tensor import Tensor


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


def histc(x: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements fall into each of ``bins`` equal intervals from ``min`` to ``max``, both included; where they
    are equal, from the least element to the greatest. Others are not counted.

    PyTorch: torch.histc.
    """
    from frontend import creation
    from frontend.tensor import as_tensor

    need_float("histc", x._type)
    if bins < 1 or min > max:
        raise TenonError(f"histc: {bins} intervals from {min} to {max}; at least one was expected, and min <= max")
    flat = x.detach().reshape(-1)
    low, high = as_tensor(min, x.dtype), as_tensor(max, x.dtype)
    counts = creation.zeros(bins, dtype=x.dtype)
    if flat.shape[0] == 0:
        return counts
    if min == max:
        low, high = (call(op, flat, axes=(0,)) for op in ("min", "max"))
        alone = low == high
        low, high = call("where", alone, low - 1, low), call("where", alone, high + 1, high)
    inside = call("and_", flat >= low, flat <= high)
    place = call("where", inside, (flat - low) / (high - low) * bins, 0)
    where = call("minimum", call("cast", place, dtype=dtypes.i64), bins - 1)
    return call("scatter", counts, where, call("cast", inside, dtype=x.dtype), axis=0, mode="add")
