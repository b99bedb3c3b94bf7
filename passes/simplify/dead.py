"""Dead code."""

from __future__ import annotations

from engine.graph import Graph, Node, Value

EFFECTS = frozenset({"check"})
"""Kinds of ops that do something when nobody reads their result."""


def remove_dead(graph: Graph) -> Graph:
    """``graph`` without the nodes that neither a result nor an effect needs."""
    live: set[Value] = set(graph.results)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if node.op.kind in EFFECTS or any(v in live for v in node.outputs):
            live.update(node.inputs)
            kept.append(node)
    return graph if len(kept) == len(graph.nodes) else graph.with_(nodes=tuple(reversed(kept)))
