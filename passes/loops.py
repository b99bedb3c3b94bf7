"""Loops: what they need not do, or not at every step."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from engine import conditions
from engine.graph import Builder, Graph, Node, Rewriter, Value
from engine.loops import body_of, has_check, map_bodies, with_body
from engine.rules import full
from passes.views import is_free


def join_loops(graph: Graph) -> Graph:
    """``graph`` with one loop for all that run the same body over the same inputs: a gradient asks for a loop that is
    the one before it, save that it keeps more of each step."""
    alike: dict[Hashable, list[Node]] = {}
    for node in graph.nodes:
        if node.op.kind == "loop":
            alike.setdefault(_computation(node), []).append(node)
    if all(len(nodes) == 1 for nodes in alike.values()):
        return graph
    rewriter = Rewriter(graph)
    made: dict[Hashable, dict[Value, Value]] = {}

    def emit(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        key = _computation(node) if node.op.kind == "loop" else None
        if key is None or len(alike[key]) == 1:
            return None
        count, body = node.attrs["carries"], node.attrs["body"]
        if key not in made:
            kept = dict.fromkeys(v for n in alike[key] for v in n.attrs["body"].outputs[count:])
            outputs = with_body(rewriter.builder, node, inputs, body.with_(outputs=(*body.outputs[:count], *kept)))
            made[key] = dict(zip(kept, outputs[count:], strict=True))
            last[key] = outputs[:count]
        return (*last[key], *(made[key][v] for v in body.outputs[count:]))

    last: dict[Hashable, tuple[Value, ...]] = {}
    return rewriter.run(emit)


def _computation(node: Node) -> Hashable:
    body = node.attrs["body"]
    carries = body.outputs[: node.attrs["carries"]]
    rest = tuple((k, v) for k, v in node.attrs.items() if k != "body")
    return node.inputs, body.inputs, body.nodes, carries, rest


# --- what nobody reads -------------------------------------------------------------------------------------------


def inputs_needed(node: Node, live: Iterable[Value]) -> list[Value]:
    """The inputs of ``node`` on which those of its outputs that are ``live`` depend."""
    if node.op.kind != "loop":
        return list(node.inputs)
    _, _, ports = _wanted(node, set(live))
    return [v for v, port in zip(node.inputs, node.attrs["body"].inputs, strict=True) if port in ports]


def _wanted(node: Node, live: set[Value]) -> tuple[list[int], list[Node], set[Value]]:
    """Which outputs of a loop must be computed, from which nodes of its body and which of the body's inputs."""
    body, count = node.attrs["body"], node.attrs["carries"]
    outputs = {i for i, v in enumerate(node.outputs) if v in live}
    while True:
        found = {body.outputs[i] for i in outputs}
        nodes = []
        for inner in reversed(body.nodes):
            if inner.op.kind == "check" or any(v in found for v in inner.outputs):
                found.update(inner.inputs)
                nodes.append(inner)
        # A carry that one step reads, the step before it must make.
        more = {i for i, v in enumerate(body.inputs[:count]) if v in found} - outputs
        if not more:
            carries = {body.inputs[i] for i in outputs if i < count}
            return sorted(outputs), nodes[::-1], found.intersection(body.inputs) | carries
        outputs |= more


def prune_loops(graph: Graph, live: set[Value]) -> Graph:
    """``graph`` with loops that carry, read and keep only what the ``live`` values need."""
    loops = [n for n in graph.nodes if n.op.kind == "loop" and any(v in live for v in n.outputs)]
    plans = {n: p for n in loops if _shrinks(n, *(p := _wanted(n, live)))}
    if not plans:
        return graph
    rewriter = Rewriter(graph)

    def emit(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if node not in plans:
            return None
        outputs, nodes, ports = plans[node]
        body, count, last = node.attrs["body"], node.attrs["carries"], node.attrs["carries"] + node.attrs["sequences"]
        kept = [i for i, v in enumerate(body.inputs) if v in ports]
        smaller = Graph(
            body.name, tuple(body.inputs[i] for i in kept), (), tuple(nodes), tuple(body.outputs[i] for i in outputs)
        )
        carries = sum(i < count for i in outputs)
        assert carries == sum(i < count for i in kept)
        sequences = sum(count <= i < last for i in kept)
        given = tuple(inputs[i] for i in kept)
        made = with_body(rewriter.builder, node, given, smaller, carries=carries, sequences=sequences)
        where = {old: new for new, old in enumerate(outputs)}
        # What reads an output that is gone is dead itself.
        return tuple(made[where[i]] if i in where else full(v.shape, 0, v.dtype) for i, v in enumerate(node.outputs))

    return rewriter.run(emit).with_(groups=graph.groups)


def _shrinks(node: Node, outputs: list[int], nodes: list[Node], ports: set[Value]) -> bool:
    body = node.attrs["body"]
    return (len(outputs), len(nodes), len(ports)) < (len(node.outputs), len(body.nodes), len(body.inputs))


# --- what is the same at every step ------------------------------------------------------------------------------


def hoist(graph: Graph) -> Graph:
    """``graph`` with what a loop would compute anew at every step, and always the same, computed before it."""
    if not any(n.op.kind == "loop" for n in graph.nodes):
        return graph
    graph = map_bodies(graph, hoist)
    rewriter = Rewriter(graph)

    def emit(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        body = body_of(node)
        if body is None:
            return None
        steady = _steady(node, body)
        if not any(_worth_moving(n) for n in steady):
            return None
        return _moved(rewriter.builder, node, body, inputs, steady)

    return rewriter.run(emit)


def _steady(node: Node, body: Graph) -> dict[Node, None]:
    """The nodes of the body that give the same at every step."""
    needs = conditions.needs(body)
    same = set(body.inputs[node.attrs["carries"] + node.attrs["sequences"] :])
    found: dict[Node, None] = {}
    for n in body.nodes:
        always = needs.get(n, conditions.ALWAYS) == conditions.ALWAYS
        if always and not has_check(n) and all(v in same for v in n.inputs):
            found[n] = None
            same.update(n.outputs)
    return found


def _worth_moving(node: Node) -> bool:
    return node.op.kind != "view" and not is_free(node)


def _moved(
    builder: Builder, node: Node, body: Graph, inputs: tuple[Value, ...], steady: dict[Node, None]
) -> tuple[Value, ...]:
    outside = dict(zip(body.inputs, inputs, strict=True))
    for n in steady:
        with builder.at(n.location):
            outside.update(zip(n.outputs, builder.add(n.op, tuple(outside[v] for v in n.inputs), n.attrs), strict=True))
    inner = builder.nested(body.name)
    for v in body.inputs:
        inner.take_input(v)
    inner._names.update(n.name for n in body.nodes)
    known = {v: v for v in body.inputs}
    added: list[Value] = []
    for n in body.nodes:
        if n in steady and _worth_moving(n):
            for v in n.outputs:
                known[v] = inner.port("same", v.type)
                added.append(outside[v])
            continue
        moved = tuple(known[v] for v in n.inputs)
        types = tuple(v.type for v in n.outputs)
        copy = n if moved == n.inputs else Node(n.op, moved, n.attrs, types, n.name, n.location)
        inner.adopt(copy)
        known.update(zip(n.outputs, copy.outputs, strict=True))
    lighter = Graph(body.name, tuple(inner.inputs), (), tuple(inner.nodes), tuple(known[v] for v in body.outputs))
    return with_body(builder, node, (*inputs, *added), lighter)
