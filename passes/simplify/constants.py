"""Constant folding, and broadcasts that elementwise ops make unnecessary."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from engine import dims
from engine.graph import Node, Value, apply, constant
from passes.simplify.patterns import Rule, any_of_kind, number_of

FOLDED_ELEMENTS = 256
"""The largest results that are computed while compiling; more would bloat the program."""


def _folded(root: Node, opaque: AbstractSet[Value]) -> tuple[Value, ...] | None:
    if not all(v.node.op.name == "constant" and v not in opaque for v in root.inputs):
        return None
    if root.op.reference is None or root.op.name == "broadcast_to":
        return None  # a broadcast constant is cheapest as it is
    sizes = [dims.product(v.shape) for v in root.outputs]
    if not all(isinstance(s, int) and s <= FOLDED_ELEMENTS for s in sizes):
        return None
    types = tuple(v.type for v in root.outputs)
    arrays = root.op.evaluate([v.node.attrs["value"] for v in root.inputs], types, root.attrs)
    return tuple(constant(a, t.dtype) for a, t in zip(arrays, types, strict=True))


def _narrow(value: Value, opaque: AbstractSet[Value]) -> Value:
    """What ``value`` is a broadcast of, down to a single number."""
    if not value.shape:
        return value
    number = number_of(value, opaque)
    if number is not None:
        return constant(number, value.dtype)
    if value.node.op.name == "broadcast_to" and value not in opaque:
        return value.node.inputs[0]
    return value


def _broadcast_late(root: Node, opaque: AbstractSet[Value]) -> Value | None:
    """Elementwise ops broadcast by themselves; where all inputs are broadcast, their result is instead of them."""
    narrow = tuple(_narrow(v, opaque) for v in root.inputs)
    if narrow == root.inputs:
        return None
    result = apply(root.op.name, *narrow, **root.attrs)
    if result.shape != root.output.shape:
        result = apply("broadcast_to", result, shape=root.output.shape)
    return result


RULES = (
    Rule(
        "constant folding",
        any_of_kind("elementwise", "view", "move", "reduce", "contraction", "composite", "gather"),
        _folded,
    ),
    Rule("broadcast into elementwise", any_of_kind("elementwise"), _broadcast_late),
)
