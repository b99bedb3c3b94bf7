"""Decide which nodes share a kernel, and in what order kernels run.

Every node that computes starts as a cluster of its own; clusters are merged along edges while the result is still one
kernel (passes/clusters.py) and no cycle arises among clusters. Views, numbers, sizes and indices belong to no
cluster: readers see through them, or make them on the spot.
"""

from __future__ import annotations

from collections.abc import Mapping

import networkx as nx

from engine.graph import Graph, Group, Node, Value
from engine.loops import has_check
from passes.clusters import CORE_KINDS, LOOP_KINDS, Cluster, fits
from passes.guard import guards
from passes.naming import kernel_name
from passes.reach import Precedence
from passes.views import is_free, look_through


def fuse(graph: Graph, merging: bool = True) -> Graph:
    """Annotate the graph with its kernels: ``graph.groups``, the nodes of each standing together in ``graph.nodes``.

    With ``merging`` False every node that computes is a kernel of its own (optimisation levels 0 and 1).
    """
    graph, guard = guards(graph)
    fusion = _Fusion(graph, guard)
    if merging:
        fusion.merge()
    return _arrange(graph, fusion.clusters(), guard)


class _Fusion:
    """Clusters as they grow: ``owner`` gives a node's cluster, ``members`` a cluster's nodes in order, ``order`` which
    cluster reads from which, ``readers`` who reads a value through transparent views, ``escapes`` what must exist."""

    def __init__(self, graph: Graph, guard: Mapping[Node, Value]):
        self.graph = graph
        self.guard = guard
        self.index = {n: i for i, n in enumerate(graph.nodes)}
        self.results = set(graph.results)
        self.readers: dict[Value, list[Node]] = {}
        self.owner: dict[Node, int] = {}
        self.members: dict[int, list[Node]] = {}
        self.order = Precedence()
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
        """Grow clusters along edges, producers first, until nothing more fits."""
        changed = True
        while changed:
            changed = False
            for node in list(self.owner):
                if node.op.kind not in LOOP_KINDS | CORE_KINDS:
                    continue
                for v in node.inputs:
                    source = look_through(v)[0].node
                    if source in self.owner and self.owner[source] != self.owner[node]:
                        changed |= self._try(self.owner[source], self.owner[node])

    def _try(self, first: int, second: int) -> bool:
        if self.guard.get(self.members[first][0]) is not self.guard.get(self.members[second][0]):
            return False
        both = sorted(self.members[first] + self.members[second], key=self.index.__getitem__)
        inside = set(both)

        def stored(value: Value) -> bool:
            return value in self.escapes or any(n not in inside for n in self.readers.get(value, ()))

        if not fits(Cluster(both), stored) or self.order.detour(first, second):
            return False
        self.members[first] = both
        for node in self.members.pop(second):
            self.owner[node] = first
        self.order.contract(first, second)
        return True

    def clusters(self) -> list[Cluster]:
        """What is a kernel; opaque views are none."""
        return [Cluster(nodes) for nodes in self.members.values() if nodes[0].op.kind != "view"]


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
