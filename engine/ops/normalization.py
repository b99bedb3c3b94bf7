"""What norms are made of: mean and variance, and taking them out.

Both could be sums and differences. As ops they have gradients that know what those cannot: deviations from a mean sum
to zero, and a scale that all elements of a sum share can be multiplied once, behind it. So the gradient of a norm is
two sums over what arrives, and one pass that uses them.
"""

from __future__ import annotations

import numpy as np

from engine import dims, dtypes
from engine.errors import ShapeError
from engine.graph import Node, TensorType, Value, apply
from engine.op import REQUIRED, Op, register
from engine.rules import need_equal, need_float, size_value, sum_to, widened

Axes = tuple[int, ...]


# --- mean and variance ------------------------------------------------------------------------------------------


def _moments_rule(x: TensorType, axes: Axes) -> tuple[TensorType, TensorType]:
    need_float("moments", x)
    if len(set(axes)) != len(axes) or not all(0 <= a < x.rank for a in axes):
        raise ShapeError(f"moments: axes {axes} do not name different axes of {dims.shape_text(x.shape)}")
    kept = TensorType(tuple(1 if i in axes else s for i, s in enumerate(x.shape)), x.dtype)
    return kept, kept


def _moments(x: np.ndarray, axes: Axes) -> tuple[np.ndarray, np.ndarray]:
    wide = widened(x)
    count = np.prod([x.shape[a] for a in axes], dtype=wide.dtype)
    mean = np.sum(wide, axis=axes, keepdims=True) / count
    return mean, np.sum(np.square(wide - mean), axis=axes, keepdims=True) / count


def _moments_parts(x: Value, axes: Axes) -> tuple[Value, Value]:
    mean = apply("mean", x, axes=axes, keepdims=True)
    return mean, apply("mean", apply("square", x - mean), axes=axes, keepdims=True)


def _moments_gradient(node: Node, of_mean: Value | None, of_variance: Value | None) -> tuple[Value]:
    """``(of_mean + 2 * of_variance * (x - mean)) / count``: what the variance owes to the mean sums to zero."""
    x, mean = node.inputs[0], node.outputs[0]
    count = size_value(dims.product(x.shape[a] for a in node.attrs["axes"]), x.dtype)
    parts = []
    if of_variance is not None:
        parts.append(of_variance * 2.0 / count * (x - mean))
    if of_mean is not None:
        parts.append(apply("broadcast_to", of_mean / count, shape=x.shape))
    return (parts[0] if len(parts) == 1 else parts[0] + parts[1],)


register(
    Op(
        "moments",
        "reduce",
        ("x",),
        _moments_rule,
        _moments,
        _moments_gradient,
        _moments_parts,
        attrs={"axes": REQUIRED},
        flops=lambda node: 4 * node.inputs[0].type.size,
        doc="Mean and biased variance over axes, which are kept with size 1. The mean is taken off before squaring, so "
        "nothing cancels.",
    )
)


# --- taking them out --------------------------------------------------------------------------------------------


def _standardise_rule(x: TensorType, mean: TensorType, scale: TensorType) -> TensorType:
    need_float("standardise", x, mean, scale)
    shapes = ", ".join(dims.shape_text(t.shape) for t in (x, mean, scale))
    wanted = f"standardise takes x, and a mean and a scale of one shape that broadcasts to x's, not {shapes}"
    if mean.rank != scale.rank or dims.broadcast(x.shape, mean.shape) != x.shape:
        raise ShapeError(wanted)
    for a, b in zip(mean.shape, scale.shape, strict=True):
        need_equal(a, b, wanted)
    return TensorType(x.shape, dtypes.promote(x.dtype, mean.dtype, scale.dtype))


def _standardise_gradient(node: Node, g: Value) -> tuple[Value, Value, Value]:
    x, mean, scale = node.inputs
    return g * scale, -(scale * sum_to(g, mean.shape)), sum_to(g * (x - mean), scale.shape)


register(
    Op(
        "standardise",
        "composite",
        ("x", "mean", "scale"),
        _standardise_rule,
        lambda x, mean, scale: (widened(x) - widened(mean)) * widened(scale),
        _standardise_gradient,
        lambda x, mean, scale: (x - mean) * scale,
        doc="(x - mean) * scale, where mean and scale are of one shape and broadcast to x.",
    )
)
