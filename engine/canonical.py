"""A graph's identity: a hash of what it computes."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from engine.dtypes import DType
from engine.graph import Graph, TensorType, Value


def digest(graph: Graph) -> str:
    """SHA-256, in hexadecimal, of the graph without source lines and with its values numbered in order.

    Equal for graphs that differ in provenance and value names alone; the names of the program, its inputs, state
    and kernels count, and so does every constant's content. Types of inner values follow from the ops and are left
    out. Every warm start pays for this: it takes some 10 us a node.
    """
    numbers: dict[Value, int] = {}
    content = hashlib.sha256()
    parts: list[Any] = [graph.name]
    for v in (*graph.inputs, *graph.state):
        numbers[v] = len(numbers)
        parts.append((v.node.op.name, v.node.attrs["name"], _type(v.type)))
    for node in graph.nodes:
        attrs = [_array(a, content) if isinstance(a, np.ndarray) else a for a in node.attrs.values()]
        parts.append((node.op.name, [numbers[v] for v in node.inputs], attrs))
        for v in node.outputs:
            numbers[v] = len(numbers)
    first = {n: numbers[n.outputs[0]] for n in graph.nodes}
    parts += [
        [numbers[v] for v in graph.outputs],
        [(name, numbers[v]) for name, v in sorted(graph.updates.items())],
        [(a.expr, a.relation, a.reason) for a in graph.assumptions],
        sorted((numbers[v], order) for v, order in graph.layouts.items()),
        [(g.name, [first[n] for n in g.nodes]) for g in graph.groups],
    ]
    content.update(repr(parts).encode())
    return content.hexdigest()


def _array(value: np.ndarray, content: Any) -> tuple[str, tuple[int, ...]]:
    """Feed the elements to the hash; what stands for them in the text is their dtype and shape."""
    content.update(value.tobytes())
    return value.dtype.name, value.shape


def _type(type: TensorType) -> tuple[DType, tuple]:
    return type.dtype, type.shape
