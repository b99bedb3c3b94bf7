"""Monotone functions after max pooling instead of before it: they meet a quarter of the elements, or fewer."""

from __future__ import annotations

from collections.abc import Callable

from engine.graph import Node, Value, apply
from passes.simplify.patterns import Rule, Var, op

MONOTONE = ("relu", "sigmoid", "tanh", "exp", "expm1", "erf", "floor", "ceil", "round", "trunc")
"""Functions that never decrease and give NaN for NaN alone, so that ``max(f(x))`` is ``f(max(x))``."""


def _pool_first(x: Value, inner: Value, root: Node, uses: Callable[[Value], int]) -> tuple[Value, ...] | None:
    """Only where nobody reads the positions: where values tie after ``f`` they may name another element. A gradient
    taken later reads the new ones, and gets the same: where ``f`` is flat, nothing flows back through it.
    Every window must meet the input, which only dilation can prevent: the maximum of none stays -inf."""
    _, position = root.outputs
    if uses(inner) > 1 or uses(position) > 0 or root.attrs["dilation"] != (1, 1):
        return None
    pooled, position = apply("max_pool2d", x, **root.attrs)
    return apply(inner.node.op.name, pooled, **inner.node.attrs), position


RULES = (
    Rule("max pool before a monotone function", op("max_pool2d", op(MONOTONE, Var("x"), name="inner")), _pool_first),
)
