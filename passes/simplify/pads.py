"""Sums of zero-padded tensors that fill different places are joined tensors: the gradients of what a tensor was taken
apart into, such as the queries, keys and values of one projection."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet

from engine.graph import Node, Value, apply
from passes.simplify.patterns import OpPattern, Rule, Var, op

Uses = Callable[[Value], int]


def _joined(p: Value, q: Value, root: Node, uses: Uses) -> Value | None:
    """``p + q``, each with zeros around it, where one begins along one axis where the other ends."""
    if uses(p) > 1 or uses(q) > 1 or not p.dtype == q.dtype == root.output.dtype:
        return None
    for first, second in ((p.node, q.node), (q.node, p.node)):
        axis = _meeting_axis(first, second)
        if axis is not None:
            parts = apply("concat", first.inputs[0], second.inputs[0], axis=axis)
            high = tuple(second.attrs["high"][i] if i == axis else n for i, n in enumerate(first.attrs["high"]))
            return apply("pad", parts, low=first.attrs["low"], high=high, step=first.attrs["step"])
    return None


def _meeting_axis(first: Node, second: Node) -> int | None:
    """The axis along which ``second`` goes on where ``first`` ends, their places along all others being the same."""
    a, b = first.attrs, second.attrs
    if a["value"] != 0 or b["value"] != 0 or any(step != 1 for step in (*a["step"], *b["step"])):
        return None
    differing = [i for i in range(len(a["low"])) if (a["low"][i], a["high"][i]) != (b["low"][i], b["high"][i])]
    if len(differing) != 1:
        return None
    axis = differing[0]
    return axis if a["low"][axis] + first.inputs[0].shape[axis] == b["low"][axis] else None


def _joined_in_sum(inner: Value, q: Value, root: Node, uses: Uses, opaque: AbstractSet[Value]) -> Value | None:
    """``(rest + p) + q`` as ``rest + (p + q)``: where one of the two is not zero, nothing is rounded otherwise."""
    if uses(inner) > 1 or inner in opaque or inner.dtype != root.output.dtype:
        return None
    for p, rest in (inner.node.inputs, inner.node.inputs[::-1]):
        if p.node.op.name == "pad" and p not in opaque:
            joined = _joined(p, q, root, uses)
            if joined is not None:
                return apply("add", rest, joined)
    return None


def _flat(root: Node, uses: Uses, opaque: AbstractSet[Value]) -> Value | None:
    """Tensors joined along the axis along which they are joined once more."""
    parts: list[Value] = []
    for x in root.inputs:
        inside = x.node.op.name == "concat" and x not in opaque and x.node.attrs == root.attrs
        parts += x.node.inputs if inside and uses(x) == 1 and x.dtype == root.output.dtype else [x]
    return apply("concat", *parts, axis=root.attrs["axis"]) if len(parts) > len(root.inputs) else None


_Q = op("pad", Var("y"), name="q")

RULES = (
    Rule("sum of pads", op("add", op("pad", Var("x"), name="p"), _Q), _joined),
    Rule("pads in a sum", op("add", OpPattern(frozenset({"add"}), name="inner"), _Q), _joined_in_sum),
    Rule("concat of concat", OpPattern(frozenset({"concat"})), _flat),
)
