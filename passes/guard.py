"""Nodes that only a branch needs get a guard: the bool scalar under which their kernel runs."""

from __future__ import annotations

from engine.conditions import ALWAYS, NEVER, Need, expressed, needs, ordered
from engine.graph import Graph, Node, Rewriter, Value, apply
from passes.views import is_free


def guards(graph: Graph) -> tuple[Graph, dict[Node, Value]]:
    """``graph`` with the nodes that compute the guards, and the guard of each node that computes and has one.

    A ``merge`` that is needed on one side only becomes that arm. A guard may look at a condition that stands in a
    branch itself and was not computed; the outer condition, which it looks at too, then says no.
    """
    every = needs(graph)
    wanted = {node: need for node, need in every.items() if need not in (ALWAYS, NEVER) and _computes(node)}
    if not wanted:
        return graph, {}
    rewriter = Rewriter(graph.with_(nodes=tuple(ordered(graph, every))))
    made: dict[Need, Value] = {}
    found: dict[Node, Value] = {}

    def emit(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        need = wanted.get(node)
        if need is None:
            return None
        arm = _only_arm(node, need)
        if arm is not None and inputs[arm].type == node.output.type:
            return (inputs[arm],)
        if need not in made:
            now = frozenset(frozenset((rewriter.map[v], side) for v, side in case) for case in need)
            made[need] = expressed(now, _both, _any_of, _negated)
        outputs = rewriter.keep(node, inputs)
        found[outputs[0].node] = made[need]
        return outputs

    guarded = rewriter.run(emit)
    return guarded, found


def _only_arm(node: Node, need: Need) -> int | None:
    """The input of a merge that is taken wherever it is needed."""
    if node.op.name != "merge":
        return None
    return next((i for i, side in ((1, True), (2, False)) if all((node.inputs[0], side) in c for c in need)), None)


def _computes(node: Node) -> bool:
    return node.op.kind not in ("view", "source") and not is_free(node)


def _both(a: Value, b: Value) -> Value:
    return apply("and_", a, b)


def _any_of(a: Value, b: Value) -> Value:
    return apply("or_", a, b)


def _negated(a: Value) -> Value:
    return apply("not_", a)
