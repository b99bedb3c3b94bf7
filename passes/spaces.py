"""Iteration spaces: which axes of the values inside one kernel are the same loop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from engine.dims import Size
from engine.graph import Node, Value
from passes.views import is_free, look_through

Axis = Any
"""A loop of a kernel: the representative of a class of value axes."""


def reduced_axes(node: Node) -> tuple[int, ...]:
    """The input axes that a reduce node reduces."""
    return node.attrs["axes"] if "axes" in node.attrs else (node.attrs["axis"],)


class Links(NamedTuple):
    """What joins the axes of a node to those of others, whatever else is in the kernel.

    ``own`` are the axes of its outputs: each with its size, and the axis of the first output that is the same loop.
    ``reads`` says of each loop along which it reads something: the value behind all transparent views, its axis, and
    whether that is made on the spot. ``roots`` are the values behind its inputs.
    """

    own: tuple[tuple[Axis, Size, Axis], ...]
    reads: tuple[tuple[Axis, Value, Axis, bool], ...]
    reduced: frozenset[Axis]
    roots: tuple[Value, ...]


class LinksOf(dict[Node, Links]):
    """The links of each node, found once: fusion tries many kernels of the same nodes."""

    def __missing__(self, node: Node) -> Links:
        self[node] = found = _links(node)
        return found


def _links(node: Node) -> Links:
    first = node.outputs[0]
    own = tuple(((v, i), n, (first, i)) for v in node.outputs for i, n in enumerate(v.shape) if n != 1)
    through = [look_through(v) for v in node.inputs]
    reads = []
    if node.op.kind in ("elementwise", "reduce", "check", "gather"):
        for position, (root, axes) in enumerate(through):
            if node.op.kind == "gather" and position == 0:
                continue  # read from memory, wherever the index says
            free = is_free(root.node)
            for key, a in zip(_input_keys(node, position), axes, strict=True):
                if key is not None and a is not None and root.shape[a] != 1:
                    reads.append((key, root, (root, a), free))
    gone: frozenset[Axis] = frozenset()
    if node.op.kind == "reduce":
        shape = node.inputs[0].shape
        gone = frozenset(("reduced", node, i) for i in reduced_axes(node) if shape[i] != 1)
    return Links(own, tuple(reads), gone, tuple(root for root, _ in through))


def _input_keys(node: Node, position: int) -> list[Axis | None]:
    """For each axis of an input the loop that it runs along in this node, or None."""
    value, out = node.inputs[position], node.outputs[0]
    if node.op.kind == "reduce":
        gone, kept = reduced_axes(node), iter(range(len(out.shape)))
        keys: list[Axis | None] = []
        for i, size in enumerate(value.shape):
            if i not in gone or node.attrs.get("keepdims", True):
                j = next(kept)
            key = ("reduced", node, i) if i in gone else (out, j)
            keys.append(key if size != 1 else None)
        return keys
    if node.op.kind == "gather" and position == 0:
        along = node.attrs["axis"]
        return [None if i == along or n == 1 else (out, i) for i, n in enumerate(value.shape)]
    extra = len(out.shape) - len(value.shape)
    return [(out, extra + i) if size != 1 else None for i, size in enumerate(value.shape)]


class Space:
    """The loops of a kernel that computes ``nodes`` (elementwise and reduce nodes, in order, and at most one core whose
    outputs are taken as given). Axes of size 1 belong to no loop.

    Two nodes that read the same value from outside run along it together, unless that would leave no valid space (as
    for ``x + x.T``). ``valid`` is False where one value would run along one loop twice, or reductions run over
    different loops. ``links`` may hold what is known of the nodes.
    """

    def __init__(self, nodes: Sequence[Node], links: LinksOf | None = None):
        self.nodes = list(nodes)
        self.members = {v for n in nodes for v in n.outputs}
        self._links = LinksOf() if links is None else links
        self._build(sharing=True)
        if not self.valid:
            self._build(sharing=False)

    def _build(self, sharing: bool) -> None:
        self._parent: dict[Axis, Axis] = {}
        self._size: dict[Axis, Size] = {}
        for node in self.nodes:
            self._add_own(node)
        shared: dict[Axis, Axis] = {}
        for node in self.nodes:
            for key, root, axis, free in self._links[node].reads:
                if root in self.members:
                    self._join(key, axis)
                elif sharing and not free:
                    self._join(key, shared.setdefault(axis, key))
        self._axes_of = {v: self._found(v) for v in self.members}
        self.reduced = self._reductions()
        distinct = all(len(axes) == sum(n != 1 for n in v.shape) for v, axes in self._axes_of.items())
        self.valid = self.reduced is not None and distinct

    # -- classes of axes

    def _find(self, key: Axis) -> Axis:
        while self._parent[key] != key:
            self._parent[key] = self._parent[self._parent[key]]
            key = self._parent[key]
        return key

    def _join(self, a: Axis, b: Axis) -> None:
        self._parent[self._find(a)] = self._find(b)

    def _add_own(self, node: Node) -> None:
        links = self._links[node]
        for key, size, first in links.own:
            self._parent[key], self._size[key] = first, size
        for key in links.reduced:
            _, _, axis = key
            self._parent[key], self._size[key] = key, node.inputs[0].shape[axis]

    def _found(self, value: Value) -> frozenset[Axis]:
        return frozenset(self._find((value, i)) for i, size in enumerate(value.shape) if size != 1)

    def _reductions(self) -> frozenset[Axis] | None:
        reducing = [n for n in self.nodes if n.op.kind == "reduce"]
        found = {frozenset(self._find(key) for key in self._links[n].reduced) for n in reducing} - {frozenset()}
        if len(found) > 1:
            return None
        reduced = next(iter(found), frozenset())
        return None if any(reduced & self._axes_of[n.outputs[0]] for n in reducing) else reduced

    # -- answers

    def axes_of(self, value: Value) -> frozenset[Axis]:
        """The loops that a member varies along."""
        return self._axes_of[value]

    @property
    def axes(self) -> frozenset[Axis]:
        return frozenset(self._find(k) for k in self._parent)

    def axis(self, value: Value, i: int) -> Axis | None:
        """The loop that axis ``i`` of a member runs along."""
        return None if value.shape[i] == 1 else self._find((value, i))

    def size(self, axis: Axis) -> Size:
        return self._size[axis]

    def input_axes(self, node: Node, position: int) -> list[Axis | None]:
        """For each axis of an input of ``node`` the loop that it runs along, or None."""
        return [None if k is None else self._find(k) for k in _input_keys(node, position)]

    def ordered(self, hints: Iterable[Sequence[Axis | None]]) -> list[Axis]:
        """All loops, outermost first: innermost those of the first hint, in its order, around them what each later hint
        adds. Loops that no hint names (along values made on the spot) are innermost of all, by name."""
        order: list[Axis] = []
        for hint in hints:
            fresh = [a for a in hint if a is not None and a not in order]
            order = list(dict.fromkeys(fresh)) + order
        return order + sorted((a for a in self.axes if a not in order), key=str)
