"""Decide which nodes share a kernel, and in what order kernels run.

Every node that computes starts as a cluster of its own; clusters are merged along edges while the result is still one
kernel (passes/clusters.py) and no cycle arises among clusters. Views, numbers, sizes and indices belong to no
cluster: readers see through them, or make them on the spot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import networkx as nx

from engine.graph import Graph, Group, Node, Value
from engine.loops import body_of, has_check
from engine.records import dataclass
from passes import clusters
from passes.clusters import CORE_KINDS, LOOP_KINDS, Cluster, refusal
from passes.guard import guards
from passes.naming import kernel_name
from passes.reach import Precedence
from passes.spaces import LinksOf
from passes.views import is_free, look_through

REFUSALS = clusters.REFUSALS | {
    "guard": "they run under different conditions",
    "view": "what the one has made has to be moved in memory for the other",
    "level": "this level of optimisation lowers every op by itself",
    "detour": "another kernel stands between them: it reads from the one and is read by the other",
}
"""Why kernels that read one from the other are not one, in words."""


def fuse(graph: Graph, merging: bool = True, chains: bool = False) -> Graph:
    """Annotate the graph with its kernels: ``graph.groups``, the nodes of each standing together in ``graph.nodes``.

    With ``merging`` False every node that computes is a kernel of its own (optimisation levels 0 and 1). ``chains``
    says whether there are kernels of two convolutions.
    """
    graph, guard = guards(graph)
    fusion = _Fusion(graph, guard, chains)
    if merging:
        fusion.merge()
    return _arrange(graph, fusion.clusters(), guard)


@dataclass(frozen=True)
class Apart:
    """Two kernels of which the second reads from the first, and the rule, of REFUSALS, by which they are two."""

    first: Group
    second: Group
    rule: str


def kept_apart(graph: Graph) -> list[Apart]:
    """The kernels of a fused graph, and of the loops in it, that read one from the other."""
    guard = {n: g.guard for g in graph.groups if g.guard is not None for n in g.nodes}
    fusion = _Fusion(graph, guard)
    groups: dict[int, Group] = {}
    for group in graph.groups:
        first, *others = dict.fromkeys(fusion.owner[n] for n in group.nodes if n in fusion.owner)
        for other in others:
            fusion.join(first, other)
        groups[first] = group
    found: list[Apart] = []
    for first, second, moved in fusion.edges():
        if first in groups and second in groups:
            rule = "view" if moved else fusion.refusal(first, second) or "level"
            found.append(Apart(groups[first], groups[second], rule))
    for node in graph.nodes:
        body = body_of(node)
        if body is not None:
            found += kept_apart(body)
    return found


class _Fusion:
    """Clusters as they grow: ``owner`` gives a node's cluster, ``members`` a cluster's nodes in order, ``order`` which
    cluster reads from which, ``readers`` who reads a value through transparent views, ``escapes`` what must exist."""

    def __init__(self, graph: Graph, guard: Mapping[Node, Value], chains: bool = False):
        self.graph = graph
        self.guard = guard
        self.chains = chains
        self.index = {n: i for i, n in enumerate(graph.nodes)}
        self.results = set(graph.results)
        self.readers: dict[Value, list[Node]] = {}
        self.owner: dict[Node, int] = {}
        self.members: dict[int, list[Node]] = {}
        self.order = Precedence()
        self.links = LinksOf()
        for i, node in enumerate(graph.nodes):
            if _is_transparent(node) or is_free(node) or node.op.kind == "source":
                continue
            self.owner[node] = i
            self.members[i] = [node]
            self.order.add(i)
        for node in self.owner:
            for v in (*node.inputs, *_guard_of(node, guard)):
                root = look_through(v)[0]
                self.readers.setdefault(root, []).append(node)
                if root.node in self.owner:
                    self.order.connect(self.owner[root.node], self.owner[node])
        self.escapes = {look_through(v)[0] for v in (*self.results, *guard.values())} | self.results

    def merge(self) -> None:
        """Grow clusters along edges, producers first, until nothing more fits.

        What reads the result of a core that lies in memory anyway, and makes no less of it, joins its own readers if it
        can: behind the core it would be one more tensor to write.
        """
        self._grow(lambda value, node: not (self._behind_core(value, node) and self._lies_in_memory(value)))
        self._grow(lambda value, node: True)

    def _grow(self, wanted: Callable[[Value, Node], bool]) -> None:
        """Merge clusters along the edges, each a value and who reads it, that are ``wanted``."""
        changed = True
        while changed:
            changed = False
            for node in list(self.owner):
                if node.op.kind not in LOOP_KINDS | CORE_KINDS:
                    continue
                for v in node.inputs:
                    value = look_through(v)[0]
                    first = self.owner.get(value.node, self.owner[node])
                    if first != self.owner[node] and wanted(value, node):
                        changed |= self._try(first, self.owner[node])

    def _behind_core(self, value: Value, node: Node) -> bool:
        """Whether ``value`` is made with a core, and read by ``node`` in a kernel without, into no fewer bytes."""
        made, read = (self.members[self.owner[n]] for n in (value.node, node))
        if not _has_core(made) or _has_core(read) or node.op.kind == "reduce":
            return False
        return node.output.dtype.itemsize >= value.dtype.itemsize

    def _lies_in_memory(self, value: Value) -> bool:
        """Whether somebody reads ``value`` who can never be of one kernel with the core that made it."""
        return value in self.escapes or any(n.op.kind not in LOOP_KINDS - {"reduce"} for n in self.readers[value])

    def _try(self, first: int, second: int) -> bool:
        if self.refusal(first, second):
            return False
        self.join(first, second)
        return True

    def refusal(self, first: int, second: int) -> str:
        """The rule, of REFUSALS, by which two clusters stay apart, or an empty text."""
        if self.guard.get(self.members[first][0]) is not self.guard.get(self.members[second][0]):
            return "guard"
        both = self._both(first, second)
        inside = set(both)

        def stored(value: Value) -> bool:
            return value in self.escapes or any(n not in inside for n in self.readers.get(value, ()))

        return refusal(Cluster(both), stored, self.links, self.chains) or (
            "detour" if self.order.detour(first, second) else ""
        )

    def join(self, first: int, second: int) -> None:
        """Make two clusters one."""
        self.members[first] = self._both(first, second)
        for node in self.members.pop(second):
            self.owner[node] = first
        self.order.contract(first, second)

    def _both(self, first: int, second: int) -> list[Node]:
        return sorted(self.members[first] + self.members[second], key=self.index.__getitem__)

    def edges(self) -> Iterator[tuple[int, int, bool]]:
        """The pairs of clusters of which the second reads from the first, in order, and whether that is by a view that
        kernels cannot see through."""
        seen: set[tuple[int, int]] = set()
        for node, second in self.owner.items():
            for v in node.inputs if node.op.kind != "view" else ():
                source = look_through(v)[0].node
                moved = source.op.kind == "view"
                while source.op.kind == "view":
                    source = look_through(source.inputs[0])[0].node
                first = self.owner.get(source, second)
                if first != second and (first, second) not in seen:
                    seen.add((first, second))
                    yield first, second, moved

    def clusters(self) -> list[Cluster]:
        """What is a kernel; opaque views are none."""
        return [Cluster(nodes) for nodes in self.members.values() if nodes[0].op.kind != "view"]


def _has_core(nodes: list[Node]) -> bool:
    return any(n.op.kind in CORE_KINDS for n in nodes)


def _is_transparent(node: Node) -> bool:
    return node.op.kind == "view" and look_through(node.outputs[0])[0] is not node.outputs[0]


def _guard_of(node: Node, guard: Mapping[Node, Value]) -> tuple[Value, ...]:
    return (guard[node],) if node in guard else ()


def _arrange(graph: Graph, clusters: list[Cluster], guard: Mapping[Node, Value]) -> Graph:
    """Order clusters and loose nodes: checks first, then as traced, and the writer of a state after all its readers."""
    index = {n: i for i, n in enumerate(graph.nodes)}
    unit: dict[Node, int] = {}
    nodes: dict[int, list[Node]] = {}
    for cluster in clusters:
        key = index[cluster.nodes[-1]]
        nodes[key] = list(cluster.nodes)
        unit.update(dict.fromkeys(cluster.nodes, key))
    users = graph.users()
    for node in graph.nodes:
        if node in unit:
            continue
        # A view between two nodes of one kernel belongs inside it.
        home = unit.get(node.inputs[0].node) if node.op.kind == "view" else None
        if home is not None and _read_in(node, home, unit, users):
            nodes[home].append(node)
        else:
            home = index[node]
            nodes[home] = [node]
        unit[node] = home
    ordered = {key: tuple(sorted(nodes[key], key=index.__getitem__)) for key in _ordered(graph, unit, nodes, guard)}
    kernels = {index[c.nodes[-1]]: c for c in clusters}
    groups = tuple(
        Group(kernel_name(kernels[key]), members, guard.get(kernels[key].nodes[0]))
        for key, members in ordered.items()
        if key in kernels
    )
    return graph.with_(nodes=tuple(n for members in ordered.values() for n in members), groups=groups)


def _read_in(view: Node, home: int, unit: dict[Node, int], users: dict[Value, list[Node]]) -> bool:
    """Whether a node of the unit reads the view, directly or through further transparent views."""
    return _is_transparent(view) and any(
        unit.get(n) == home or (n not in unit and n.op.kind == "view" and _read_in(n, home, unit, users))
        for n in users[view.outputs[0]]
    )


def _ordered(
    graph: Graph, unit: dict[Node, int], nodes: dict[int, list[Node]], guard: Mapping[Node, Value]
) -> list[int]:
    """The units (clusters and loose nodes, by number) in the order that :func:`_arrange` wants."""
    dag = nx.DiGraph()
    dag.add_nodes_from(nodes)
    readers: dict[Value, set[int]] = {}
    for node, key in unit.items():
        for v in (*node.inputs, *_guard_of(node, guard)):
            source = unit.get(v.node)
            if source is not None and source != key:
                dag.add_edge(source, key)
            root = look_through(v)[0]
            readers.setdefault(root, set()).add(key)
    states = {v.node.attrs["name"]: v for v in graph.state}
    writers: set[int] = set()
    for name, new in graph.updates.items():
        writer = unit.get(look_through(new)[0].node)
        if writer is not None and states[name].node not in nodes[writer]:
            writers.add(writer)
        for reader in readers.get(states[name], ()) if writer is not None else ():
            # An impossible order (states that swap) is left to the scheduler, which writes through a copy.
            if reader != writer and not nx.has_path(dag, writer, reader):
                dag.add_edge(reader, writer)
    checks = {key for key, members in nodes.items() if any(map(has_check, members))}
    first = {k for check in checks for k in nx.ancestors(dag, check)} | checks
    rank = _ranks(dag, nodes, writers)
    return list(nx.lexicographical_topological_sort(dag, key=lambda k: (k not in first, rank[k], k)))


def _ranks(dag: nx.DiGraph, nodes: dict[int, list[Node]], writers: set[int]) -> dict[int, int]:
    """When each unit wants to run: as traced, but what writes state as soon as it can, since a gradient and the
    activations that it comes from then need not live on until the end of the step.

    Numbers that follow from state alone, such as Adam's corrections, run at the very beginning: updates wait for them.
    """
    rank: dict[int, int] = {}
    apart: set[int] = set()
    for key in nx.topological_sort(dag):
        before = dag.pred[key]
        alone = apart.issuperset(before) and all(map(_is_number_of_state, nodes[key]))
        if alone:
            apart.add(key)
        if alone or key in writers:
            rank[key] = max((rank[k] for k in before), default=0)
        else:
            rank[key] = key
    return rank


def _is_number_of_state(node: Node) -> bool:
    """Whether all that the node makes are single numbers, and none of the program's inputs goes into it directly."""
    return not any(v.shape for v in node.outputs) and not any(v.node.op.name == "input" for v in node.inputs)
