"""Values that are computed again when they are needed, instead of being kept, where memory is limited.

A training step keeps what its forward half makes until its backward half has read it. Given a limit, the forward half
is cut into segments, and of some of them only what later segments read is kept; the rest is computed again just before
it is needed (Chen, Xu, Zhang, Guestrin: Training deep nets with sublinear memory cost; 2016). Cheaper is to compute
again only what needs no product, convolution or attention. Which choice fits is tried on the finished program, the
cheapest first. Random numbers are the same both times: they follow from their stream and their index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import accumulate

from engine import dims
from engine.dims import Size
from engine.errors import TenonError
from engine.graph import Graph, Node, Rewriter, Value
from engine.graph import apply as apply_op
from engine.memory import MemoryLimit
from passes.clusters import LOOP_KINDS
from passes.views import is_free

SEGMENTS = (2, 3, 4, 6, 8, 12, 16, 24)
"""Numbers of segments that are tried."""

_LIGHT = LOOP_KINDS - {"reduce"} | {"index", "move"}
"""Kinds of ops that cost little more than reading what they read."""


def rematerialise(graph: Graph, limit: MemoryLimit, arena: Callable[[Graph], int]) -> Graph:
    """``graph``, or one with the same results that computes some values twice, so that ``arena`` of it, the bytes that
    the finished program takes, is within the limit. Raises TenonError, which names the least that was reached."""
    whole = least = arena(graph)
    if whole <= limit.nbytes:
        return graph
    halves = _Halves(graph, limit.sizes)

    def tried(again: set[Node]) -> Graph | None:
        nonlocal least
        changed = _recomputing(graph, again, halves.turn)
        found = arena(changed)
        least = min(least, found)
        return changed if found <= limit.nbytes else None

    light = tried(halves.light())
    if light is not None:
        return light
    for count in SEGMENTS:
        segments = halves.segments(count)
        if len(segments) < count:
            break
        found = tried(set().union(*segments[:-1]))
        if found is not None:
            return _fewest(segments[:-1], tried, found)
    raise TenonError(
        f"memory_limit is {limit.nbytes:,} bytes, and {graph.name} needs at least {least:,} bytes of temporary memory"
        f"{_at(limit.sizes)}, however much is computed again; without a limit it takes {whole:,}"
    )


def _at(sizes: Mapping[str, int]) -> str:
    text = ", ".join(f"{name}={size}" for name, size in sorted(sizes.items()))
    return f" at {text}" if text else ""


def _fewest(segments: list[set[Node]], tried: Callable[[set[Node]], Graph | None], found: Graph) -> Graph:
    """The graph that computes as few of the first segments again as the limit allows; ``found`` does so with all."""
    low, high = 0, len(segments)  # so many are too few, so many are enough
    while high - low > 1:
        middle = (low + high) // 2
        fewer = tried(set().union(*segments[:middle]))
        if fewer is not None:
            high, found = middle, fewer
        else:
            low = middle
    return found


class _Halves:
    """A graph seen from where it keeps the most: ``turn`` is that place, and before it, in the forward half, lie the
    values that are read after it."""

    def __init__(self, graph: Graph, sizes: Mapping[str, int]):
        self.nodes = graph.nodes
        self.place = {n: i for i, n in enumerate(graph.nodes)}
        self.reads: dict[Value, list[int]] = {}
        self.bytes: dict[Value, int] = {}
        for i, node in enumerate(graph.nodes):
            for v in node.inputs:
                root = _root(v)
                if _is_made(root.node):
                    self.reads.setdefault(root, []).append(i)
        for v in map(_root, graph.results):
            if _is_made(v.node):
                self.reads.setdefault(v, []).append(len(graph.nodes))
        for v in self.reads:
            self.bytes[v] = _number(v.type.size, sizes) * v.dtype.itemsize
        self.turn = self._turn()
        self.kept = {v for v, reads in self.reads.items() if self.place[v.node] <= self.turn < max(reads)}

    def _turn(self) -> int:
        change = [0] * (len(self.nodes) + 2)
        for v, reads in self.reads.items():
            change[self.place[v.node] + 1] += self.bytes[v]
            change[max(reads) + 1] -= self.bytes[v]
        live = list(accumulate(change))
        return max(range(len(self.nodes)), key=lambda i: live[i + 1], default=0)

    def light(self) -> set[Node]:
        """What can be computed again at little cost."""
        return {n for n in self.nodes[: self.turn + 1] if n.op.kind in _LIGHT and not is_free(n)}

    def segments(self, count: int) -> list[set[Node]]:
        """The forward half in ``count`` parts that keep equally much, cut where little is handed on: the nodes of each
        that no later one reads. Fewer where there are not so many places."""
        kept = [0] * (self.turn + 1)
        crossing = [0] * (self.turn + 2)
        for v in self.kept:
            kept[self.place[v.node]] += self.bytes[v]
        for v, reads in self.reads.items():
            made, last = self.place[v.node], max((i for i in reads if i <= self.turn), default=-1)
            if made < last:
                crossing[made] += self.bytes[v]
                crossing[last] -= self.bytes[v]
        so_far, handed_on = list(accumulate(kept)), list(accumulate(crossing))
        total = so_far[-1]
        cuts: list[int] = []
        for i in range(1, count):
            low, high = ((2 * i + side) * total / (2 * count) for side in (-1, 1))
            within = [p for p in range(self.turn) if low < so_far[p] <= high and (not cuts or p > cuts[-1])]
            if within:
                cuts.append(min(within, key=lambda p: (handed_on[p], abs(so_far[p] - i * total / count))))
        edges = [-1, *cuts, self.turn]
        return [self._inside(a, b) for a, b in zip(edges, edges[1:], strict=False)]

    def _inside(self, first: int, last: int) -> set[Node]:
        """The nodes after ``first``, up to ``last``, that nothing between ``last`` and the turn reads."""

        def handed_on(node: Node) -> bool:
            return any(last < i <= self.turn for v in node.outputs for i in self.reads.get(v, ()))

        return {n for n in self.nodes[first + 1 : last + 1] if _is_made(n) and not handed_on(n)}


def _recomputing(graph: Graph, again: set[Node], turn: int) -> Graph:
    """``graph``, in which what stands after ``turn`` reads the nodes of ``again`` from copies, made just before."""
    rewriter = _Recomputing(graph, again)
    late = set(graph.nodes[turn + 1 :])

    def emit(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        return rewriter.keep(node, tuple(map(rewriter.again, node.inputs))) if node in late else None

    return rewriter.run(emit)


class _Recomputing(Rewriter):
    """Makes the second copies of nodes as they are asked for, and hands on the layouts of the first."""

    def __init__(self, graph: Graph, nodes: set[Node]):
        super().__init__(graph)
        self.nodes = nodes
        self.place = {n: i for i, n in enumerate(graph.nodes)}
        self.copies: dict[Value, Value] = {}
        self.fenced: dict[Value, Value] = {}
        self.layouts: dict[Value, tuple[int, ...]] = {}

    def again(self, value: Value) -> Value:
        """What a late node reads for ``value`` of the old graph."""
        for node in self._missing(value):
            with self.builder.at(node.location):
                outputs = self.builder.add(node.op, tuple(map(self._later, node.inputs)), node.attrs)
            for old, new in zip(node.outputs, outputs, strict=True):
                self._remember(self.copies, old, new)
        return self.copies.get(value, self.map[value])

    def _missing(self, value: Value) -> list[Node]:
        """The nodes of which ``value`` needs copies that are not made yet, in order."""
        found: set[Node] = set()
        pending = [value]
        while pending:
            v = pending.pop()
            if v not in self.copies and v.node not in found and self._is_repeated(v):
                found.add(v.node)
                pending += v.node.inputs
        return sorted(found, key=self.place.__getitem__)

    def _is_repeated(self, value: Value) -> bool:
        """Whether a copy is made of it: it is to be computed again, or a view of what is."""
        return _root(value).node in self.nodes and (_is_view(value.node) or value.node in self.nodes)

    def _later(self, value: Value) -> Value:
        """What a copy reads for ``value``: a copy, or what is kept, from where no kernel reaches back."""
        if value in self.copies:
            return self.copies[value]
        if value not in self.fenced:
            if _is_view(value.node):
                inputs = tuple(map(self._later, value.node.inputs))
                self._remember(self.fenced, value, self.builder.add(value.node.op, inputs, value.node.attrs)[0])
            elif _is_made(value.node):
                self._remember(self.fenced, value, apply_op("later", self.map[value]))
            else:
                return self.map[value]
        return self.fenced[value]

    def _remember(self, where: dict[Value, Value], old: Value, new: Value) -> None:
        where[old] = new
        if old in self.graph.layouts:
            self.layouts[new] = self.graph.layouts[old]

    def finish(self) -> Graph:
        built = super().finish()
        return built.with_(layouts=dict(built.layouts) | self.layouts)


def _root(value: Value) -> Value:
    """What a view is a view of."""
    while _is_view(value.node):
        value = value.node.inputs[0]
    return value


def _is_view(node: Node) -> bool:
    return node.op.kind == "view"


def _is_made(node: Node) -> bool:
    """Whether a kernel makes what the node stands for."""
    return node.op.kind not in ("view", "source", "check") and not is_free(node)


def _number(size: Size, sizes: Mapping[str, int]) -> int:
    return size if isinstance(size, int) else dims.evaluate(size, sizes)
