"""Reading where an index tensor says, and windows that slide along an axis."""

from __future__ import annotations

import numpy as np

from engine import dims, dtypes
from engine.dims import Shape, Size
from engine.errors import ShapeError
from engine.graph import Node, TensorType, Value, apply, constant
from engine.op import REQUIRED, Op, register
from engine.ops.views import spread
from engine.rules import full, need_equal, need_integer, size_value


def need_axis(op: str, x: TensorType, axis: int) -> None:
    """Raise ShapeError unless ``axis`` is one of the axes of ``x``."""
    if not 0 <= axis < x.rank:
        raise ShapeError(f"{op}: axis {axis} does not exist in {dims.shape_text(x.shape)}")


def _gather_rule(x: TensorType, index: TensorType, axis: int) -> TensorType:
    need_integer("gather", index)
    need_axis("gather", x, axis)
    if x.rank != index.rank:
        raise ShapeError(
            f"gather: {dims.shape_text(x.shape)} and an index of {dims.shape_text(index.shape)} differ in axes"
        )
    sizes = [
        b if i == axis else dims.broadcast((a,), (b,))[0]
        for i, (a, b) in enumerate(zip(x.shape, index.shape, strict=True))
    ]
    return TensorType(tuple(sizes), x.dtype)


def _gather_gradient(node: Node, g: Value) -> tuple[Value, None]:
    x, index = node.inputs
    return apply("scatter", full(x.shape, 0, g.dtype), index, g, axis=node.attrs["axis"], mode="add"), None


register(
    Op(
        "gather",
        "gather",
        ("x", "index"),
        _gather_rule,
        lambda x, index, axis: np.take_along_axis(x, index.astype(np.int64), axis),
        _gather_gradient,
        attrs={"axis": REQUIRED},
        doc="``x[..., index[s], ...]`` at every point ``s``: along ``axis`` the index says where, the other axes "
        "broadcast. The index is known to lie in ``0 .. n-1``.",
    )
)


# --- windows -------------------------------------------------------------------------------------------------------


