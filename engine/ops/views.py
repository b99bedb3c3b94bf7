"""Views: the same elements under another shape; and the ops that place or take parts of a tensor."""

from __future__ import annotations

import numpy as np

from engine import dims, dtypes
from engine.dims import Shape, Size
from engine.errors import ShapeError
from engine.graph import Node, TensorType, Value, apply
from engine.op import REQUIRED, Op, register
from engine.rules import need_equal, sum_to


def _reshape_rule(x: TensorType, shape: Shape) -> TensorType:
    old, new = dims.shape_text(x.shape), dims.shape_text(shape)
    reason = f"a tensor of shape {old} cannot be reshaped to {new}: the number of elements differs"
    need_equal(x.size, dims.product(shape), reason)
    return TensorType(shape, x.dtype)


register(
    Op(
        "reshape",
        "view",
        ("x",),
        _reshape_rule,
        lambda x, shape: x.reshape(shape),
        lambda node, g: (apply("reshape", g, shape=node.inputs[0].shape),),
        attrs={"shape": REQUIRED},
        doc="The elements in row-major order under another shape.",
    )
)


def _permute_rule(x: TensorType, axes: tuple[int, ...]) -> TensorType:
    if sorted(axes) != list(range(x.rank)):
        raise ShapeError(f"permute: {axes} is not an order of the {x.rank} axes of {dims.shape_text(x.shape)}")
    return TensorType(tuple(x.shape[a] for a in axes), x.dtype)


def _permute_gradient(node: Node, g: Value) -> tuple[Value]:
    axes = node.attrs["axes"]
    return (apply("permute", g, axes=tuple(axes.index(i) for i in range(len(axes)))),)


register(
    Op(
        "permute",
        "view",
        ("x",),
        _permute_rule,
        lambda x, axes: x.transpose(axes),
        _permute_gradient,
        attrs={"axes": REQUIRED},
        doc="Output axis ``i`` is input axis ``axes[i]``.",
    )
)


def _broadcast_rule(x: TensorType, shape: Shape) -> TensorType:
    if dims.broadcast(x.shape, shape) != shape:
        raise ShapeError(
            f"a tensor of shape {dims.shape_text(x.shape)} cannot be broadcast to {dims.shape_text(shape)}"
        )
    return TensorType(shape, x.dtype)


register(
    Op(
        "broadcast_to",
        "view",
        ("x",),
        _broadcast_rule,
        lambda x, shape: np.broadcast_to(x, shape),
        lambda node, g: (sum_to(g, node.inputs[0].shape),),
        attrs={"shape": REQUIRED},
        doc="``x`` repeated along new axes and axes of size 1, as NumPy broadcasts.",
    )
)


def slice_length(start: Size, stop: Size, step: int) -> Size:
    """The number of elements of ``start:stop:step``, ``stop`` being -1 where a negative step runs past the first."""
    return dims.ceil_div(stop - start, step) if step > 0 else dims.ceil_div(start - stop, -step)


def _slice_rule(x: TensorType, start: Shape, stop: Shape, step: tuple[int, ...]) -> TensorType:
    if not len(start) == len(stop) == len(step) == x.rank:
        raise ShapeError(f"slice: start, stop and step need one entry for each of the {x.rank} axes")
    sizes = []
    for size, a, b, s in zip(x.shape, start, stop, step, strict=True):
        low, high = (a, b) if s > 0 else (b + 1, a + 1)
        reason = f"slice: {a}:{b}:{s} does not lie in an axis of size {size}"
        if s == 0:
            raise ShapeError("slice: a step of 0")
        for bound in (low, high - low, size - high):
            dims.assume(bound, ">= 0", reason)
        sizes.append(slice_length(a, b, s))
    return TensorType(tuple(sizes), x.dtype)


def _slice(x: np.ndarray, start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...]) -> np.ndarray:
    return x[tuple(slice(a, None if b < 0 else b, s) for a, b, s in zip(start, stop, step, strict=True))]


