"""Reductions over axes, given as a tuple of non-negative ints."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine import dims, dtypes
from engine.dtypes import DType
from engine.errors import DTypeError, ShapeError
from engine.graph import Node, TensorType, Value, apply
from engine.op import REQUIRED, Op, register
from engine.rules import keep_axes, size_value, widened

Axes = tuple[int, ...]


def _reduced_type(op: str, x: TensorType, axes: Axes, keepdims: bool, dtype: DType) -> TensorType:
    if len(set(axes)) != len(axes) or not all(0 <= a < x.rank for a in axes):
        raise ShapeError(f"{op}: axes {axes} do not name different axes of {dims.shape_text(x.shape)}")
    shape = tuple(1 if i in axes else s for i, s in enumerate(x.shape) if keepdims or i not in axes)
    return TensorType(shape, dtype)


def _restored(node: Node, value: Value) -> Value:
    """A reduced value with its axes back at size 1, so that it broadcasts against the input."""
    return value if node.attrs["keepdims"] else keep_axes(value, node.attrs["axes"])


def _accumulator(dtype: DType) -> DType:
    return dtypes.i64 if dtype.kind in "iub" else dtype


def _sum_gradient(node: Node, g: Value) -> tuple[Value]:
    return (apply("broadcast_to", _restored(node, g), shape=node.inputs[0].shape),)


def _extremum_gradient(node: Node, g: Value) -> tuple[Value]:
    x = node.inputs[0]
    found = apply("eq", x, _restored(node, node.output))
    share = apply("sum", apply("cast", found, dtype=g.dtype), axes=node.attrs["axes"], keepdims=True)
    return (apply("where", found, _restored(node, g) / share, 0.0),)


def _prod_gradient(node: Node, g: Value) -> tuple[Value]:
    """The product of the others; where elements are zero, without dividing by them. The sum of two zeros less one of
    them is the other: nothing here, and what a gradient of this gradient needs."""
    x, axes = node.inputs[0], node.attrs["axes"]
    zero = apply("eq", x, 0.0)
    nonzero = apply("where", zero, 1.0, x)
    product = apply("prod", nonzero, axes=axes, keepdims=True)
    zeros = apply("sum", apply("cast", zero, dtype=x.dtype), axes=axes, keepdims=True)
    other_zero = apply("sum", apply("where", zero, x, 0.0), axes=axes, keepdims=True) - x
    other_zeros = apply("where", apply("eq", zeros, 1.0), 1.0, apply("where", apply("eq", zeros, 2.0), other_zero, 0.0))
    others = apply("where", zero, product * other_zeros, _restored(node, node.output) / nonzero)
    return (_restored(node, g) * others,)


def _nonempty(op: str, x: TensorType, axes: Axes) -> None:
    for a in axes:
        if x.shape[a] == 0:
            raise ShapeError(f"{op}: axis {a} of {dims.shape_text(x.shape)} is empty, and an empty {op} has no value")


def _reduction(name: str, reference: Any, gradient: Any, doc: str, widen: bool) -> None:
    def rule(x: TensorType, axes: Axes, keepdims: bool) -> TensorType:
        if name in ("max", "min"):
            _nonempty(name, x, axes)
        return _reduced_type(name, x, axes, keepdims, _accumulator(x.dtype) if widen else x.dtype)

    def run(x: np.ndarray, axes: Axes, keepdims: bool) -> np.ndarray:
        return reference(widened(x), axis=axes, keepdims=keepdims)

    register(Op(name, "reduce", ("x",), rule, run, gradient, attrs={"axes": REQUIRED, "keepdims": False}, doc=doc))


_reduction("sum", np.sum, _sum_gradient, "The sum; integers and bools in i64.", widen=True)
_reduction("prod", np.prod, _prod_gradient, "The product; integers and bools in i64.", widen=True)
_reduction("max", np.max, _extremum_gradient, "The greatest; NaN wins. Ties share the gradient.", widen=False)
_reduction("min", np.min, _extremum_gradient, "The least; NaN wins. Ties share the gradient.", widen=False)


def _count(x: Value, axes: Axes) -> Value:
    dtype = x.dtype if x.dtype.is_float else dtypes.f64
    return size_value(dims.product(x.shape[a] for a in axes), dtype)


def _mean_rule(x: TensorType, axes: Axes, keepdims: bool) -> TensorType:
    return _reduced_type("mean", x, axes, keepdims, x.dtype if x.dtype.is_float else dtypes.f64)


def _mean(x: Value, axes: Axes, keepdims: bool) -> Value:
    wide = x if x.dtype.is_float else apply("cast", x, dtype=dtypes.f64)
    return apply("sum", wide, axes=axes, keepdims=keepdims) / _count(x, axes)


def _mean_reference(x: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> np.ndarray:
    wide = widened(x)
    if wide.dtype.kind != "f":
        wide = wide.astype(np.float64)
    # np.mean would warn of the mean over nothing.
    return np.sum(wide, axis=axes, keepdims=keepdims) / np.prod([x.shape[a] for a in axes], dtype=wide.dtype)


def _mean_gradient(node: Node, g: Value) -> tuple[Value]:
    x = node.inputs[0]
    return (apply("broadcast_to", _restored(node, g) / _count(x, node.attrs["axes"]), shape=x.shape),)


register(
    Op(
        "mean",
        "composite",
        ("x",),
        _mean_rule,
        _mean_reference,
        _mean_gradient,
        _mean,
        attrs={"axes": REQUIRED, "keepdims": False},
        doc="The arithmetic mean, in floating point; NaN over nothing.",
    )
)


def _truth(name: str, reference: Any, through: str, doc: str) -> None:
    def decompose(x: Value, axes: Axes, keepdims: bool) -> Value:
        flags = apply("cast", apply("cast", x, dtype=dtypes.bool_), dtype=dtypes.u8)
        return apply("ne", apply(through, flags, axes=axes, keepdims=keepdims), 0)

    register(
        Op(
            name,
            "composite",
            ("x",),
            lambda x, axes, keepdims: _reduced_type(name, x, axes, keepdims, dtypes.bool_),
            lambda x, axes, keepdims: reference(x, axis=axes, keepdims=keepdims),
            decompose=decompose,
            attrs={"axes": REQUIRED, "keepdims": False},
            doc=doc,
        )
    )


_truth("any", np.any, "max", "Whether any element is not zero.")
_truth("all", np.all, "min", "Whether no element is zero.")


def _position(name: str, reference: Any, doc: str) -> None:
    def rule(x: TensorType, axis: int, keepdims: bool) -> TensorType:
        if x.dtype == dtypes.bool_:
            raise DTypeError(f"{name} takes numbers, not bool")
        found = _reduced_type(name, x, (axis,), keepdims, dtypes.i64)
        _nonempty(name, x, (axis,))
        return found

    register(
        Op(
            name,
            "reduce",
            ("x",),
            rule,
            lambda x, axis, keepdims: reference(x, axis=axis, keepdims=keepdims),
            attrs={"axis": REQUIRED, "keepdims": False},
            doc=doc,
        )
    )


_position("argmax", np.argmax, "The first position of the greatest along an axis; the first NaN wins.")
_position("argmin", np.argmin, "The first position of the least along an axis; the first NaN wins.")
