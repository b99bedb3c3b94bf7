"""Which part of a training step a node belongs to: the forward pass, the gradients, or what is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.graph import Graph, Node

FORWARD, BACKWARD, UPDATE = range(3)


def phases(stages: Sequence[Graph]) -> dict[str, int]:
    """The phase of every node that is in any of the ``stages``, by name; empty where there are no gradients.

    A node belongs where it is first seen. Traced nodes: to FORWARD, save those that a gradient leads to, and what only
    they read: to UPDATE. What takes the place of the ``grad`` nodes: to BACKWARD. What a later pass makes: where its
    inputs belong, or, if it has none that do, the earliest of its users.
    """
    if not _has_gradients(stages[0]):
        return {}
    found = _traced(stages[0])
    expanded = False
    for graph in stages[1:]:
        expanding = not expanded and not _has_gradients(graph)
        expanded |= expanding
        fresh = [n for n in graph.nodes if n.name not in found]
        for node in fresh:
            known = [found[v.node.name] for v in node.inputs if v.node.name in found]
            if expanding:
                found[node.name] = BACKWARD
            elif known:
                found[node.name] = max(known)
        _from_users(graph, fresh, found)
    return found


def _has_gradients(graph: Graph) -> bool:
    return any(n.op.kind == "grad" for n in graph.nodes)


def _traced(graph: Graph) -> dict[str, int]:
    found: dict[str, int] = {}
    for node in graph.nodes:
        if node.op.kind == "grad":
            found[node.name] = BACKWARD
        elif any(found.get(v.node.name, FORWARD) != FORWARD for v in node.inputs):
            found[node.name] = UPDATE
    _from_users(graph, graph.nodes, found)
    return found


def _from_users(graph: Graph, nodes: Iterable[Node], found: dict[str, int]) -> None:
    """Settle those of ``nodes`` that are not by the earliest phase of what reads them; what makes a loss ready for its
    gradient is FORWARD, and so is what nothing reads."""
    users = graph.users()
    for node in reversed([n for n in nodes if n.name not in found]):
        readers = [u for v in node.outputs for u in users[v]]
        known = [FORWARD if u.op.kind == "grad" else found[u.name] for u in readers if u.name in found]
        found[node.name] = min(known, default=FORWARD)
