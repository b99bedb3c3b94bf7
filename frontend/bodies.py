"""Tracing the body of a loop: a builder of its own, to which values from outside come as inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.dims import Size
from engine.graph import Builder, Graph, Node, TensorType, Value
from engine.op import Op
from frontend.branches import BranchingBuilder

_FREE = frozenset({"size", "iota"})


class BodyBuilder(BranchingBuilder):
    """Builds the body of a loop of ``length`` steps inside ``outer``.

    A value from outside that the body reads becomes an input; numbers, sizes and indices are made here again. Random
    numbers are drawn outside, for all steps at once, and come as a sequence.
    """

    def __init__(self, name: str, outer: BranchingBuilder, length: Size):
        super().__init__(name)
        self.outer = outer
        self.length = length
        self.assumptions = outer.assumptions
        self.captured: dict[Value, Value] = {}
        self.drawn: dict[Value, Value] = {}
        self._repeated: dict[Value, Value] = {}
        self._mine: set[Value] = set()

    def port(self, name: str, type: TensorType) -> Value:
        made = super().port(name, type)
        self._mine.add(made)
        return made

    def add(self, op: Op, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> tuple[Value, ...]:
        if op.kind == "random":
            shape = (self.length, *attrs["shape"])
            (every,) = self.outer.add(op, inputs, {**attrs, "shape": shape})
            self.drawn[every] = self.port("drawn", TensorType(shape[1:], every.dtype))
            return (self.drawn[every],)
        outputs = super().add(op, tuple(map(self.here, inputs)), attrs)
        self._mine.update(outputs)
        return outputs

    def here(self, value: Value) -> Value:
        """What stands for ``value`` in the body."""
        if value in self._mine:
            return value
        node = value.node
        if node.is_literal or node.op.name in _FREE:
            if value not in self._repeated:
                (self._repeated[value],) = Builder.add(self, node.op, (), node.attrs)
                self._mine.add(self._repeated[value])
            return self._repeated[value]
        outside = self.outer.here(value) if isinstance(self.outer, BodyBuilder) else value
        if outside not in self.captured:
            self.captured[outside] = self.port(_name(node), value.type)
        return self.captured[outside]

    def sees(self, other: Builder) -> bool:
        return other is self or self.outer.sees(other)

    def body(self, carries: Sequence[Value], sequences: Sequence[Value], results: Sequence[Value]) -> Graph:
        """The graph, with its inputs in the order of the op."""
        outputs = tuple(map(self.here, results))  # which may come from outside, and then are inputs too
        inputs = (*carries, *sequences, *self.drawn.values(), *self.captured.values())
        return Graph(self.name, inputs, (), tuple(self.nodes), outputs)


def _name(node: Node) -> str:
    return str(node.attrs["name"]) if node.op.name in ("input", "state") else "captured"
