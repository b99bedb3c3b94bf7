"""Softmax and its relatives along one axis, shifted by the maximum so that nothing overflows."""

from __future__ import annotations

import numpy as np

from engine import dims
from engine.errors import ShapeError
from engine.graph import Node, TensorType, Value, apply
from engine.op import REQUIRED, Op, register
from engine.rules import keep_axes, need_float, widened


def _rule(op: str, x: TensorType, axis: int) -> TensorType:
    need_float(op, x)
    if not 0 <= axis < x.rank:
        raise ShapeError(f"{op}: axis {axis} does not exist in {dims.shape_text(x.shape)}")
    return x


def _softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(widened(x) - np.max(widened(x), axis=axis, keepdims=True, initial=-np.inf))
    return e / e.sum(axis=axis, keepdims=True)


def _log_softmax(x: np.ndarray, axis: int) -> np.ndarray:
    shifted = widened(x) - np.max(widened(x), axis=axis, keepdims=True, initial=-np.inf)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def _logsumexp(x: np.ndarray, axis: int, keepdims: bool) -> np.ndarray:
    top = np.max(widened(x), axis=axis, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0).astype(top.dtype)
    found = np.log(np.exp(widened(x) - top).sum(axis=axis, keepdims=True)) + top
    return found if keepdims else found.squeeze(axis)


def _shifted(x: Value, axis: int) -> Value:
    return x - apply("max", x, axes=(axis,), keepdims=True)


def _softmax_parts(x: Value, axis: int) -> Value:
    e = apply("exp", _shifted(x, axis))
    # The sum is one at least, for the largest x is shifted to 0: its reciprocal is safe, and products are faster.
    return e * apply("reciprocal", apply("sum", e, axes=(axis,), keepdims=True))


def _log_softmax_parts(x: Value, axis: int) -> Value:
    shifted = _shifted(x, axis)
    return shifted - apply("log", apply("sum", apply("exp", shifted), axes=(axis,), keepdims=True))


def _logsumexp_parts(x: Value, axis: int, keepdims: bool) -> Value:
    top = apply("max", x, axes=(axis,), keepdims=True)
    top = apply("where", apply("isfinite", top), top, 0.0)
    found = apply("log", apply("sum", apply("exp", x - top), axes=(axis,), keepdims=True)) + top
    if keepdims:
        return found
    return apply("reshape", found, shape=tuple(s for i, s in enumerate(x.shape) if i != axis))


def _softmax_gradient(node: Node, g: Value) -> tuple[Value]:
    out = node.output
    return (out * (g - apply("sum", g * out, axes=(node.attrs["axis"],), keepdims=True)),)


def _log_softmax_gradient(node: Node, g: Value) -> tuple[Value]:
    total = apply("sum", g, axes=(node.attrs["axis"],), keepdims=True)
    return (g - apply("exp", node.output) * total,)


def _logsumexp_gradient(node: Node, g: Value) -> tuple[Value]:
    axis = node.attrs["axis"]
    spread = g if node.attrs["keepdims"] else keep_axes(g, (axis,))
    return (spread * apply("softmax", node.inputs[0], axis=axis),)


register(
    Op(
        "softmax",
        "composite",
        ("x",),
        lambda x, axis: _rule("softmax", x, axis),
        _softmax,
        _softmax_gradient,
        _softmax_parts,
        attrs={"axis": REQUIRED},
        doc="exp(x) / sum of exp(x) along an axis.",
    )
)
register(
    Op(
        "log_softmax",
        "composite",
        ("x",),
        lambda x, axis: _rule("log_softmax", x, axis),
        _log_softmax,
        _log_softmax_gradient,
        _log_softmax_parts,
        attrs={"axis": REQUIRED},
        doc="x - log of the sum of exp(x) along an axis.",
    )
)


def _logsumexp_rule(x: TensorType, axis: int, keepdims: bool) -> TensorType:
    _rule("logsumexp", x, axis)
    shape = tuple(1 if i == axis else s for i, s in enumerate(x.shape) if keepdims or i != axis)
    return TensorType(shape, x.dtype)


register(
    Op(
        "logsumexp",
        "composite",
        ("x",),
        _logsumexp_rule,
        _logsumexp,
        _logsumexp_gradient,
        _logsumexp_parts,
        attrs={"axis": REQUIRED, "keepdims": False},
        doc="The logarithm of the sum of exp(x) along an axis.",
    )
)
