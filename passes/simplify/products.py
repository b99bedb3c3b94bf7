"""Matrix products whose result is transposed: contractions read through any strides, so the operands are instead."""

from __future__ import annotations

from collections.abc import Callable

from engine.graph import Node, Value, apply
from engine.rules import transposed
from passes.simplify.patterns import Rule, Var, op


def _transposed_product(a: Value, b: Value, product: Value, root: Node, uses: Callable[[Value], int]) -> Value | None:
    """``(a b)^T = b^T a^T``: the same sums of the same products. A weight's gradient gets the weight's own order."""
    rank = len(product.shape)
    swaps_last = root.attrs["axes"] == (*range(rank - 2), rank - 1, rank - 2)
    if not swaps_last or uses(product) > 1:
        return None
    return apply("matmul", transposed(b), transposed(a))


RULES = (
    Rule(
        "transposed product",
        op("permute", op("matmul", Var("a"), Var("b"), name="product")),
        _transposed_product,
    ),
)