def _window_rule(x: TensorType, axis: int, size: int, step: int, dilation: int) -> TensorType:
    need_axis("window", x, axis)
    if size < 1 or step < 1 or dilation < 1:
        raise ShapeError(f"window: size, step and dilation must be at least 1, not {size}, {step} and {dilation}")
    extent = dilation * (size - 1) + 1
    room = x.shape[axis] - extent
    dims.assume(room, ">= 0", f"a window over {extent} elements does not fit an axis of {x.shape[axis]}")
    return TensorType((*x.shape[:axis], room // step + 1, *x.shape[axis + 1 :], size), x.dtype)


def _window(x: np.ndarray, axis: int, size: int, step: int, dilation: int) -> np.ndarray:
    extent = dilation * (size - 1) + 1
    every = np.lib.stride_tricks.sliding_window_view(x, extent, axis)
    along = [slice(None)] * every.ndim
    along[axis], along[-1] = slice(None, None, step), slice(None, None, dilation)
    return every[tuple(along)]


def _window_gradient(node: Node, g: Value) -> tuple[Value]:
    axis = node.attrs["axis"]
    return (apply("overlap_add", g, length=node.inputs[0].shape[axis], **node.attrs),)


_WINDOW = {"axis": REQUIRED, "size": REQUIRED, "step": 1, "dilation": 1}

register(
    Op(
        "window",
        "view",
        ("x",),
        _window_rule,
        _window,
        _window_gradient,
        attrs=_WINDOW,
        doc="``out[..., i, ..., k] = x[..., i*step + k*dilation, ...]``: ``axis`` counts windows, and a new last axis "
        "the elements of each.",
    )
)


def _overlap_rule(g: TensorType, axis: int, size: int, step: int, dilation: int, length: Size) -> TensorType:
    need_axis("overlap_add", g, axis)
    need_equal(g.shape[-1], size, f"overlap_add: windows of {g.shape[-1]} elements instead of {size}")
    dims.assume(g.shape[axis] - 1, ">= 0", "overlap_add: there must be at least one window")
    room = length - spread(g.shape[axis], step) - dilation * (size - 1)
    dims.assume(room, ">= 0", f"overlap_add: {g.shape[axis]} windows do not fit an axis of {length}")
    return TensorType((*g.shape[:axis], length, *g.shape[axis + 1 : -1]), g.dtype)


def _overlap(g: np.ndarray, axis: int, size: int, step: int, dilation: int, length: int) -> np.ndarray:
    windows = np.moveaxis(g, axis, 0)
    out = np.zeros((length, *windows.shape[1:-1]), g.dtype)
    for k in range(size):
        start = k * dilation
        out[start : start + spread(len(windows), step) : step] += windows[..., k]
    return np.moveaxis(out, 0, axis)


def _overlap_parts(g: Value, axis: int, size: int, step: int, dilation: int, length: Size) -> Value:
    """A sum over the places in a window at which an element may stand: it is in window ``(j - k*dilation) / step``
    where that is a whole number and there is such a window."""
    count = g.shape[axis]
    if step >= dilation * (size - 1) + 1:
        return _side_by_side(g, axis, step, dilation, length)
    rank = len(g.shape)
    shape = tuple(length if i == axis else size if i == rank - 1 else 1 for i in range(rank))
    places = [apply("iota", shape=shape, axis=i) for i in (axis, rank - 1)]
    offset = places[0] - places[1] * dilation
    number = apply("floordiv", offset, step)
    inside = apply("bitand", apply("ge", offset, 0), apply("lt", number, size_value(count, dtypes.i64)))
    if step > 1:
        inside = apply("bitand", inside, apply("eq", number * step, offset))
    found = apply("gather", g, apply("where", inside, number, constant(0, dtypes.i64)), axis=axis)
    return apply("sum", apply("where", inside, found, constant(0, g.dtype)), axes=(rank - 1,))


def _side_by_side(g: Value, axis: int, step: int, dilation: int, length: Size) -> Value:
    """Windows that do not touch each other: zeros fill the gaps between their elements, and between them."""
    rank, count, size = len(g.shape), g.shape[axis], g.shape[-1]
    extent = dilation * (size - 1) + 1
    none = (0,) * rank
    apart = (*(1,) * (rank - 1), dilation)
    wide = apply("pad", g, low=none, high=(*none[:-1], step - extent), step=apart)
    order = (*range(axis + 1), rank - 1, *range(axis + 1, rank - 1))
    rows = apply("permute", wide, axes=order)
    joined: Shape = (*g.shape[:axis], count * step, *g.shape[axis + 1 : -1])
    flat = apply("reshape", rows, shape=joined)
    used = spread(count, step) + extent - 1  # without the gap after the last window
    start = (0,) * (rank - 1)
    stop = tuple(used if i == axis else n for i, n in enumerate(joined))
    part = apply("slice", flat, start=start, stop=stop, step=(1,) * (rank - 1))
    high = tuple(length - used if i == axis else 0 for i in range(rank - 1))
    return apply("pad", part, low=start, high=high, step=(1,) * (rank - 1))


def _overlap_gradient(node: Node, g: Value) -> tuple[Value]:
    axis, size, step, dilation = (node.attrs[k] for k in _WINDOW)
    used = spread(node.inputs[0].shape[axis], step) + dilation * (size - 1)
    rank = len(g.shape)
    stop = tuple(used if i == axis else n for i, n in enumerate(g.shape))
    covered = apply("slice", g, start=(0,) * rank, stop=stop, step=(1,) * rank)
    return (apply("window", covered, axis=axis, size=size, step=step, dilation=dilation),)


register(
    Op(
        "overlap_add",
        "composite",
        ("g",),
        _overlap_rule,
        _overlap,
        _overlap_gradient,
        _overlap_parts,
        attrs={**_WINDOW, "length": REQUIRED},
        doc="Windows put back where they lie in an axis of ``length`` elements, and added where they overlap.",
    )
)