def _slice_gradient(node: Node, g: Value) -> tuple[Value]:
    shape = node.inputs[0].shape
    start, stop, step = (node.attrs[k] for k in ("start", "stop", "step"))
    rank = range(len(shape))
    if any(s < 0 for s in step):
        g = apply(
            "slice",
            g,
            start=tuple(g.shape[i] - 1 if step[i] < 0 else 0 for i in rank),
            stop=tuple(-1 if step[i] < 0 else g.shape[i] for i in rank),
            step=tuple(-1 if step[i] < 0 else 1 for i in rank),
        )
    stride = tuple(abs(s) for s in step)
    last = [start[i] + (g.shape[i] - 1) * step[i] for i in rank]
    low = tuple(start[i] if step[i] > 0 else last[i] for i in rank)
    high = tuple(shape[i] - low[i] - spread(g.shape[i], stride[i]) for i in rank)
    return (apply("pad", g, low=low, high=high, step=stride),)


register(
    Op(
        "slice",
        "view",
        ("x",),
        _slice_rule,
        _slice,
        _slice_gradient,
        attrs={"start": REQUIRED, "stop": REQUIRED, "step": REQUIRED},
        doc="``x[start:stop:step]`` with one entry an axis; bounds count from the front, and lie inside the axis.",
    )
)


def spread(size: Size, step: int) -> Size:
    """The extent of ``size`` elements that lie ``step`` apart."""
    if step == 1:
        return size
    if size == 0:
        return 0
    dims.assume(size - 1, ">= 0", f"elements {step} apart: there must be at least one, not {size}")
    return (size - 1) * step + 1


def _pad_rule(x: TensorType, low: Shape, high: Shape, step: tuple[int, ...], value: float) -> TensorType:
    if not len(low) == len(high) == len(step) == x.rank:
        raise ShapeError(f"pad: low, high and step need one entry for each of the {x.rank} axes")
    for bound in (*low, *high):
        dims.assume(bound, ">= 0", f"pad: padding must not be negative, and {bound} may be")
    sizes = (a + spread(n, s) + b for n, a, b, s in zip(x.shape, low, high, step, strict=True))
    return TensorType(tuple(sizes), x.dtype)


def _pad(x: np.ndarray, low: tuple, high: tuple, step: tuple, value: float) -> np.ndarray:
    extents = [spread(n, s) for n, s in zip(x.shape, step, strict=True)]
    out = np.full([a + e + b for a, e, b in zip(low, extents, high, strict=True)], value, x.dtype)
    out[tuple(slice(a, a + e, s) for a, e, s in zip(low, extents, step, strict=True))] = x
    return out


def _pad_gradient(node: Node, g: Value) -> tuple[Value]:
    shape, low, step = node.inputs[0].shape, node.attrs["low"], node.attrs["step"]
    stop = tuple(a + spread(n, s) for n, a, s in zip(shape, low, step, strict=True))
    return (apply("slice", g, start=low, stop=stop, step=step),)


register(
    Op(
        "pad",
        "move",
        ("x",),
        _pad_rule,
        _pad,
        _pad_gradient,
        attrs={"low": REQUIRED, "high": REQUIRED, "step": REQUIRED, "value": 0},
        doc="``x`` with ``value`` around it, and ``step - 1`` of it between elements.",
    )
)


def _concat_rule(*types: TensorType, axis: int) -> TensorType:
    if not types:
        raise ShapeError("concat takes at least one tensor")
    first = types[0]
    total: Size = 0
    for t in types:
        same = t.rank == first.rank and 0 <= axis < t.rank
        if not same:
            raise ShapeError(
                f"concat: {dims.shape_text(t.shape)} and {dims.shape_text(first.shape)} do not join along axis {axis}"
            )
        for i, (a, b) in enumerate(zip(t.shape, first.shape, strict=True)):
            if i != axis:
                need_equal(a, b, f"concat: sizes {a} and {b} of axis {i} differ")
        total = total + t.shape[axis]
    shape = (*first.shape[:axis], total, *first.shape[axis + 1 :])
    return TensorType(shape, dtypes.promote(*(t.dtype for t in types)))


def _concat_gradient(node: Node, g: Value) -> list[Value]:
    axis, rank = node.attrs["axis"], len(g.shape)
    found, start = [], 0
    for x in node.inputs:
        stop = start + x.shape[axis]
        found.append(
            apply(
                "slice",
                g,
                start=tuple(start if i == axis else 0 for i in range(rank)),
                stop=tuple(stop if i == axis else g.shape[i] for i in range(rank)),
                step=(1,) * rank,
            )
        )
        start = stop
    return found


register(
    Op(
        "concat",
        "move",
        ("*xs",),
        _concat_rule,
        lambda *xs, axis: np.concatenate(xs, axis),
        _concat_gradient,
        attrs={"axis": REQUIRED},
        doc="Tensors joined along an axis.",
    )
)
