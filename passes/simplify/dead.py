"""Dead code."""

from __future__ import annotations

from engine.graph import Graph, Node, Value
from passes.loops import inputs_needed, prune_loops

EFFECTS = frozenset({"check"})
"""Kinds of ops that do something when nobody reads their result."""


def remove_dead(graph: Graph) -> Graph:
    """``graph`` without the nodes that neither a result nor an effect needs, and without what loops do in vain."""
    live, kept = _needed(graph)
    lighter = prune_loops(graph, live)
    if lighter is not graph:
        graph = lighter
        _, kept = _needed(graph)
    return graph if len(kept) == len(graph.nodes) else graph.with_(nodes=tuple(kept))


def _needed(graph: Graph) -> tuple[set[Value], list[Node]]:
    """The values that are needed, and the nodes, in order."""
    live: set[Value] = set(graph.results)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if node.op.kind in EFFECTS or any(v in live for v in node.outputs):
            live.update(inputs_needed(node, live))
            kept.append(node)
    return live, kept[::-1]
