"""Where a loop keeps what goes from step to step, and through which windows its body sees it.

A carry has room for two: a step reads one and writes the other, and the next step the other way round. Where the loop
keeps the carry of every step, or what becomes of it, the carry lives in the sequence that is kept: one longer than the
loop, it holds the first carry and all later ones, and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from engine import dims
from engine.buffers import Buffer
from engine.dims import Shape, Size
from engine.dtypes import DType
from engine.graph import Graph, Node, Value
from passes.views import View, dense


class LoopPlan:
    """``body`` is the loop's with the results that it must write, to ``outputs``; ``inputs`` says where its inputs are.
    ``before`` is to be copied first; ``results`` tells where the loop's outputs lie, once all of them are kept."""

    def __init__(self, node: Node, prefix: str, view: Callable[[Value], View]):
        self.prefix = f"{prefix}{node.name}."
        self.node, self.graph = node, node.attrs["body"]
        self.length, self.reverse = node.attrs["length"], node.attrs["reverse"]
        self.buffers: list[Buffer] = []
        self.inputs: dict[Value, View] = {}
        self.outputs: list[View] = []
        self.results: dict[Value, View] = {}
        self.before: list[tuple[Value, View]] = []
        count, last = node.attrs["carries"], node.attrs["carries"] + node.attrs["sequences"]
        self._written = list(self.graph.outputs[:count])
        for i, new in enumerate(self._written):
            old = self.graph.inputs[i]
            kept = list(zip(node.outputs[count:], self.graph.outputs[count:], strict=True))
            of_old, of_new = ([v for v, inner in kept if inner is carry] for carry in (old, new))
            if of_old or of_new:
                self._in_sequence(i, old, of_old, of_new)
            else:
                self._in_turns(i, old)
        for i, (port, value) in enumerate(zip(self.graph.inputs, node.inputs, strict=True)):
            if i >= last:
                self.inputs[port] = view(value)
            elif i >= count:
                self.inputs[port] = self._step_of(f"input{i}", value, view(value))

    @property
    def body(self) -> Graph:
        return self.graph.with_(outputs=tuple(self._written))

    @property
    def windows(self) -> tuple[str, ...]:
        return tuple(b.name for b in self.buffers if b.kind == "window")

    def keep(self, output: Value, home: View) -> None:
        """Let the body write an output that is kept of every step to ``home``."""
        self.results[output] = home
        self._written.append(self.graph.outputs[output.index])
        self.outputs.append(self._step_of(f"output{output.index}", output, home))

    def _step_of(self, what: str, value: Value, whole: View) -> View:
        """What one step sees of a sequence that lies at ``whole``."""
        step, start = whole.strides[0], whole.offset
        if self.reverse:
            start, step = start + (self.length - 1) * step, -step
        name = self._window(what, value.dtype, value.shape[1:], whole.buffer, start, step)
        return View(name, whole.strides[1:], tuple(a - 1 for a in whole.order if a != 0))

    def _in_turns(self, i: int, carry: Value) -> None:
        size = carry.type.size
        both = self._room(f"carry{i}", carry, 2 * size)
        old = self._window(f"carry{i}.old", carry.dtype, carry.shape, both, 0, size, alternates=True)
        new = self._window(f"carry{i}.new", carry.dtype, carry.shape, both, size, -size, alternates=True)
        self._carried(i, carry, old, new, both, 0, self.length % 2 * size)

    def _in_sequence(self, i: int, carry: Value, of_old: list[Value], of_new: list[Value]) -> None:
        size = carry.type.size
        every = self._room(f"carry{i}", carry, (self.length + 1) * size)
        first, last, step = (self.length * size, 0, -size) if self.reverse else (0, self.length * size, size)
        old = self._window(f"carry{i}.old", carry.dtype, carry.shape, every, first, step)
        new = self._window(f"carry{i}.new", carry.dtype, carry.shape, every, first + step, step)
        self._carried(i, carry, old, new, every, first, last)
        for outputs, offset in ((of_old, size if self.reverse else 0), (of_new, 0 if self.reverse else size)):
            for v in outputs:
                self.results[v] = replace(dense(every, v.shape), offset=offset)

    def _carried(self, i: int, carry: Value, old: str, new: str, room: str, first: Size, last: Size) -> None:
        self.inputs[carry] = dense(old, carry.shape)
        self.outputs.append(dense(new, carry.shape))
        self.before.append((self.node.inputs[i], replace(dense(room, carry.shape), offset=first)))
        self.results[self.node.outputs[i]] = replace(dense(room, carry.shape), offset=last)

    def _room(self, what: str, carry: Value, size: Size) -> str:
        self.buffers.append(Buffer(self.prefix + what, "temp", carry.dtype, size))
        return self.buffers[-1].name

    def _window(
        self, what: str, dtype: DType, shape: Shape, within: str, start: Size, step: Size, alternates: bool = False
    ) -> str:
        name = self.prefix + what
        self.buffers.append(Buffer(name, "window", dtype, dims.product(shape), within, start, step, alternates))
        return name
