"""Sorting, and recurrences along an axis."""

from __future__ import annotations

from functools import partial

import numpy as np

from engine import dims, dtypes
from engine.errors import DTypeError
from engine.graph import Node, TensorType, Value, apply
from engine.op import REQUIRED, Op, register
from engine.ops.indexing import need_axis
from engine.rules import full, need_equal, sum_to, widened


def _sort_rule(x: TensorType, axis: int, descending: bool) -> tuple[TensorType, TensorType]:
    need_axis("sort", x, axis)
    return x, TensorType(x.shape, dtypes.i64)


def _sort(x: np.ndarray, axis: int, descending: bool) -> tuple[np.ndarray, np.ndarray]:
    keys = widened(x) if x.dtype.kind not in "biu" else x
    if descending:
        # From behind, so that equal elements keep their order once the result is turned round.
        order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(keys, axis), axis, kind="stable"), axis)
    else:
        order = np.argsort(keys, axis, kind="stable")
    return np.take_along_axis(x, order, axis), order


def _picked_gradient(node: Node, g: Value | None, _: Value | None) -> tuple[Value | None]:
    if g is None or not node.inputs[0].dtype.is_float:
        return (None,)
    zeros = full(node.inputs[0].shape, 0, g.dtype)
    return (apply("scatter", zeros, node.outputs[1], g, axis=node.attrs["axis"], mode="add"),)


register(
    Op(
        "sort",
        "sort",
        ("x",),
        _sort_rule,
        _sort,
        _picked_gradient,
        attrs={"axis": REQUIRED, "descending": False},
        doc="The elements in order along an axis, and where each came from (i64). Equal elements keep their order; NaN "
        "counts as the greatest.",
    )
)


def _scan_rule(a: TensorType, b: TensorType, axis: int, reverse: bool) -> TensorType:
    need_axis("linear_scan", b, axis)
    if dtypes.bool_ in (a.dtype, b.dtype) or a.dtype != b.dtype:
        raise DTypeError(f"linear_scan takes two tensors of numbers of one dtype, not {a.dtype} and {b.dtype}")
    for i, (m, n) in enumerate(zip(dims.broadcast(a.shape, b.shape), b.shape, strict=True)):
        need_equal(
            m, n, f"linear_scan: {dims.shape_text(a.shape)} does not broadcast to {dims.shape_text(b.shape)} ({i})"
        )
    return b


def _scan(a: np.ndarray, b: np.ndarray, axis: int, reverse: bool) -> np.ndarray:
    factors, terms = (np.moveaxis(widened(np.broadcast_to(x, b.shape)), axis, 0) for x in (a, b))
    out = np.empty(terms.shape, terms.dtype)
    order = range(len(terms))[::-1] if reverse else range(len(terms))
    before = None
    for i in order:
        out[i] = terms[i] if before is None else factors[i] * before + terms[i]
        before = out[i]
    return np.moveaxis(out, 0, axis)


def shifted(x: Value, axis: int, forward: bool) -> Value:
    """``x`` moved on by one element along an axis, or back; a zero comes in."""
    rank, size = len(x.shape), x.shape[axis]
    if isinstance(size, int) and size == 0:
        return x
    one = tuple(int(i == axis) for i in range(rank))
    none = (0,) * rank
    start = none if forward else one
    stop = tuple(n - 1 if i == axis and forward else n for i, n in enumerate(x.shape))
    part = apply("slice", x, start=start, stop=stop, step=(1,) * rank)
    low, high = (one, none) if forward else (none, one)
    return apply("pad", part, low=low, high=high, step=(1,) * rank)


def _scan_gradient(node: Node, g: Value) -> tuple[Value, Value]:
    a, b = node.inputs
    axis, reverse = node.attrs["axis"], node.attrs["reverse"]
    extra = len(b.shape) - len(a.shape)
    along = axis - extra
    varies = along >= 0 and a.shape[along] != 1
    back = shifted(a, along, forward=reverse) if varies else a
    db = apply("linear_scan", back, g, axis=axis, reverse=not reverse)
    before = shifted(node.output, axis, forward=not reverse)
    return sum_to(db * before, a.shape), db


register(
    Op(
        "linear_scan",
        "scan",
        ("a", "b"),
        _scan_rule,
        _scan,
        _scan_gradient,
        attrs={"axis": REQUIRED, "reverse": False},
        doc="The recurrence ``h[i] = a[i] * h[i-1] + b[i]`` along an axis, from ``h[0] = b[0]``; from the other end "
        "with ``reverse``. ``a`` broadcasts to ``b``.",
    )
)


def _running_rule(x: TensorType, axis: int) -> tuple[TensorType, TensorType]:
    need_axis("a running extremum", x, axis)
    return x, TensorType(x.shape, dtypes.i64)


def _running(greatest: bool, x: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    lines = np.moveaxis(x, axis, 0)
    position = np.zeros(lines.shape, np.int64)
    values = lines.copy()
    for i in range(1, len(lines)):
        best, comes = values[i - 1], lines[i]
        better = (comes >= best if greatest else comes <= best) | (comes != comes)
        values[i] = np.where(better, comes, best)
        position[i] = np.where(better, i, position[i - 1])
    return np.moveaxis(values, 0, axis), np.moveaxis(position, 0, axis)


for _name, _word in (("cummax", "greatest"), ("cummin", "least")):
    register(
        Op(
            _name,
            "scan",
            ("x",),
            _running_rule,
            partial(_running, _name == "cummax"),
            _picked_gradient,
            attrs={"axis": REQUIRED},
            doc=f"The {_word} element so far along an axis, and where it is (i64): the last of equal ones. NaN wins.",
        )
    )
