"""Losses."""

from __future__ import annotations

import numpy as np

from engine import dims, dtypes
from engine.dtypes import DType
from engine.errors import ShapeError, TenonError
from engine.graph import Node, TensorType, Value, apply
from engine.op import Op, register
from engine.rules import keep_axes, need_equal, need_float, need_integer, size_value, sum_to, widened

REDUCTIONS = ("mean", "sum", "none")


def check_reduction(reduction: str, op: str) -> None:
    """Raises TenonError for a reduction that no loss has."""
    if reduction not in REDUCTIONS:
        raise TenonError(f"{op}: reduction must be one of {', '.join(REDUCTIONS)}, not {reduction!r}")


def _reduced(each: TensorType, reduction: str, op: str) -> TensorType:
    check_reduction(reduction, op)
    return each if reduction == "none" else TensorType((), each.dtype)


def _reduce(each: Value, reduction: str) -> Value:
    return each if reduction == "none" else apply(reduction, each, axes=tuple(range(len(each.shape))))


def _reduce_array(each: np.ndarray, reduction: str) -> np.ndarray:
    if reduction == "none":
        return each
    total = np.sum(each, dtype=each.dtype)
    return total / each.size if reduction == "mean" else total  # np.mean would warn of the mean over nothing


def _scaled(g: Value, each: TensorType, reduction: str) -> Value:
    """The gradient that reaches each element's loss."""
    return g / size_value(each.size, g.dtype) if reduction == "mean" else g


# --- cross entropy: -log softmax(logits)[target], classes along axis 1 ------------------------------------------


def _entropy_rule(logits: TensorType, target: TensorType, reduction: str) -> TensorType:
    need_float("cross_entropy", logits)
    need_integer("cross_entropy's target", target)
    axis = class_axis(logits.rank)
    expected = (*logits.shape[:axis], *logits.shape[axis + 1 :])
    if logits.rank == 0 or len(expected) != target.rank:
        raise ShapeError(
            f"cross_entropy: logits of shape {dims.shape_text(logits.shape)} need class indices of shape "
            f"{dims.shape_text(expected)}, not {dims.shape_text(target.shape)}"
        )
    for a, b in zip(expected, target.shape, strict=True):
        need_equal(a, b, f"cross_entropy: logits have {a} examples where the target has {b}")
    return _reduced(TensorType(expected, logits.dtype), reduction, "cross_entropy")


def class_axis(rank: int) -> int:
    """The axis of the classes: the second, or the only one of a single example."""
    return 1 if rank > 1 else 0


def _entropy(logits: np.ndarray, target: np.ndarray, reduction: str) -> np.ndarray:
    axis = class_axis(logits.ndim)
    x = widened(logits)
    shifted = x - x.max(axis=axis, keepdims=True, initial=-np.inf)
    log_sum = np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    picked = np.take_along_axis(shifted, np.expand_dims(target, axis).astype(np.int64), axis)
    return _reduce_array((log_sum - picked).squeeze(axis), reduction)


def _one_hot(target: Value, logits: Value) -> Value:
    """Where the class index along the class axis is the target's."""
    axis = class_axis(len(logits.shape))
    spread = keep_axes(apply("cast", target, dtype=dtypes.i64), (axis,))
    return apply("eq", apply("iota", shape=logits.shape, axis=axis), spread)


def _entropy_parts(logits: Value, target: Value, reduction: str) -> Value:
    axis = class_axis(len(logits.shape))
    shifted = logits - apply("max", logits, axes=(axis,), keepdims=True)
    log_sum = apply("log", apply("sum", apply("exp", shifted), axes=(axis,), keepdims=True))
    picked = apply("sum", apply("where", _one_hot(target, logits), shifted, 0.0), axes=(axis,), keepdims=True)
    each = _reduce(log_sum - picked, reduction)
    return apply("reshape", each, shape=target.shape) if reduction == "none" else each


def _entropy_gradient(node: Node, g: Value) -> tuple[Value, None]:
    logits, target = node.inputs
    axis = class_axis(len(logits.shape))
    scaled = _scaled(g, target.type, node.attrs["reduction"])
    if node.attrs["reduction"] == "none":
        scaled = keep_axes(scaled, (axis,))
    one_hot = apply("cast", _one_hot(target, logits), dtype=logits.dtype)
    return (apply("softmax", logits, axis=axis) - one_hot) * scaled, None


register(
    Op(
        "cross_entropy",
        "composite",
        ("logits", "target"),
        _entropy_rule,
        _entropy,
        _entropy_gradient,
        _entropy_parts,
        attrs={"reduction": "mean"},
        doc="-log softmax(logits)[target], classes along axis 1 (axis 0 of a single example), target in class indices.",
    )
)


# --- mean squared error -----------------------------------------------------------------------------------------


def _pair_rule(op: str, x: TensorType, y: TensorType, reduction: str) -> TensorType:
    need_float(op, x, y)
    return _reduced(TensorType(dims.broadcast(x.shape, y.shape), _common(x, y)), reduction, op)


def _common(x: TensorType, y: TensorType) -> DType:
    return dtypes.promote(x.dtype, y.dtype)


def _mse_gradient(node: Node, g: Value) -> tuple[Value, Value]:
    x, y = node.inputs
    each = TensorType(dims.broadcast(x.shape, y.shape), g.dtype)
    d = 2.0 * _scaled(g, each, node.attrs["reduction"]) * (x - y)
    return sum_to(d, x.shape), sum_to(-d, y.shape)


register(
    Op(
        "mse_loss",
        "composite",
        ("x", "y"),
        lambda x, y, reduction: _pair_rule("mse_loss", x, y, reduction),
        lambda x, y, reduction: _reduce_array(np.square(x - y), reduction),
        _mse_gradient,
        lambda x, y, reduction: _reduce(apply("square", x - y), reduction),
        attrs={"reduction": "mean"},
        doc="The squared difference.",
    )
)
