"""Where values lie while a graph is scheduled: buffers, views of what lies there, and copies where it must not stay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from engine.buffers import Buffer
from engine.dims import Shape, Size
from engine.dtypes import DType
from engine.graph import Graph, Node, Value
from engine.schedule import Access, Core, KernelSpec, Loop, Stmt
from passes.bodies import Body, Operands
from passes.spaces import Axis, Space
from passes.views import View, dense, is_free, view_of

# The names of the buffers that a program's ports are carried in.


def input_buffer(name: str) -> str:
    return f"input.{name}"


def state_buffer(name: str) -> str:
    return f"state.{name}"


def output_buffer(index: int) -> str:
    return f"output.{index}"


class Places:
    """The buffers of a schedule in the making, its kernels, and for each value where it lies.

    ``homes`` says where a value that is still to be made will go. A loop's body has places of its own, among the same
    ``buffers``, with ``prefix`` before the names of its own.
    """

    def __init__(self, graph: Graph, prefix: str, buffers: dict[str, Buffer]):
        self.graph = graph
        self.prefix = prefix
        self.buffers = buffers
        self.kernels: list[KernelSpec | Loop] = []
        self.views: dict[Value, View] = {}
        self.homes: dict[Value, View] = {}
        self.outputs: list[View] = []
        self.guard: Access | None = None

    def buffer(self, name: str, kind: str, dtype: DType, size: Size) -> str:
        name = self.prefix + name
        self.buffers[name] = Buffer(name, kind, dtype, size)
        return name

    def place(self, value: Value, name: str, kind: str, order: tuple[int, ...] | None = None) -> View:
        name = self.buffer(name, kind, value.dtype, value.type.size)
        self.views[value] = dense(name, value.shape, order)
        return self.views[value]

    def temporary(self, value: Value, suffix: str = "", order: tuple[int, ...] | None = None) -> View:
        name = self.buffer(f"{value.name}{suffix}", "temp", value.dtype, value.type.size)
        return dense(name, value.shape, order)

    def view(self, value: Value) -> View:
        """Where a value lies; a view is followed, and what has no memory yet is copied into some."""
        if value not in self.views:
            with self.under(None):  # others may read it too
                self.find(value)
        return self.views[value]

    @contextmanager
    def under(self, guard: Access | None) -> Iterator[None]:
        """Kernels added meanwhile run under ``guard``."""
        outer, self.guard = self.guard, guard
        try:
            yield
        finally:
            self.guard = outer

    def add(self, kernel: KernelSpec) -> None:
        if self.prefix:  # a loop's body names its nodes as other graphs do
            kernel = replace(kernel, nodes=tuple(self.prefix + name for name in kernel.nodes))
        self.kernels.append(replace(kernel, guard=self.guard) if self.guard is not None else kernel)

    def find(self, value: Value) -> None:
        node = value.node
        if is_free(node):
            self.views[value] = self.temporary(value)
            self.copy(value, self.views[value])
        elif node.op.name == "constant":
            self.place(value, value.name, "const")
        elif node.op.kind in ("view", "check"):
            self.views[value] = self.through(node)
        else:
            raise AssertionError(f"{value.name} is read before it is made")

    def through(self, node: Node) -> View:
        source, value = self.view(node.inputs[0]), node.output
        order = self.graph.layouts.get(value)
        found = view_of(node, source)
        if found is not None and (order is None or found.order == order):
            return found
        if found is None:
            # A reshape whose elements must move: written in row-major order of the old shape, read under the new one.
            wanted = [i for i, v in enumerate(self.graph.outputs) if v is value]
            if wanted:
                packed = dense(output_buffer(wanted[0]), node.inputs[0].shape)
            else:
                packed = self.temporary(node.inputs[0], f"_for_{value.name}")
            self.copy(node.inputs[0], packed)
            return dense(packed.buffer, value.shape)
        copied = self.temporary(value, order=order)
        self.copy(node.inputs[0], copied)
        return copied

    def copy(self, value: Value, into: View, dtype: DType | None = None, source: View | None = None) -> None:
        """Write ``value`` where ``into`` says, in another dtype or from another place where told."""
        dtype = dtype or value.dtype
        axes = [i for i in into.order if value.shape[i] != 1]
        loops: list[Axis | None] = [("copy", i) if i in axes else None for i in range(len(value.shape))]
        placement: dict[Axis, list[tuple[int, Size]]] = {("copy", i): [(place, 1)] for place, i in enumerate(axes)}
        operands = Operands()
        body = Body(operands, Space([]), placement, len(axes), lambda v: source or self.view(v))
        name = body.cast(body.load(value, loops), dtype.computed)
        write = Access(into.buffer, dtype, tuple(into.strides[i] for i in axes), into.offset)
        body.emit("store", (operands.write(write), name), dtype.computed)
        self.add(
            KernelSpec(
                "copy" if dtype == value.dtype else "cast",
                tuple(value.shape[i] for i in axes),
                tuple(operands.reads),
                tuple(operands.writes),
                tuple(body.statements),
                nodes=(value.node.name,),
                location=value.node.location,
            )
        )

    def home(self, value: Value) -> View:
        return self.homes.get(value) or self.temporary(value, order=self.graph.layouts.get(value))

    def fresh(self, value: Value) -> Access:
        """Where a kernel writes ``value``: never over state, which it may read again."""
        if value in self.homes and self.buffers[self.homes[value].buffer].kind == "state":
            del self.homes[value]
        self.views[value] = home = self.home(value)
        return Access(home.buffer, value.dtype, home.strides, home.offset)

    def rows(self, value: Value, name: str) -> Access:
        """``value`` with a contiguous last axis: where it is, or in a copy."""
        view = self.view(value)
        if view.strides[-1] != 1 and value.shape[-1] != 1:
            copied = self.temporary(value, name.removeprefix(value.name))
            self.copy(value, copied)
            view = copied
        return Access(view.buffer, value.dtype, view.strides, view.offset)

    def packed(self, value: Value, name: str) -> Access:
        """``value`` as a C-contiguous array in the dtype that kernels compute with: where it is, or in a copy."""
        view, strides = self.view(value), dense("", value.shape).strides
        wide = value.dtype.computed
        moved = any(n != 1 and a != b for n, a, b in zip(value.shape, view.strides, strides, strict=True))
        if not moved and wide == value.dtype:
            return Access(view.buffer, wide, strides, view.offset)
        packed = Access(self.buffer(name, "temp", wide, value.type.size), wide, strides)
        self.convert(value, self.access(value, value.shape), packed)
        return packed

    def convert(self, value: Value, source: Access, target: Access) -> None:
        """Copy the elements of ``value`` from one place and dtype to another."""
        wide = value.dtype.computed
        body = (Stmt("v0", "load", (0,), wide), Stmt("v1", "store", (0, "v0"), wide))
        names, where = (value.node.name,), value.node.location
        spec = KernelSpec("copy", value.shape, (source,), (target,), body, nodes=names, location=where)
        self.add(spec)

    def access(self, value: Value, space: Shape) -> Access:
        """``value``, broadcast to ``space``, read along its axes."""
        view = self.view(value)
        extra = len(space) - len(value.shape)
        strides = [0] * extra + [0 if n == 1 else s for n, s in zip(value.shape, view.strides, strict=True)]
        return Access(view.buffer, value.dtype, tuple(strides), view.offset)

    def plain_kernel(
        self, node: Node, name: str, axes: Shape, reads: tuple[Access, ...], writes: tuple[Access, ...], core: Core
    ) -> KernelSpec:
        """A kernel whose core writes its results itself."""
        return KernelSpec(name, axes, reads, writes, (), core, nodes=(node.name,), location=node.location)

    def keep_out_of_state(self, node: Node) -> None:
        """Let the results of a node that writes them while it still reads be copied into state afterwards."""
        for v in node.outputs:
            if v in self.homes and self.buffers[self.homes[v].buffer].kind == "state":
                del self.homes[v]
