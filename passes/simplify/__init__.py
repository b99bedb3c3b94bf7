"""Simplification: identities, folding, common subexpressions and dead code, until nothing more applies.

The rules stand in tables: ``constants``, ``algebra``, ``casts``, ``views``, ``pads``, ``products``, ``pooling``
and ``recurrences``. None changes dtypes, random numbers or where NaN and infinity appear. ``affine`` joins numbers of
the state after autodiff: that rounds otherwise. So does ``attention``, which puts what is written out into one op, from
level 2. Those in ``relaxed`` change roundings further, and are for level 3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from engine.graph import Graph, Node, Rewriter, Value
from passes.simplify import (
    affine,
    algebra,
    attention,
    casts,
    constants,
    pads,
    pooling,
    products,
    recurrences,
    relaxed,
    views,
)
from passes.simplify.common import computation
from passes.simplify.dead import remove_dead
from passes.simplify.patterns import Match, Rule, RuleTable, Var, op

__all__ = ["compose", "relax", "remove_dead", "simplify", "simplify_traced", "simplify_with_report"]

SWEEPS = 20
"""Far more than a graph needs; a bound in case two rules undo each other."""

MANY = 1 << 30
"""The uses of a value that are not known."""

_TABLES = (constants, algebra, casts, views, pads, products, pooling, recurrences)
_RULES = tuple(rule for table in _TABLES for rule in table.RULES)
_BEFORE_AUTODIFF = RuleTable(_RULES)
_COMPOSING = RuleTable((*_RULES, *attention.RULES))
_PLAIN = (*_RULES, Rule("detach", op("detach", Var("x")), lambda x: x), *affine.RULES)
_AFTER_AUTODIFF = RuleTable(_PLAIN)
_RELAXED = RuleTable((*_PLAIN, *relaxed.RULES))


def simplify(graph: Graph) -> Graph:
    """A smaller graph with the same results. May run before autodiff and after it."""
    return simplify_with_report(graph)[0]


def simplify_traced(graph: Graph) -> Graph:
    """As :func:`simplify`, while gradients are still to be taken: in the body of a loop nothing else says so."""
    return simplify_with_report(graph, _BEFORE_AUTODIFF)[0]


def compose(graph: Graph) -> Graph:
    """As :func:`simplify_traced`, and attention that is written out becomes one op."""
    return simplify_with_report(graph, _COMPOSING)[0]


def relax(graph: Graph) -> Graph:
    """A graph with the same results but for roundings. Runs after autodiff."""
    return simplify_with_report(graph, _RELAXED)[0]


def simplify_with_report(graph: Graph, rules: RuleTable | None = None) -> tuple[Graph, dict[str, int]]:
    """The simplified graph, and how often each of ``rules`` applied, or of those that always hold."""
    report: Counter[str] = Counter()
    for _ in range(SWEEPS):
        smaller = remove_dead(graph)
        report["dead code"] += len(graph.nodes) - len(smaller.nodes)
        sweep = _Sweep(smaller, rules)
        rewritten = sweep.run()
        if not sweep.counts:
            graph = smaller
            break
        report += sweep.counts
        graph = rewritten
    return remove_dead(graph), {name: n for name, n in report.items() if n}


class _Sweep:
    """One pass over a graph: each node is merged with an equal one, rewritten by the first rule that applies, or kept.

    While the graph has ``grad`` nodes, the values that they differentiate by keep their identity: no rule touches or
    looks behind them, since that would cut them off the path that the gradient takes.
    """

    def __init__(self, graph: Graph, rules: RuleTable | None):
        self.counts: Counter[str] = Counter()
        self._rewriter = Rewriter(graph)
        grads = [n for n in graph.nodes if n.op.kind == "grad"]
        self._rules = rules or (_BEFORE_AUTODIFF if grads else _AFTER_AUTODIFF)
        self._differentiated_by = {v for n in grads for v in n.inputs[1:]}
        self._opaque: set[Value] = set(self._differentiated_by)
        self._seen: dict[Hashable, tuple[Value, ...]] = {}
        self._old_uses = Counter(graph.results)
        for node in graph.nodes:
            self._old_uses.update(node.inputs)
        self._uses: Counter[Value] = Counter()

    def run(self) -> Graph:
        return self._rewriter.run(self._emit)

    def _emit(self, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        outputs = self._simplest(node, inputs)
        for old, new in zip(node.outputs, outputs, strict=True):
            self._uses[new] += self._old_uses[old]
            if old in self._differentiated_by:
                self._opaque.add(new)
        return outputs

    def _simplest(self, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        if any(v in self._differentiated_by for v in node.outputs):
            return self._rewriter.keep(node, inputs)
        key = computation(node, inputs)
        if key in self._seen:
            self.counts["common subexpression"] += 1
            self._rewriter.rule = "common subexpression"
            return self._seen[key]
        outputs = self._rewritten(node, inputs)
        self._seen[key] = outputs
        return outputs

    def _rewritten(self, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        kept = self._rewriter.keep(node, inputs)
        root = kept[0].node
        own = dict(zip(kept, (self._old_uses[v] for v in node.outputs), strict=True))

        def uses(value: Value) -> int:
            return own.get(value, self._uses.get(value, MANY))

        for rule in self._rules.rules_for(node.op):
            outputs = rule.apply(Match(root, uses, self._opaque))
            if outputs is not None:
                self.counts[rule.name] += 1
                self._rewriter.rule = rule.name
                return outputs
        return kept
