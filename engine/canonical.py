"""A graph's identity: a hash of what it computes."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from engine.graph import Graph, Node, Value


def digest(graph: Graph) -> str:
    """SHA-256, in hexadecimal, of the graph without source lines and with its values numbered in order.

    Equal for graphs that differ in provenance and value names alone, or in how often a scalar constant is repeated;
    the names of the program, its inputs, state and kernels count, and so does every constant's content. Types of
    inner values follow from the ops and are left out, save those of users' ops. Every warm start pays for this: some
    microseconds a node.
    """
    known: dict[Value, Any] = {}
    places: dict[Node, int] = {}
    content = hashlib.sha256()
    parts: list[Any] = [graph.name]
    for v in (*graph.inputs, *graph.state):
        known[v] = len(known)
        parts.append((v.node.op.name, v.node.attrs["name"], v.type.dtype, v.type.shape))
    for node in graph.nodes:
        if node.is_literal:
            value = node.attrs["value"]
            known[node.output] = (value.dtype.name, value.tobytes())
            continue
        places[node] = len(places)
        attrs = [_identity(a, content) for a in node.attrs.values()]
        parts.append((node.op.name, [known[v] for v in node.inputs], attrs))
        if node.op.version:
            parts.append((node.op.version, [(v.dtype, v.shape) for v in node.outputs]))
        for v in node.outputs:
            known[v] = (places[node], v.index)
    parts += [
        [known[v] for v in graph.outputs],
        [(name, known[v]) for name, v in sorted(graph.updates.items())],
        [(a.expr, a.relation, a.reason) for a in graph.assumptions],
        sorted([(known[v], order) for v, order in graph.layouts.items()], key=repr),
        [(g.name, [places[n] for n in g.nodes if n in places], g.guard and known[g.guard]) for g in graph.groups],
    ]
    content.update(repr(parts).encode())
    return content.hexdigest()


def _identity(value: Any, content: Any) -> Any:
    """An attribute as it goes into the text: a graph by its own digest, an array by dtype and shape, its elements being
    fed to the hash."""
    if isinstance(value, Graph):
        return digest(value)
    if isinstance(value, np.ndarray):
        content.update(value.tobytes())
        return value.dtype.name, value.shape
    return value
