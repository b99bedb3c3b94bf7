"""``x[...]`` with integers, slices, None and Ellipsis, as slice and reshape nodes."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.dims import Size, shape_text
from engine.errors import ShapeError, UnsupportedError
from frontend.dispatch import call, is_tensor
from frontend.sizes import SymbolicSize, plain, plain_shape, rely_on

if TYPE_CHECKING:
    from frontend.tensor import Tensor


def index(x: Tensor, key: Any) -> Tensor:
    """``x[key]``. Bounds of slices are clipped to known sizes as in NumPy; beside a symbolic size they must lie inside
    the axis, which every call checks. Raises ShapeError, or UnsupportedError for indices that are tensors."""
    entries = _expanded(x, key if isinstance(key, tuple) else (key,))
    sizes = iter(plain_shape(x.shape))
    start: list[Size] = []
    stop: list[Size] = []
    step: list[int] = []
    kept: list[int | None] = []  # for each axis of the result, the axis of the slice, or None for a new one
    for entry in entries:
        if entry is None:
            kept.append(None)
            continue
        size = next(sizes)
        axis = len(start)
        if isinstance(entry, slice):
            a, b, s = _bounds(entry, size)
            kept.append(axis)
        else:
            a = _position(_integer(entry), size, axis, x)
            b, s = a + 1, 1
        start.append(a)
        stop.append(b)
        step.append(s)
    bounds = zip(start, stop, step, plain_shape(x.shape), strict=True)
    whole = all(a == 0 and b == n and s == 1 for a, b, s, n in bounds)
    part = x if whole else call("slice", x, start=tuple(start), stop=tuple(stop), step=tuple(step))
    if kept == list(range(x.ndim)):
        return part
    return part.reshape(tuple(1 if axis is None else part.shape[axis] for axis in kept))


def _expanded(x: Tensor, key: tuple[Any, ...]) -> list[Any]:
    """One entry for each axis of ``x``, and None for each new axis."""
    for entry in key:
        if isinstance(entry, (list, bool, np.bool_)) or is_tensor(entry):
            raise UnsupportedError(
                f"a tensor is indexed with integers, slices, None and ..., not with {type(entry).__name__}; "
                "to choose elements by a condition use where(condition, a, b)"
            )
    ellipses = sum(entry is Ellipsis for entry in key)
    used = sum(entry is not None and entry is not Ellipsis for entry in key)
    if ellipses > 1:
        raise ShapeError("an index has more than one ellipsis (...)")
    if used > x.ndim:
        raise ShapeError(f"{used} indices are too many for a tensor of shape {shape_text(plain_shape(x.shape))}")
    fill = [slice(None)] * (x.ndim - used)
    where = next((i for i, entry in enumerate(key) if entry is Ellipsis), len(key))
    return [*key[:where], *fill, *key[where + 1 :]]


def _integer(entry: Any) -> Size:
    if not isinstance(entry, SymbolicSize) and not hasattr(entry, "__index__"):
        raise ShapeError(
            f"a tensor is indexed with integers, slices, None and ..., not with {type(entry).__name__} {entry!r:.60}"
        )
    return plain(entry)


def _position(i: Size, size: Size, axis: int, x: Tensor) -> Size:
    at = size + i if isinstance(i, int) and i < 0 else i
    reason = f"index {i} does not exist in axis {axis} of a tensor of shape {shape_text(plain_shape(x.shape))}"
    rely_on((at, size - at - 1), reason)
    return at


def _bounds(entry: slice, size: Size) -> tuple[Size, Size, int]:
    """Start, stop and step of a slice of an axis: inside it, and with at least 0 elements."""
    step = 1 if entry.step is None else operator.index(entry.step)
    if step == 0:
        raise ShapeError("the step of a slice cannot be 0")
    if isinstance(size, int) and not any(isinstance(e, SymbolicSize) for e in (entry.start, entry.stop)):
        start, stop, _ = slice(entry.start, entry.stop, step).indices(size)
        return (start, stop, step) if len(range(start, stop, step)) else (0, 0, 1)
    if step < 0:
        first, last = _bound(entry.start, size, size - 1), _bound(entry.stop, size, -1)
    else:
        first, last = _bound(entry.start, size, 0), _bound(entry.stop, size, size)
    return first, last, step


def _bound(given: Any, size: Size, default: Size) -> Size:
    if given is None:
        return default
    bound = plain(given)
    return size + bound if isinstance(bound, int) and bound < 0 else bound
