"""Write the scalar body of a kernel: loads, one statement an operation, stores."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

from engine import dims, dtypes, scalar
from engine.dims import Size
from engine.dtypes import DType
from engine.graph import Node, Value
from engine.schedule import Access, Stmt
from passes.spaces import Axis, Space, reduced_axes
from passes.views import View, dense, is_free, look_through

Placement = Mapping[Axis, list[tuple[int, Size]]]
"""Where a loop lies among a kernel's axes: indices with factors (an axis split over two has two)."""


class Operands:
    """The buffers of one kernel, shared by its bodies; equal accesses are one."""

    def __init__(self) -> None:
        self.reads: list[Access] = []
        self.writes: list[Access] = []
        self.numbers = itertools.count()

    def read(self, access: Access) -> int:
        if access not in self.reads:
            self.reads.append(access)
        return self.reads.index(access)

    def write(self, access: Access) -> int:
        self.writes.append(access)
        return len(self.writes) - 1


class Body:
    """Statements at the points of one iteration space of ``rank`` axes; ``placement`` says where its loops lie."""

    def __init__(
        self, operands: Operands, space: Space, placement: Placement, rank: int, view: Callable[[Value], View]
    ):
        self.operands = operands
        self.space = space
        self.placement = placement
        self.rank = rank
        self.view = view
        self.statements: list[Stmt] = []
        self.names: dict[Value, str] = {}
        self._types: dict[str, DType] = {}
        self._known: dict[tuple[object, ...], str] = {}

    # -- statements

    def emit(
        self, op: str, args: tuple[str | int | float | bool, ...], dtype: DType, sizes: tuple[Size, ...] = ()
    ) -> str:
        """Append a statement, or find the equal one before it, and return its name."""
        key = (op, repr(args), dtype, sizes)  # in a repr 0.0, -0.0, 0 and False are four
        if key not in self._known:
            name = f"v{next(self.operands.numbers)}"
            self.statements.append(Stmt(name, op, args, dtype, sizes))
            self._types[name] = dtype
            self._known[key] = name
        return self._known[key]

    def cast(self, name: str, dtype: DType) -> str:
        return name if self._types[name] == dtype else self.emit("cast", (name,), dtype)

    def number(self, value: int | float | bool, dtype: DType) -> str:
        """A constant, rounded to ``dtype``: those that a gradient has rounded already are the same as a formula's."""
        if dtype.is_float:
            return self.emit("const", (float(dtype.computed.numpy.type(value)),), dtype)
        return self.emit("const", (bool(value) if dtype == dtypes.bool_ else int(value),), dtype)

    # -- where things are

    def strides(self, loops: list[Axis | None], strides: tuple[Size, ...]) -> tuple[Size, ...]:
        """Strides over the kernel's axes of something that moves by ``strides[i]`` along ``loops[i]``."""
        found: list[Size] = [0] * self.rank
        for loop, stride in zip(loops, strides, strict=True):
            for index, factor in self.placement[loop] if loop is not None else ():
                found[index] = found[index] + stride * factor
        return tuple(found)

    def access(self, value: Value, loops: list[Axis | None]) -> Access:
        view = self.view(value)
        return Access(view.buffer, value.dtype, self.strides(loops, view.strides), view.offset)

    def loops(self, value: Value) -> list[Axis | None]:
        """The loops that the axes of a member run along."""
        return [self.space.axis(value, i) for i in range(len(value.shape))]

    # -- values

    def load(self, value: Value, loops: list[Axis | None]) -> str:
        """The name of an operand read along ``loops``: computed here, made on the spot, or loaded."""
        root, axes = look_through(value)
        if root in self.names:
            return self.names[root]
        if is_free(root.node):
            return self._free(root.node, [None if a is None else (a, loops[i]) for i, a in enumerate(axes)])
        index = self.operands.read(self.access(value, loops))
        return self.emit("load", (index,), value.dtype.computed)

    def _free(self, node: Node, axes: list[tuple[int, Axis | None] | None]) -> str:
        dtype = node.output.dtype.computed
        match node.op.name:
            case "constant":
                return self.number(node.attrs["value"].item(), dtype)
            case "size":
                return self.cast(self.emit("size", (), dtypes.i64, (node.attrs["size"],)), dtype)
        along: list[Axis | None] = [pair[1] for pair in axes if pair is not None and pair[0] == node.attrs["axis"]]
        return self.cast(self.index(along, (1,) * len(along)), dtype)

    def index(self, loops: list[Axis | None], strides: tuple[Size, ...]) -> str:
        return self.emit("index", (), dtypes.i64, self.strides(loops, strides))

    def compute(self, node: Node) -> None:
        """The statements of an elementwise, reduce, random or gather node."""
        if node.op.kind == "gather":
            self.names[node.output] = self._gather(node)
            return
        args = [self.load(v, self.space.input_axes(node, i)) for i, v in enumerate(node.inputs)]
        if node.op.name == "moments":
            self._twice(node, args[0])
            return
        match node.op.kind:
            case "elementwise":
                name = self._elementwise(node, args)
            case "reduce":
                name = self._reduce(node, args[0])
            case "random":
                name = self._random(node, args)
            case kind:
                raise AssertionError(kind)
        self.names[node.output] = self.cast(name, node.output.dtype.computed)

    def _elementwise(self, node: Node, args: list[str]) -> str:
        if node.op.name == "cast":
            return self.cast(args[0], node.attrs["dtype"])  # rounds to the types that are only stored, too
        assert node.op.expression is not None
        known = dict(zip(node.op.inputs, args, strict=True))
        types = tuple(v.dtype for v in node.inputs)
        for line in scalar.typed(node.op.expression, node.op.inputs, types):
            operands = tuple(
                self.cast(known[a], t) if isinstance(a, str) else self.number(a, t)
                for a, t in zip(line.args, line.arg_types, strict=True)
            )
            known[line.name] = operands[0] if line.op == "identity" else self.emit(line.op, operands, line.result)
        return known[line.name]

    def _reduce(self, node: Node, value: str) -> str:
        out = node.output.dtype.computed
        axes = [a for a in reduced_axes(node) if node.inputs[0].shape[a] != 1]
        if node.op.name in ("argmax", "argmin"):
            if not axes:
                return self.number(0, out)
            loops = self.space.input_axes(node, 0)
            return self.emit(f"reduce_{node.op.name}", (value, self.index([loops[axes[0]]], (1,))), dtypes.i64)
        inside = dtypes.u8 if out == dtypes.bool_ else out
        value = self.cast(value, inside)
        return self.emit(f"reduce_{node.op.name}", (value,), inside) if axes else value

    def measure(self, node: Node) -> None:
        """The mean and the variance of what a convolution makes, which its kernel takes."""
        value = self.load(node.inputs[0], self.space.input_axes(node, 0))
        for out, op in zip(node.outputs, ("reduce_mean", "reduce_variance"), strict=True):
            self.names[out] = self.emit(op, (value,), out.dtype)

    def _twice(self, node: Node, value: str) -> None:
        """The mean, then the variance, by two sums."""
        dtype = node.outputs[0].dtype.computed
        size = dims.product(node.inputs[0].shape[a] for a in reduced_axes(node))
        count = self.cast(self.emit("size", (), dtypes.i64, (size,)), dtype)
        mean, variance = node.outputs
        self.names[mean] = self.emit("div", (self.emit("reduce_sum", (value,), dtype), count), dtype)
        squares = self.emit("square", (self.emit("sub", (value, self.names[mean]), dtype),), dtype)
        self.names[variance] = self.emit("div", (self.emit("reduce_sum", (squares,), dtype), count), dtype)

    def _gather(self, node: Node) -> str:
        x = node.inputs[0]
        index = self.cast(self.load(node.inputs[1], self.space.input_axes(node, 1)), dtypes.i64)
        access = self.access(x, self.space.input_axes(node, 0))
        along = self.view(x).strides[node.attrs["axis"]]
        return self.emit("load_at", (self.operands.read(access), index), x.dtype.computed, (along,))

    def _random(self, node: Node, args: list[str]) -> str:
        out = node.output
        index = self.index(self.loops(out), dense("", out.shape).strides)
        return self.emit("uniform", (*args, node.attrs["stream"], index), out.dtype)

    def store(self, value: Value, view: View) -> None:
        """Write a member to where ``view`` puts it."""
        access = Access(view.buffer, value.dtype, self.strides(self.loops(value), view.strides), view.offset)
        index = self.operands.write(access)
        self.emit("store", (index, self.names[value]), value.dtype.computed)
