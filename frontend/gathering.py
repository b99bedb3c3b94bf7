"""Reading and writing elements where index tensors say, with PyTorch's names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from engine import dtypes
from engine.dims import product, shape_text
from engine.errors import DTypeError, ShapeError, TenonError, UnsupportedError
from engine.rules import normal_axis
from frontend.dispatch import call, is_tensor
from frontend.masking import is_mask, known_mask, positions
from frontend.sizes import as_size, plain, plain_shape, rely_on

if TYPE_CHECKING:
    from frontend.tensor import Tensor


def checked_index(index: Any, size: Any, op: str, wrap: bool = False) -> Tensor:
    """``index`` as i64, known to lie in ``0 .. size-1`` in every call; with ``wrap`` negative ones count from the end.
    Raises DTypeError for what is no integer tensor."""
    from frontend.tensor import as_tensor

    found = as_tensor(index)
    if not found.dtype.is_integer:
        raise DTypeError(f"{op} takes integer indices, not {found.dtype}")
    found = found.long()
    if wrap:
        found = call("where", (found < 0) & (found + size >= 0), found + size, found)
    return call("check_index", found, limit=plain(size))


def looked_up(x: Tensor, axis: int, index: Tensor) -> Tensor:
    """``x`` with the axes of ``index`` in place of ``axis``: what it has there. The index is checked."""
    shape, own = plain_shape(x.shape), plain_shape(index.shape)
    before, after = shape[:axis], shape[axis + 1 :]
    if not own:
        found = call("gather", x, index.reshape((1,) * x.ndim), axis=axis)
        return call("reshape", found, shape=(*before, *after))
    if len(own) > 1:
        x = call("reshape", x, shape=(*before, shape[axis], *(1,) * (len(own) - 1), *after))
    places = call("reshape", index, shape=(*(1,) * len(before), *own, *(1,) * len(after)))
    return call("gather", x, places, axis=axis)


def gather(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """``out[i][j] = x[index[i][j]][j]`` for ``dim=0``: along ``dim`` the index says where. It may be smaller than ``x``
    along the other axes. Raises IndexRangeError in a call in which an index does not exist.

    PyTorch: torch.gather.
    """
    from frontend.tensor import as_tensor

    x = as_tensor(x)
    axis = normal_axis(dim, x.ndim, "gather")
    where = checked_index(index, x.shape[axis], "gather")
    return call("gather", _cut("gather", "tensor", x, where, axis), where, axis=axis)


def take_along_dim(x: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """As :func:`gather`, but the other axes broadcast, and negative indices count from the end; without ``dim`` both
    are flattened.

    PyTorch: torch.take_along_dim.
    """
    from frontend.tensor import as_tensor

    x, indices = as_tensor(x), as_tensor(indices)
    if dim is None:
        return take_along_dim(x.reshape(-1), indices.reshape(-1), 0)
    axis = normal_axis(dim, x.ndim, "take_along_dim")
    return call("gather", x, checked_index(indices, x.shape[axis], "take_along_dim", wrap=True), axis=axis)


def take_along_axis(x: Tensor, indices: Tensor, axis: int | None) -> Tensor:
    """:func:`take_along_dim` under NumPy's and JAX's name.

    PyTorch: torch.take_along_dim.
    """
    return take_along_dim(x, indices, axis)


def index_select(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """The parts along ``dim`` that a vector of indices names.

    PyTorch: torch.index_select.
    """
    from frontend.tensor import as_tensor

    x = as_tensor(x)
    axis = normal_axis(dim, x.ndim, "index_select")
    return looked_up(x, axis, _vector("index_select", index, x.shape[axis]))


def _vector(op: str, index: Any, size: Any, wrap: bool = False) -> Tensor:
    where = checked_index(index, size, op, wrap)
    if where.ndim > 1:
        raise ShapeError(f"{op} takes a vector of indices, not shape {shape_text(plain_shape(where.shape))}")
    return where.reshape(-1)


def take(x: Tensor, index: Tensor) -> Tensor:
    """The elements that ``index`` counts in row-major order; negative ones count from the end.

    PyTorch: torch.take.
    """
    from frontend.tensor import as_tensor

    x = as_tensor(x)
    return looked_up(x.reshape(-1), 0, checked_index(index, x.numel(), "take", wrap=True))


def merged(x: Tensor, indices: Sequence[Any], op: str, first: int = 0) -> tuple[Tensor, Tensor]:
    """``x`` with the axes from ``first`` on, one for each of the indices, as a single one, and the places in it that
    the indices name together, broadcast. Negative ones count from the end."""
    shape = plain_shape(x.shape)
    last = first + len(indices)
    if last > len(shape):
        raise ShapeError(f"{op}: {len(indices)} indices are too many for shape {shape_text(shape)}")
    place: Any = None
    for size, index in zip(shape[first:last], indices, strict=True):
        where = checked_index(index, as_size(size), op, wrap=True)
        place = where if place is None else place * as_size(size) + where
    if len(indices) > 1:
        x = call("reshape", x, shape=(*shape[:first], product(shape[first:last]), *shape[last:]))
    return x, place


# --- writing -------------------------------------------------------------------------------------------------------

_MODES = {"sum": "add", "prod": "mul", "amax": "max", "amin": "min"}


def _cut(op: str, what: str, x: Tensor, index: Tensor, axis: int | None) -> Tensor:
    """``x`` cut to the sizes of ``index`` along all axes but ``axis``. Raises ShapeError where it is smaller."""
    if index.ndim != x.ndim:
        shapes = f"{shape_text(plain_shape(index.shape))} and {shape_text(plain_shape(x.shape))}"
        raise ShapeError(f"{op}: index and {what} must have as many axes each, not shapes {shapes}")
    cut = [slice(None)] * x.ndim
    for i, (a, b) in enumerate(zip(plain_shape(x.shape), plain_shape(index.shape), strict=True)):
        if i != axis and a != b:
            rely_on((a - b,), f"{op}: axis {i} of the index has {b} elements, and the {what} only {a}")
            cut[i] = slice(0, as_size(b))
    return x[tuple(cut)] if any(c != slice(None) for c in cut) else x


def fitting(op: str, x: Tensor, source: Any) -> Tensor:
    """What is written into ``x``, in its dtype. Raises DTypeError for tensors that it cannot hold."""
    from frontend.tensor import as_tensor

    if not is_tensor(source):
        return as_tensor(source, x.dtype)
    found = as_tensor(source)
    if dtypes.promote(found.dtype, x.dtype) != x.dtype:
        raise DTypeError(f"{op}: a source of {found.dtype} does not fit into a tensor of {x.dtype}; cast it with .to")
    return found.to(x.dtype)


Change = Callable[["Tensor", "Tensor", "Tensor", int], "Tensor"]
"""A part of a tensor, an index of its sizes along the other axes, what is written, and the axis, give the new part."""


def _write(op: str, x: Tensor, dim: int, index: Any, source: Any, change: Change) -> Tensor:
    """``x`` with ``change`` made where the index reaches: it, or the first part of it along the other axes."""
    from frontend.tensor import as_tensor

    x = as_tensor(x)
    axis = normal_axis(dim, x.ndim, op)
    where = checked_index(index, x.shape[axis], op)
    part = _cut(op, "tensor", x, where, axis)
    values = fitting(op, x, source)
    if is_tensor(source):
        values = _cut(op, "source", values, where, None)
    else:
        values = call("broadcast_to", values, shape=plain_shape(where.shape))
    new = change(part, where, values, axis)
    if part is x:
        return new
    inside: Any = None
    for i, (whole, size) in enumerate(zip(plain_shape(x.shape), plain_shape(part.shape), strict=True)):
        if whole != size:
            place = call("iota", shape=tuple(whole if a == i else 1 for a in range(x.ndim)), axis=i)
            inside = place < as_size(size) if inside is None else inside & (place < as_size(size))
    none = (0,) * x.ndim
    high = tuple(a - b for a, b in zip(plain_shape(x.shape), plain_shape(part.shape), strict=True))
    return call("where", inside, call("pad", new, low=none, high=high, step=(1,) * x.ndim), x)


def _scattered(mode: str) -> Change:
    return lambda x, index, values, axis: call("scatter", x, index, values, axis=axis, mode=mode)


def scatter(
    x: Tensor, dim: int, index: Tensor, src: Any = None, reduce: str | None = None, *, value: Any = None
) -> Tensor:
    """``x`` with ``out[index[i][j]][j] = src[i][j]`` (or ``value``) for ``dim=0``; with ``reduce`` "add" or "multiply"
    instead of set. Of several that fall on one element the last in row-major order stays. The index may be smaller
    than tensor (along the other axes) and source.

    PyTorch: torch.scatter.
    """
    if reduce not in (None, "add", "multiply"):
        raise TenonError(f'scatter: reduce must be "add" or "multiply", not {reduce!r}; see also scatter_reduce')
    if (src is None) == (value is None):
        raise TenonError("scatter takes either src or value")
    mode = {None: "set", "add": "add", "multiply": "mul"}[reduce]
    return _write("scatter", x, dim, index, value if src is None else src, _scattered(mode))


def scatter_add(x: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """``x`` with ``out[index[i][j]][j] += src[i][j]`` for ``dim=0``. The index may be smaller than tensor (along the
    other axes) and source.

    PyTorch: torch.scatter_add.
    """
    return _write("scatter_add", x, dim, index, src, _scattered("add"))


def scatter_reduce(x: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, include_self: bool = True) -> Tensor:
    """As :func:`scatter_add` with "sum", "prod", "mean", "amax" or "amin"; without ``include_self`` elements on which
    something falls do not count themselves. A mean of integers is rounded down.

    PyTorch: torch.scatter_reduce.
    """
    return _write("scatter_reduce", x, dim, index, src, _reducing("scatter_reduce", reduce, include_self))


def _reducing(op: str, reduce: str, include_self: bool) -> Change:
    if reduce not in (*_MODES, "mean"):
        raise TenonError(f"{op}: reduce must be sum, prod, mean, amax or amin, not {reduce!r}")

    def change(x: Tensor, index: Tensor, values: Tensor, axis: int) -> Tensor:
        def put(start: Any, source: Any, mode: str) -> Tensor:
            return call("scatter", start, index, source, axis=axis, mode=mode)

        def everywhere(number: float, like: Tensor) -> Tensor:
            return call("broadcast_to", fitting(op, x, number), shape=plain_shape(like.shape))

        start = x if include_self else put(x, everywhere(_neutral(reduce, x), values), "set")
        if reduce != "mean":
            return put(start, values, _MODES[reduce])
        own = everywhere(1 if include_self else 0, x)
        count = call("maximum", put(own, everywhere(1, values), "add"), everywhere(1, x))
        return call("div" if x.dtype.is_float else "floordiv", put(start, values, "add"), count)

    return change


def _neutral(reduce: str, x: Tensor) -> float:
    """What changes nothing that it is reduced with."""
    if reduce not in ("amax", "amin"):
        return 1 if reduce == "prod" else 0
    low, high = (-np.inf, np.inf) if x.dtype.is_float else (np.iinfo(x.dtype.numpy).min, np.iinfo(x.dtype.numpy).max)
    return low if reduce == "amax" else high


def index_add(x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """``x`` with the parts of ``source`` along ``dim``, times ``alpha``, added to those that a vector of indices names.

    PyTorch: torch.index_add.
    """
    scaled = source if alpha == 1 else source * alpha
    return _write_parts("index_add", x, dim, index, scaled, _scattered("add"))


def index_copy(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """``x`` with the parts of ``source`` along ``dim`` in the places that a vector of indices names.

    PyTorch: torch.index_copy.
    """
    return _write_parts("index_copy", x, dim, index, source, _scattered("set"))


def index_fill(x: Tensor, dim: int, index: Tensor, value: float) -> Tensor:
    """``x`` with ``value`` in the parts along ``dim`` that a vector of indices names; negative ones count from the end.

    PyTorch: torch.index_fill.
    """
    return _write_parts("index_fill", x, dim, index, value, _scattered("set"), wrap=True)


def index_reduce(
    x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """As :func:`index_add` with "prod", "mean", "amax" or "amin", and ``include_self`` as for :func:`scatter_reduce`.

    PyTorch: torch.index_reduce.
    """
    return _write_parts("index_reduce", x, dim, index, source, _reducing("index_reduce", reduce, include_self))


def _write_parts(op: str, x: Tensor, dim: int, index: Any, source: Any, change: Change, wrap: bool = False) -> Tensor:
    from frontend.tensor import as_tensor

    x = as_tensor(x)
    axis = normal_axis(dim, x.ndim, op)
    where = _vector(op, index, x.shape[axis], wrap)
    values = fitting(op, x, source)
    shape = tuple(plain(where.shape[0]) if i == axis else n for i, n in enumerate(plain_shape(x.shape)))
    if values.ndim not in (0, x.ndim):
        raise ShapeError(f"{op}: the source must have the shape {shape_text(shape)}, not {shape_text(values.shape)}")
    along = where.reshape(tuple(-1 if i == axis else 1 for i in range(x.ndim)))
    return change(x, along, call("broadcast_to", values, shape=shape), axis)


def index_put(x: Tensor, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Tensor:
    """``x`` with ``x[indices] = values``, or ``+=`` with ``accumulate``. Indices are integer tensors, one for each
    leading axis, broadcast together, or masks, one for as many axes as it has. A mask that a trace does not know
    stands alone, and takes a single number.

    PyTorch: torch.index_put. Differs: masks known only when the program runs take a single number.
    """
    from frontend.tensor import as_tensor

    x = as_tensor(x)
    source = fitting("index_put", x, values)
    if len(indices) == 1 and is_mask(indices[0]) and as_tensor(indices[0]).is_symbolic:
        return _put_by_mask(x, as_tensor(indices[0]), source, accumulate)
    found: list[Any] = []
    for index in indices:
        if is_mask(index):
            mask = known_mask(index, "index_put")
            found += positions(mask, x.shape[len(found) : len(found) + mask.ndim], "index_put")
        else:
            found.append(index)
    flat, place = merged(x, found, "index_put")
    rest = plain_shape(flat.shape)[1:]
    wide = call("broadcast_to", source, shape=(*plain_shape(place.shape), *rest))
    count = plain(place.numel())
    rows = call("reshape", wide, shape=(count, *rest))
    where = call("reshape", place, shape=(count, *(1,) * len(rest)))
    new = call("scatter", flat, where, rows, axis=0, mode="add" if accumulate else "set")
    return call("reshape", new, shape=plain_shape(x.shape))


def _put_by_mask(x: Tensor, mask: Tensor, value: Tensor, accumulate: bool) -> Tensor:
    if plain(value.numel()) != 1:
        raise UnsupportedError(
            f"index_put: a mask that is known only when the program runs takes a single number, not values of shape "
            f"{shape_text(plain_shape(value.shape))}; use where(mask, values, x), or masked_scatter"
        )
    number = value.reshape(())
    wide = call("reshape", mask, shape=(*plain_shape(mask.shape), *(1,) * (x.ndim - mask.ndim)))
    return call("where", wide, x + number if accumulate else number, x)
