"""``x[...]`` with integers, slices, None, Ellipsis and tensors of indices, and writing what a slice or integer says."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.dims import Size, ceil_div, shape_text
from engine.errors import ShapeError, UnsupportedError
from engine.rules import normal_axis
from frontend.dispatch import call, is_tensor
from frontend.gathering import fitting, looked_up, merged
from frontend.masking import is_mask, known_mask, positions
from frontend.sizes import SizeLike, SymbolicSize, as_size, plain, plain_shape, rely_on

if TYPE_CHECKING:
    from frontend.tensor import Tensor


def index(x: Tensor, key: Any) -> Tensor:
    """``x[key]``, as NumPy: integers, slices, None, Ellipsis, integer tensors that broadcast together, and masks whose
    elements are known while tracing.

    Bounds of slices are clipped to known sizes; beside a symbolic size they must lie inside the axis. Indices in
    tensors are checked in every call. Raises ShapeError, IndexRangeError, or UnsupportedError for an unknown mask.

    PyTorch: torch.Tensor.__getitem__. Differs: an integer beside tensors counts as one of them, as in NumPy: in
    ``x[0, :, i]`` the axes of ``i`` come first.
    """
    entries = _expanded(x, [_entry(e) for e in (key if isinstance(key, tuple) else (key,))])
    if any(is_tensor(e) for e in entries):
        return _advanced(x, _without_masks(x, entries))
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


def _entry(given: Any) -> Any:
    """A list as an array; a mask as an array of its elements."""
    found = given
    if isinstance(given, (list, tuple)):
        array = np.asarray(given)
        found = array if array.size else array.astype(np.int64)
    if isinstance(found, (bool, np.bool_)) or (is_mask(found) and found.ndim == 0):
        raise UnsupportedError(f"a tensor is not indexed with {given}; to choose by a condition use where(c, a, b)")
    return known_mask(found, "an index") if is_mask(found) else found


def _axes_taken(entry: Any) -> int:
    return 0 if entry is None else entry.ndim if is_mask(entry) else 1


def _expanded(x: Tensor, key: list[Any]) -> list[Any]:
    """Entries for all axes of ``x``, and None for each new axis."""
    ellipses = sum(entry is Ellipsis for entry in key)
    used = sum(_axes_taken(entry) for entry in key if entry is not Ellipsis)
    if ellipses > 1:
        raise ShapeError("an index has more than one ellipsis (...)")
    if used > x.ndim:
        raise ShapeError(f"{used} indices are too many for a tensor of shape {shape_text(plain_shape(x.shape))}")
    fill = [slice(None)] * (x.ndim - used)
    where = next((i for i, entry in enumerate(key) if entry is Ellipsis), len(key))
    return [*key[:where], *fill, *key[where + 1 :]]


def _without_masks(x: Tensor, entries: list[Any]) -> list[Any]:
    """Every mask as the indices of its true elements, one for each of its axes."""
    found: list[Any] = []
    axis = 0
    for entry in entries:
        taken = _axes_taken(entry)
        sizes = plain_shape(x.shape)[axis : axis + taken]
        found += positions(entry, sizes, "an index") if is_mask(entry) else [entry]
        axis += taken
    return found


def _advanced(x: Tensor, entries: list[Any]) -> Tensor:
    """Slices and integers first; then the axes that tensors index are looked up as one. Their own axes stand where the
    tensors stood, or in front where other axes were between them."""
    part = index(x, tuple(slice(None) if is_tensor(e) else e for e in entries))
    axis = 0
    places = []
    for entry in entries:
        if is_tensor(entry):
            places.append(axis)
        axis += entry is None or isinstance(entry, slice) or is_tensor(entry)
    indexed = [i for i, e in enumerate(entries) if e is not None and not isinstance(e, slice)]
    together = indexed == list(range(indexed[0], indexed[-1] + 1))
    first = places[0]
    if places != list(range(first, first + len(places))):
        part = part.permute((*places, *(i for i in range(part.ndim) if i not in places)))
        first = 0
    part, place = merged(part, [e for e in entries if is_tensor(e)], "an index", first)
    out = looked_up(part, first, place)
    if together or first == 0:
        return out
    own = range(first, first + place.ndim)
    return out.permute((*own, *(i for i in range(out.ndim) if i not in own)))


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


# --- writing -------------------------------------------------------------------------------------------------------


def slice_scatter(
    x: Tensor, src: Tensor, dim: int = 0, start: SizeLike | None = None, end: SizeLike | None = None, step: int = 1
) -> Tensor:
    """``x`` with ``src`` in place of ``x[start:end:step]`` along ``dim``; ``src`` has the shape of that part. Raises
    ShapeError, and DTypeError where ``x`` cannot hold elements of ``src``.

    PyTorch: torch.slice_scatter.
    """
    from frontend.tensor import as_tensor

    x = as_tensor(x)
    axis = normal_axis(dim, x.ndim, "slice_scatter")
    first, last, by = _bounds(slice(start, end, step), plain(x.shape[axis]))
    if by < 1:
        raise ShapeError(f"slice_scatter: the step must be at least 1, not {by}")
    count = ceil_div(last - first, by)
    shape = tuple(count if i == axis else n for i, n in enumerate(plain_shape(x.shape)))
    source = fitting("slice_scatter", x, src)
    if source.ndim != len(shape):
        raise ShapeError(f"slice_scatter takes a source of shape {shape_text(shape)}, not {tuple(source.shape)}")
    for i, (a, b) in enumerate(zip(plain_shape(source.shape), shape, strict=True)):
        rely_on((a - b, b - a), f"slice_scatter: axis {i} of the source has {a} elements instead of {b}")
    count_along = tuple(count if i == axis else 1 for i in range(x.ndim))
    places = call("iota", shape=count_along, axis=axis) * by + as_size(first)
    return call("scatter", x, places, source, axis=axis, mode="set")


def select_scatter(x: Tensor, src: Tensor, dim: int, index: SizeLike) -> Tensor:
    """``x`` with ``src`` in place of the part ``index`` along ``dim``, which it has the shape of.

    PyTorch: torch.select_scatter.
    """
    from frontend.tensor import as_tensor

    x = as_tensor(x)
    axis = normal_axis(dim, x.ndim, "select_scatter")
    at = _position(_integer(index), plain(x.shape[axis]), axis, x)
    return slice_scatter(x, as_tensor(src).unsqueeze(axis), axis, as_size(at), as_size(at + 1))
