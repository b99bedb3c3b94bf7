"""Conditionals on a flat graph: values that matter on one side of a condition, and the choice between two.

Nothing in the graph says that a node belongs to a branch. What only one arm of a ``merge`` reads is needed where the
condition points at that arm, and engine/conditions.py finds these nodes. What flows out of a branch, through a
``switch``, is zero unless it ran: what a branch that did not run would have made of zeros may be NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine import dims, dtypes
from engine.errors import DTypeError, ShapeError
from engine.graph import Node, TensorType, Value, apply
from engine.op import REQUIRED, Op, register
from engine.rules import full, sum_to


def _need_condition(op: str, condition: TensorType) -> None:
    if condition.dtype != dtypes.bool_:
        raise DTypeError(f"{op} takes a bool condition, not {condition.dtype}")
    if condition.shape:
        raise ShapeError(f"{op} takes one condition, not shape {dims.shape_text(condition.shape)}")


def _merge_rule(condition: TensorType, x: TensorType, y: TensorType) -> TensorType:
    _need_condition("merge", condition)
    if x.dtype != y.dtype:
        raise DTypeError(f"merge takes two tensors of one dtype, not {x.dtype} and {y.dtype}")
    return TensorType(dims.broadcast(x.shape, y.shape), x.dtype)


def _merge_gradient(node: Node, g: Value) -> Sequence[Value | None]:
    condition, x, y = node.inputs
    zeros = full(g.shape, 0, g.dtype)
    chosen = apply("merge", condition, g, zeros), apply("merge", condition, zeros, g)
    return [None, *(sum_to(found, arm.shape) for found, arm in zip(chosen, (x, y), strict=True))]


def _switch_rule(condition: TensorType, x: TensorType, side: bool) -> TensorType:
    _need_condition("switch", condition)
    return x


def _switch_gradient(node: Node, g: Value) -> Sequence[Value | None]:
    condition, x = node.inputs
    zeros = full(x.shape, 0, g.dtype)
    arms = (g, zeros) if node.attrs["side"] else (zeros, g)
    return [None, apply("merge", condition, *arms)]


register(
    Op(
        "merge",
        "elementwise",
        ("condition", "x", "y"),
        _merge_rule,
        lambda condition, x, y: np.where(condition, x, y),
        _merge_gradient,
        expression="where(condition, x, y)",
        doc="x where the scalar condition holds, else y; what only the other one needs is not computed.",
    )
)
register(
    Op(
        "switch",
        "composite",
        ("condition", "x"),
        _switch_rule,
        lambda condition, x, side: x,
        _switch_gradient,
        lambda condition, x, side: x,
        attrs={"side": REQUIRED},
        doc="x, read in a branch that runs where the condition is ``side``: elsewhere no gradient flows into it.",
    )
)
