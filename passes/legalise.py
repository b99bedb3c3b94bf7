"""Give contractions operands of the dtype they compute in, by explicit casts that fusion then absorbs."""

from __future__ import annotations

from engine.graph import Graph, Node, Rewriter, Value, apply

_KINDS = frozenset({"contraction", "conv2d", "conv2d_weight_grad"})
_CLAIMED = frozenset({"attention", "attention_backward"})
"""Composites that are made of contractions, where they have not been decomposed."""


def legalise(graph: Graph) -> Graph:
    """Every contraction and convolution reads and writes one dtype, and none computes in 16 bits."""
    rewriter = Rewriter(graph)

    def emit(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if node.op.kind in _KINDS:
            wide = tuple(_cast(v, node.output) for v in inputs)
        elif node.op.name in _CLAIMED:
            wide = tuple(_cast(v, v) if v.dtype.is_float else v for v in inputs)
        else:
            return None
        if wide == inputs:
            return None
        found = rewriter.builder.add(node.op, wide, node.attrs)
        return tuple(
            new if new.dtype == old.dtype else apply("cast", new, dtype=old.dtype)
            for old, new in zip(node.outputs, found, strict=True)
        )

    return rewriter.run(emit)


def _cast(value: Value, like: Value) -> Value:
    """``value`` in the dtype that kernels compute with for that of ``like``."""
    wanted = like.dtype.computed
    return value if value.dtype == wanted else apply("cast", value, dtype=wanted)
