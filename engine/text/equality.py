"""Whether two graphs are the same program."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import numpy as np

from engine.graph import Graph, Node, Value
from engine.text.literals import attr_text, literals


def structurally_equal(a: Graph, b: Graph) -> bool:
    """Whether ``a`` and ``b`` have the same nodes under the same names, in the same order, with the same types,
    state, assumptions, layouts and kernels. Source lines do not count, nor do the names of scalar constants."""
    return difference(a, b) is None


def difference(a: Graph, b: Graph) -> str | None:
    """The first thing in which the graphs differ, or None."""
    for x, y in zip_longest(_facts(a), _facts(b)):
        if x != y:
            return f"{x} against {y}"
    return None


def _facts(graph: Graph) -> Iterator[tuple[str, Any]]:
    """What makes the graph what it is, as comparable pieces in a fixed order."""
    inlined = literals(graph)

    def value(v: Value) -> str:
        return str(_attr(v.node.attrs["value"])) if v in inlined else v.name

    def described(node: Node) -> tuple[Any, ...]:
        attrs = {k: _attr(a) for k, a in node.attrs.items()}
        return node.name, node.op.name, [value(v) for v in node.inputs], attrs, [str(v.type) for v in node.outputs]

    yield "name", graph.name
    yield "inputs", [described(v.node) for v in graph.inputs]
    yield "state", [described(v.node) for v in graph.state]
    for node in graph.nodes:
        if node.outputs[0] not in inlined:
            yield "node", described(node)
    yield "outputs", [value(v) for v in graph.outputs]
    yield "updates", {name: value(v) for name, v in graph.updates.items()}
    yield "assumptions", [(str(a), a.reason) for a in graph.assumptions]
    yield "layouts", {v.name: order for v, order in graph.layouts.items()}
    for group in graph.groups:
        guard = value(group.guard) if group.guard is not None else None
        yield "kernel", (group.name, [n.name for n in group.nodes if n.outputs[0] not in inlined], guard)


def _attr(value: Any) -> Any:
    """An attribute such that equal ones compare equal, 1, 1.0 and True do not, and NaNs are all the same."""
    if isinstance(value, Graph):
        return list(_facts(value))[1:]  # save for the name, which it has from where it is printed
    if not isinstance(value, np.ndarray):
        return attr_text(value)
    if value.dtype.kind not in "biu":
        value = np.where(np.isnan(value), value.dtype.type("nan"), value)
    return value.dtype.name, value.shape, value.tobytes()
