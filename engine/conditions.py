"""Which nodes are needed only under conditions: what one arm of a ``merge`` reads, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engine.graph import Graph, Node, Value

Case = frozenset[tuple[Value, bool]]
"""Conditions that hold together: each a bool scalar, and what it must be."""
Need = frozenset[Case]
"""When a value is needed: in any of these cases."""

NEVER: Need = frozenset()
ALWAYS: Need = frozenset({frozenset()})
_MOST_CASES = 32
"""A need of more cases than this is taken for ALWAYS."""


def needs(graph: Graph) -> dict[Node, Need]:
    """When each node is needed; checks are always. Empty where no node of the graph depends on a condition.

    A node that one branch needs, and the condition of another too, is not made to wait for that condition: it would
    wait for itself.
    """
    if not any(n.op.name == "merge" for n in graph.nodes):
        return {}
    found: dict[Value, Need] = dict.fromkeys(graph.results, ALWAYS)
    result: dict[Node, Need] = {}
    sources: dict[Value, set[Node]] = {}
    for node in reversed(graph.nodes):
        need = ALWAYS if node.op.kind == "check" else NEVER
        for v in node.outputs:
            need = either(need, found.get(v, NEVER))
        conditions = {v for case in need for v, _ in case}
        for v in conditions:
            if v not in sources:
                sources[v] = _made_from(v)
        if any(node in sources[v] for v in conditions):
            need = _without(need, {v for v in conditions if node in sources[v]})
        result[node] = need
        for i, v in enumerate(node.inputs):
            wanted = need
            if node.op.name == "merge" and i > 0:
                wanted = _under(need, (node.inputs[0], i == 1))
            found[v] = either(found.get(v, NEVER), wanted)
    return result


def _made_from(value: Value) -> set[Node]:
    """The nodes from which ``value`` is computed."""
    found: set[Node] = set()
    pending = [value.node]
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            pending.extend(v.node for v in node.inputs)
    return found


def _without(need: Need, conditions: set[Value]) -> Need:
    """``need`` whatever ``conditions`` are."""
    weaker = NEVER
    for case in need:
        weaker = either(weaker, frozenset({frozenset((v, side) for v, side in case if v not in conditions)}))
    return weaker


def ordered(graph: Graph, needs: Mapping[Node, Need]) -> list[Node]:
    """The graph's nodes, each behind the conditions of its need; otherwise as they stand.

    There is such an order: what a condition is computed from is needed whenever the condition is.
    """
    if not needs:
        return list(graph.nodes)
    inside = set(graph.nodes)
    result: dict[Node, None] = {}
    pending = [(node, False) for node in reversed(graph.nodes)]
    while pending:
        node, ready = pending.pop()
        if ready:
            result[node] = None
        elif node not in result:
            conditions = (v for case in needs[node] for v, _ in case)
            pending.append((node, True))
            pending += [(v.node, False) for v in (*conditions, *node.inputs) if v.node in inside]
    return list(result)


def holds(need: Need, known: Mapping[Value, object]) -> bool:
    """Whether ``need`` is met by the values of its conditions. One of a branch not taken is not looked at where the
    outer condition says no."""
    return any(all(bool(known[v]) == side for v, side in case) for case in need)


def expressed(
    need: Need, both: Callable[[Value, Value], Value], any_of: Callable[[Value, Value], Value],
    negated: Callable[[Value], Value],
) -> Value:  # fmt: skip
    """``need``, neither ALWAYS nor NEVER, as one bool scalar. Outer conditions come first in each case."""
    total: Value | None = None
    for case in sorted(need, key=lambda case: sorted((v.name, side) for v, side in case)):
        whole: Value | None = None
        for v, side in sorted(case, key=lambda literal: literal[0].name):
            one = v if side else negated(v)
            whole = one if whole is None else both(whole, one)
        assert whole is not None
        total = whole if total is None else any_of(total, whole)
    assert total is not None
    return total


def either(a: Need, b: Need) -> Need:
    """The need for what is needed in ``a`` and in ``b``, in as few and short cases as a look at pairs of them finds."""
    if a == b or not b:
        return a
    if not a:
        return b
    cases = set(a | b)
    changed = True
    while changed:
        changed = False
        for one in cases:
            for other in cases:
                if one is other:
                    continue
                short = _joined(one, other)
                if short is not None:
                    cases -= {one, other}
                    cases.add(short)
                    changed = True
                    break
            if changed:
                break
    return frozenset(cases) if len(cases) <= _MOST_CASES else ALWAYS


def _joined(one: Case, other: Case) -> Case | None:
    """One case for both: the weaker where it follows from the other, and what is left of two that differ in one
    condition alone."""
    if one <= other:
        return one
    opposite = frozenset((v, not side) for v, side in one - other)
    if len(opposite) == 1 and other - one == opposite:
        return one & other
    return None


def _under(need: Need, literal: tuple[Value, bool]) -> Need:
    """``need`` where the condition holds as well."""
    against = (literal[0], not literal[1])
    return frozenset(case | {literal} for case in need if against not in case)
