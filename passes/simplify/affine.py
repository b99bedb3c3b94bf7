"""Numbers of the state that one tensor is scaled and shifted by, one after the other: once is enough.

Such is batch norm in evaluation: its mean, deviation, weight and bias become one factor and one summand a channel, made
when the state changes. That rounds as folding them into the convolution before does, and reads half as much.
"""

from __future__ import annotations

from collections.abc import Callable

from engine import dims
from engine.graph import Node, Value, apply
from passes.simplify.patterns import Rule, Var, number_of, op

_MOST_NODES = 16
"""How far to look for what a number is made of."""


def _kept_in_state(value: Value, root: Node) -> bool:
    """Whether ``value`` is smaller than the result, and made of state and constants alone."""
    if number_of(value) is not None or dims.product(value.shape) == dims.product(root.output.shape):
        return False
    pending, seen = [value.node], {value.node}
    while pending:
        node = pending.pop()
        if node.op.kind not in ("source", "view", "elementwise") or node.op.name == "input" or len(seen) > _MOST_NODES:
            return False
        fresh = {v.node for v in node.inputs} - seen
        seen |= fresh
        pending += fresh
    return any(n.op.name == "state" for n in seen)


def _fits(x: Value, numbers: tuple[Value, ...], root: Node) -> bool:
    same = x.type == root.output.type and all(v.dtype == x.dtype for v in numbers)
    return same and x.dtype.is_float and all(_kept_in_state(v, root) for v in numbers)


def _scaled_once(x: Value, c: Value, d: Value, inner: Value, root: Node, uses: Callable[[Value], int]) -> Value | None:
    if uses(inner) > 1 or not _fits(x, (c, d), root):
        return None
    return apply("mul", x, apply("mul", c, d))


def _shifted_once(
    x: Value, m: Value, s: Value, b: Value, inner: Value, scaled: Value, root: Node, uses: Callable[[Value], int]
) -> Value | None:
    if max(uses(inner), uses(scaled)) > 1 or not _fits(x, (m, s, b), root):
        return None
    return apply("add", apply("mul", x, s), apply("sub", b, apply("mul", m, s)))


X, C, D, M, S, B = (Var(name) for name in "xcdmsb")

RULES = (
    Rule("x * c * d with numbers of the state", op("mul", op("mul", X, C, name="inner"), D), _scaled_once),
    Rule(
        "(x - m) * s + b with numbers of the state",
        op("add", op("mul", op("sub", X, M, name="inner"), S, name="scaled"), B),
        _shifted_once,
    ),
)
