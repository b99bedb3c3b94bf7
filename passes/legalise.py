"""Give contractions operands of the dtype they compute in, by explicit casts that fusion then absorbs."""

from __future__ import annotations

from engine.graph import Graph, Node, Rewriter, Value, apply

_KINDS = frozenset({"contraction", "conv2d", "conv2d_weight_grad"})


def legalise(graph: Graph) -> Graph:
    """Every contraction and convolution reads and writes one dtype, and none computes in 16 bits."""
    rewriter = Rewriter(graph)

    def emit(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if node.op.kind not in _KINDS:
            return None
        wanted = node.output.dtype.computed
        if all(v.dtype == wanted for v in inputs):
            return None
        wide = tuple(v if v.dtype == wanted else apply("cast", v, dtype=wanted) for v in inputs)
        found = rewriter.builder.add(node.op, wide, node.attrs)[0]
        return (found if found.dtype == node.output.dtype else apply("cast", found, dtype=node.output.dtype),)

    return rewriter.run(emit)
