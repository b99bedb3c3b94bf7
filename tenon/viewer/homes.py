"""Which module a node belongs to that was traced outside of all: the update of a weight belongs where the weight is."""

from __future__ import annotations

from collections.abc import Iterable

from engine.graph import Graph, Node


def homes(graph: Graph) -> dict[str, str]:
    """The module of each node of ``graph`` that was traced outside of modules, and serves the new value of one module's
    state alone, by the node's name."""
    paths = {_path(n) for n in graph.nodes} - {""}
    found: dict[str, str] = {}
    for state, value in graph.updates.items():
        home = _owner(state, paths)
        if home and not _path(value.node):
            found[value.node.name] = home
    users = graph.users()
    for node in reversed(graph.nodes):
        if _path(node) or node.name in found or node.is_literal:
            continue
        around = {found.get(u.name) for v in node.outputs for u in users[v]}
        home = around.pop() if len(around) == 1 else None
        if home:
            found[node.name] = home
    return found


def _path(node: Node) -> str:
    return node.location.module if node.location is not None else ""


def _owner(state: str, paths: Iterable[str]) -> str | None:
    """The module that a state is named after: ``CNN.conv1`` for ``conv1.weight`` and ``adam.exp_avg.conv1.weight``;
    what is no module's is the model's own, if there is but one model."""
    prefix = f".{state.rpartition('.')[0]}"
    fitting = [p for p in paths if "." in p and prefix.endswith(f".{p.partition('.')[2]}")]
    models = {p.partition(".")[0] for p in paths}
    return max(
        fitting, key=lambda p: (len(p), p), default=models.pop() if len(models) == 1 and "." in prefix[1:] else None
    )
