"""Dead code."""

from __future__ import annotations

from engine.graph import Graph, Node, Value
from passes.loops import inputs_needed, prune_loops

EFFECTS = frozenset({"check"})
"""Kinds of ops that do something when nobody reads their result."""


def remove_dead(graph: Graph) -> Graph:
    """``graph`` without the nodes that neither a result nor an effect needs, and without what loops do in vain."""
    live: set[Value] = set(graph.results)
    kept: list[Node] = []
    looping = False
    for node in reversed(graph.nodes):
        if node.op.kind in EFFECTS or any(v in live for v in node.outputs):
            live.update(inputs_needed(node, live))
            kept.append(node)
            looping |= node.op.kind == "loop"
    if len(kept) != len(graph.nodes):
        graph = graph.with_(nodes=tuple(reversed(kept)))
    return prune_loops(graph, live) if looping else graph
