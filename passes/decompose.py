"""Composite ops that the backend has no kernel for become the simpler ops that define them."""

from __future__ import annotations

from engine.errors import UnsupportedError, VerifyError
from engine.graph import Graph, Node, Rewriter, Value
from engine.schedule import Target

PRIMITIVE_KINDS = frozenset(
    {"elementwise", "reduce", "view", "contraction", "conv2d", "conv2d_weight_grad", "pool", "random", "index",
     "check", "move", "source", "gather", "sort", "scan", "custom", "recurrence", "loop"}
)  # fmt: skip
"""The kernel classes that every backend implements."""


def decompose(graph: Graph, target: Target) -> Graph:
    """``graph`` in ops that ``target`` claims and primitives. Raises UnsupportedError for an op that is neither."""

    def runs(node: Node) -> bool:
        return node.op.name in target.claims or node.op.kind in PRIMITIVE_KINDS

    def emit(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        return None if runs(node) else _parts(node, inputs, target)

    while not all(map(runs, graph.nodes)):  # a decomposition may hold other composites, never itself
        graph = Rewriter(graph).run(emit)
    return graph


def _parts(node: Node, inputs: tuple[Value, ...], target: Target) -> tuple[Value, ...]:
    if node.op.decompose is None:
        dtypes = ", ".join(str(v.dtype) for v in (node.inputs or node.outputs))
        raise UnsupportedError(
            f"the backend {target.name} has no kernel for {node.op.name} of {dtypes}, which has no decomposition",
            node.location,
        )
    found = node.op.decompose(*inputs, **node.attrs)
    outputs = found if isinstance(found, tuple) else (found,)
    for old, new in zip(node.outputs, outputs, strict=True):
        if (old.dtype, len(old.shape)) != (new.dtype, len(new.shape)):
            raise VerifyError(f"{node.op.name} of type {old.type} decomposes into {new.type}", node.location)
    return outputs
