"""Iteration spaces: which axes of the values inside one kernel are the same loop."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from engine.dims import Size
from engine.graph import Node, Value
from passes.views import is_free, look_through

Axis = Hashable
"""A loop of a kernel: the representative of a class of value axes."""


def reduced_axes(node: Node) -> tuple[int, ...]:
    """The input axes that a reduce node reduces."""
    return node.attrs["axes"] if "axes" in node.attrs else (node.attrs["axis"],)


class Space:
    """The loops of a kernel that computes ``nodes`` (elementwise and reduce nodes, in order, and at most one core whose
    outputs are taken as given). Axes of size 1 belong to no loop.

    Two nodes that read the same value from outside run along it together, unless that would leave no valid space (as
    for ``x + x.T``). ``valid`` is False where one value would run along one loop twice, or reductions run over
    different loops.
    """

    def __init__(self, nodes: Sequence[Node]):
        self.nodes = list(nodes)
        self.members = {v for n in nodes for v in n.outputs}
        self._build(sharing=True)
        if not self.valid:
            self._build(sharing=False)

    def _build(self, sharing: bool) -> None:
        self._parent: dict[Axis, Axis] = {}
        self._size: dict[Axis, Size] = {}
        self._shared: dict[tuple[Value, int], Axis] | None = {} if sharing else None
        for node in self.nodes:
            self._add(node)
        self.reduced = self._reductions()
        self.valid = self.reduced is not None and all(self._distinct(v) for v in self.members)

    # -- classes of axes

    def _find(self, key: Axis) -> Axis:
        while self._parent[key] != key:
            self._parent[key] = self._parent[self._parent[key]]
            key = self._parent[key]
        return key

    def _key(self, key: Axis, size: Size) -> Axis:
        self._parent.setdefault(key, key)
        self._size.setdefault(key, size)
        return key

    def _join(self, a: Axis, b: Axis) -> None:
        self._parent[self._find(a)] = self._find(b)

    def _own(self, value: Value, axis: int) -> Axis:
        return self._key((value, axis), value.shape[axis])

    def _add(self, node: Node) -> None:
        first = node.outputs[0]
        for out in node.outputs:
            for i, size in enumerate(out.shape):
                if size != 1:
                    self._join(self._own(out, i), self._own(first, i))
        if node.op.kind not in ("elementwise", "reduce", "check", "gather"):
            return
        for position, value in enumerate(node.inputs):
            if node.op.kind == "gather" and position == 0:
                continue  # read from memory, wherever the index says
            root, axes = look_through(value)
            for i, key in enumerate(self._input_keys(node, position)):
                a = axes[i]
                if key is None or a is None or root.shape[a] == 1:
                    continue
                if root in self.members:
                    self._join(key, self._own(root, a))
                elif self._shared is not None and not is_free(root.node):
                    self._join(key, self._shared.setdefault((root, a), key))

    def _input_keys(self, node: Node, position: int) -> list[Axis | None]:
        """For each axis of an input the loop that it runs along in this node, or None."""
        value, out = node.inputs[position], node.outputs[0]
        keys: list[Axis | None] = []
        if node.op.kind == "reduce":
            gone = reduced_axes(node)
            kept = iter(range(len(out.shape)))
            for i, size in enumerate(value.shape):
                if i in gone:
                    if node.attrs["keepdims"]:
                        next(kept)
                    keys.append(self._key(("reduced", node, i), size) if size != 1 else None)
                else:
                    j = next(kept)
                    keys.append(self._own(out, j) if size != 1 else None)
            return keys
        if node.op.kind == "gather" and position == 0:
            along = node.attrs["axis"]
            return [None if i == along or n == 1 else self._own(out, i) for i, n in enumerate(value.shape)]
        extra = len(out.shape) - len(value.shape)
        return [self._own(out, extra + i) if size != 1 else None for i, size in enumerate(value.shape)]

    def _reductions(self) -> frozenset[Axis] | None:
        found: set[frozenset[Axis]] = set()
        for node in self.nodes:
            if node.op.kind == "reduce":
                value = node.inputs[0]
                keys = self._input_keys(node, 0)
                found.add(frozenset(self._find(keys[i]) for i in reduced_axes(node) if value.shape[i] != 1))
        found.discard(frozenset())
        if len(found) > 1:
            return None
        reduced = next(iter(found), frozenset())
        for node in self.nodes:
            if node.op.kind == "reduce" and reduced & self.axes_of(node.outputs[0]):
                return None
        return reduced

    def _distinct(self, value: Value) -> bool:
        keys = [self._find((value, i)) for i, size in enumerate(value.shape) if size != 1]
        return len(keys) == len(set(keys))

    # -- answers

    def axes_of(self, value: Value) -> frozenset[Axis]:
        """The loops that a member varies along."""
        return frozenset(self._find((value, i)) for i, size in enumerate(value.shape) if size != 1)

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
        return [None if k is None else self._find(k) for k in self._input_keys(node, position)]

    def ordered(self, hints: Iterable[Sequence[Axis | None]]) -> list[Axis]:
        """All loops, outermost first: innermost those of the first hint, in its order, around them what each later hint
        adds. Loops that no hint names (along values made on the spot) are innermost of all, by name."""
        order: list[Axis] = []
        for hint in hints:
            fresh = [a for a in hint if a is not None and a not in order]
            order = list(dict.fromkeys(fresh)) + order
        return order + sorted((a for a in self.axes if a not in order), key=str)
