"""Which module a node belongs to that was traced outside of all: the update of a weight belongs where the weight is."""

from __future__ import annotations

from collections.abc import Mapping

from engine.graph import Graph, Node


def homes(graph: Graph) -> dict[str, str]:
    """The module of each node of ``graph`` that was traced outside of modules, and serves the new value of one module's
    state alone, by the node's name."""
    users = graph.users()
    readers = {v.node.attrs["name"]: next(filter(None, map(_path, users[v])), "") for v in graph.state}
    parameters = {state: path for state, path in readers.items() if path}
    found: dict[str, str] = {}
    for state, value in graph.updates.items():
        home = _owner(state, parameters)
        if home and not _path(value.node):
            found[value.node.name] = home
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


def _owner(state: str, parameters: Mapping[str, str]) -> str | None:
    """The module that reads a state, or the parameter that it is kept for: ``conv1.weight`` for
    ``adam.exp_avg.conv1.weight``."""
    kept_for = [p for p in parameters if state == p or state.endswith(f".{p}")]
    return parameters[max(kept_for, key=len)] if kept_for else None
