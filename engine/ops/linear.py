"""Matrix products."""

from __future__ import annotations

import numpy as np

from engine import dims, dtypes
from engine.errors import DTypeError, ShapeError
from engine.graph import Node, TensorType, Value, apply
from engine.op import Op, register
from engine.rules import need_equal, sum_to, transposed


def _rule(a: TensorType, b: TensorType) -> TensorType:
    if a.rank < 2 or b.rank < 2:
        raise ShapeError(
            f"matmul takes tensors of at least 2 axes, not {dims.shape_text(a.shape)} and {dims.shape_text(b.shape)}"
        )
    if dtypes.bool_ in (a.dtype, b.dtype):
        raise DTypeError("matmul takes numbers, not bool")
    reason = (
        f"matmul: {dims.shape_text(a.shape)} and {dims.shape_text(b.shape)} do not fit: "
        f"the last axis of the first ({a.shape[-1]}) must equal the last but one of the second ({b.shape[-2]})"
    )
    need_equal(a.shape[-1], b.shape[-2], reason)
    batch = dims.broadcast(a.shape[:-2], b.shape[:-2]) if a.rank > 2 or b.rank > 2 else ()
    return TensorType((*batch, a.shape[-2], b.shape[-1]), dtypes.promote(a.dtype, b.dtype))


def _reference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    narrow = any(x.dtype.kind not in "iu" and x.dtype.itemsize == 2 for x in (a, b))
    return np.matmul(a.astype(np.float32), b.astype(np.float32)) if narrow else np.matmul(a, b)


def _gradient(node: Node, g: Value) -> tuple[Value, Value]:
    a, b = node.inputs
    if len(b.shape) == 2:  # one product over all rows, instead of one for each batch and their sum
        by_b = apply("matmul", transposed(_rows(a)), _rows(g))
    else:
        by_b = sum_to(apply("matmul", transposed(a), g), b.shape)
    return sum_to(apply("matmul", g, transposed(b)), a.shape), by_b


def _rows(x: Value) -> Value:
    """``x`` as a matrix of the rows along its last axis."""
    return x if len(x.shape) == 2 else apply("reshape", x, shape=(dims.product(x.shape[:-1]), x.shape[-1]))


register(
    Op(
        "matmul",
        "contraction",
        ("a", "b"),
        _rule,
        _reference,
        _gradient,
        flops=lambda node: 2 * node.output.type.size * node.inputs[0].shape[-1],
        doc="``out[..., m, n] = sum over k of a[..., m, k] * b[..., k, n]``; axes before the last two broadcast.",
    )
)
