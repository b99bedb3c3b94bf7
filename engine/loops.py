"""Loops: graphs that run once for each step of a sequence. They are an attribute of the node that loops."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from engine.graph import Builder, Graph, Node, Rewriter, Value


def body_of(node: Node) -> Graph | None:
    """The graph that ``node`` runs at every step, if it is a loop."""
    return node.attrs["body"] if node.op.kind == "loop" else None


def nested_nodes(graph: Graph) -> Iterator[Node]:
    """The nodes of ``graph`` in order, those of a loop's body before the loop."""
    for node in graph.nodes:
        body = body_of(node)
        if body is not None:
            yield from nested_nodes(body)
        yield node


def has_check(node: Node) -> bool:
    """Whether ``node`` may make the call fail."""
    body = body_of(node)
    return node.op.kind == "check" or (body is not None and any(map(has_check, body.nodes)))


def map_bodies(graph: Graph, change: Callable[[Graph], Graph]) -> Graph:
    """``graph`` with ``change`` applied to the body of each loop; what ``change`` assumes of sizes, ``graph`` does."""
    if not any(n.op.kind == "loop" for n in graph.nodes):
        return graph
    rewriter = Rewriter(graph)

    def emit(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        body = body_of(node)
        if body is None:
            return None
        changed = change(body.with_(assumptions=tuple(rewriter.builder.assumptions)))
        rewriter.builder.assumptions[:] = changed.assumptions
        return with_body(rewriter.builder, node, inputs, changed.with_(assumptions=()))

    return rewriter.run(emit).with_(groups=graph.groups)


def with_body(
    builder: Builder, node: Node, inputs: tuple[Value, ...], body: Graph, **attrs: object
) -> tuple[Value, ...]:
    """The outputs of ``node`` over ``inputs`` with another body and further attributes, under its old name."""
    full = {**node.attrs, "body": body, **attrs}
    types = node.op.infer(tuple(v.type for v in inputs), full)
    copy = Node(node.op, inputs, full, types, node.name, node.location)
    builder.adopt(copy)
    return copy.outputs
