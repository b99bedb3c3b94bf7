"""The invariants of a graph. A graph that breaks one is a defect of the pass that made it."""

from __future__ import annotations

import keyword
from collections.abc import Iterator

import numpy as np

from engine import dims
from engine.errors import TenonError, VerifyError
from engine.graph import Graph, Node
from engine.loops import body_of
from engine.names import reserved
from engine.text.literals import attr_text


def verify(graph: Graph, expanded: bool = False) -> Graph:
    """``graph`` itself, once every invariant is known to hold; ``expanded`` says that autodiff has run, so that no
    ``grad`` node may be left.

    Values are defined once and before they are used, under names that print; types are those that the ops infer,
    under the assumptions that the graph records; state has one node a name, and updates keep its type; layouts are
    orders of their value's axes; kernels hold each node at most once, side by side; equal random streams are equal
    nodes. Raises VerifyError that names the node and the invariant.
    """
    _ports(graph)
    _names(graph)
    _order(graph)
    for node in graph.nodes:
        _node(node, expanded)
    _types(graph)
    _bodies(graph, expanded)
    _results(graph)
    _layouts(graph)
    _groups(graph)
    _random_streams(graph)
    return graph


def _ports(graph: Graph) -> None:
    for kind, values in (("input", graph.inputs), ("state", graph.state)):
        seen: set[str] = set()
        for v in values:
            if v.node.op.name != kind:
                raise VerifyError(f"{v.name} is listed as {kind}, and is made by {v.node.op.name}", v.node.location)
            name = v.node.attrs["name"]
            if name in seen:
                raise VerifyError(f"two nodes stand for the {kind} {name!r}", v.node.location)
            seen.add(name)


def _names(graph: Graph) -> None:
    words = reserved()
    seen: set[str] = set()
    for node in graph.all_nodes():
        for name in {node.name, *(v.name for v in node.outputs)}:
            if name in seen:
                raise VerifyError(f"{name} names two values", node.location)
            if not (name.isidentifier() and name.isascii()) or name in words or keyword.iskeyword(name):
                raise VerifyError(f"{name!r} cannot name a value: it would not parse back", node.location)
            seen.add(name)


def _order(graph: Graph) -> None:
    known = {*graph.inputs, *graph.state}
    for node in graph.nodes:
        for v in node.inputs:
            if v not in known:
                raise VerifyError(f"{node.name} reads {v.name} before it is made, or from another graph", node.location)
        known.update(node.outputs)
    for v in graph.results:
        if v not in known:
            raise VerifyError(f"the result {v.name} is not made in this graph", v.node.location)


def _node(node: Node, expanded: bool) -> None:
    if node.op.kind == "grad" and expanded:
        raise VerifyError(f"{node.name} is a grad node, which autodiff must have expanded", node.location)
    if node.op.name in ("input", "state"):
        raise VerifyError(f"{node.name} is an {node.op.name} among the other nodes", node.location)
    if list(node.attrs) != list(node.op.attrs):
        text = f"{node.name}: {node.op.name} has the attributes {list(node.op.attrs)}, not {list(node.attrs)}"
        raise VerifyError(text, node.location)
    for name, value in node.attrs.items():
        if isinstance(value, Graph):
            continue  # _bodies looks into it
        if isinstance(value, np.ndarray):
            if node.op.name != "constant" or value.flags.writeable:
                raise VerifyError(f"{node.name}: the attribute {name} is an array that can change", node.location)
            continue
        try:
            attr_text(value)
        except TenonError as error:
            raise VerifyError(f"{node.name}: {name}: {error.message}", node.location) from None


def _types(graph: Graph) -> None:
    assumed = list(graph.assumptions)
    for node in graph.nodes:
        try:
            with dims.recording(assumed):
                types = node.op.infer(tuple(v.type for v in node.inputs), node.attrs)
        except TenonError as error:
            text = f"{node.name}: {node.op.name} does not take its inputs: {error.message}"
            raise VerifyError(text, node.location) from None
        found = tuple(v.type for v in node.outputs)
        if types != found:
            raise VerifyError(
                f"{node.name}: {node.op.name} gives {', '.join(map(str, types))}, "
                f"and the node says {', '.join(map(str, found))}",
                node.location,
            )
        if len(assumed) > len(graph.assumptions):
            raise VerifyError(f"{node.name} relies on {assumed[-1]}, which the graph does not assume", node.location)


def _bodies(graph: Graph, expanded: bool) -> None:
    for node in graph.nodes:
        body = body_of(node)
        if body is None:
            continue
        if body.state or body.updates or body.assumptions:
            raise VerifyError(f"{node.name}: the body of a loop has neither state nor assumptions", node.location)
        verify(body.with_(assumptions=graph.assumptions), expanded)


def _results(graph: Graph) -> None:
    state = {v.node.attrs["name"]: v for v in graph.state}
    for name, v in graph.updates.items():
        if name not in state:
            raise VerifyError(f"{v.name} updates the state {name!r}, which the graph does not have", v.node.location)
        if v.type != state[name].type:
            raise VerifyError(f"{v.name}: {v.type} updates the state {name!r}: {state[name].type}", v.node.location)


def _layouts(graph: Graph) -> None:
    known = {v for n in graph.all_nodes() for v in n.outputs}
    for v, order in graph.layouts.items():
        if v not in known:
            raise VerifyError(f"{v.name} has a layout and is not in the graph", v.node.location)
        if sorted(order) != list(range(v.type.rank)):
            raise VerifyError(f"the layout {order} of {v.name} is no order of its {v.type.rank} axes", v.node.location)


def _groups(graph: Graph) -> None:
    position = {n: i for i, n in enumerate(_printed(graph.nodes))}
    used: set[Node] = set()
    end = -1
    for group in graph.groups:
        for node in group.nodes:
            if node in used:
                raise VerifyError(f"{node.name} is in two kernels, or twice in {group.name!r}", node.location)
            used.add(node)
        places = [position[n] for n in _printed(group.nodes) if n in position]
        if len(places) != len(list(_printed(group.nodes))):
            raise VerifyError(f"the kernel {group.name!r} holds a node that is not in the graph")
        if places and (places != list(range(places[0], places[0] + len(places))) or places[0] <= end):
            raise VerifyError(f"the nodes of the kernel {group.name!r} do not stand side by side in the graph's order")
        end = places[-1] if places else end


def _printed(nodes: tuple[Node, ...]) -> Iterator[Node]:
    """All but scalar constants, which have no place of their own."""
    return (n for n in nodes if not n.is_literal)


def _random_streams(graph: Graph) -> None:
    streams: dict[int, Node] = {}
    for node in graph.nodes:
        if node.op.kind != "random":
            continue
        first = streams.setdefault(node.attrs["stream"], node)
        if (first.inputs, first.attrs) != (node.inputs, node.attrs):
            raise VerifyError(
                f"{first.name} and {node.name} draw different numbers from the random stream {node.attrs['stream']}",
                node.location,
            )
