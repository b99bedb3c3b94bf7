"""The graph: typed values, nodes, and a functional program over named state."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from engine import dims
from engine.dims import Assumption, Shape
from engine.dtypes import DType
from engine.errors import SourceLocation, TraceError, user_location
from engine.names import identifier
from engine.records import dataclass
from engine.rewrites import Rewrite, listeners

if TYPE_CHECKING:
    from engine.op import Op


@dataclass(frozen=True)
class TensorType:
    """The shape and dtype of a value."""

    shape: Shape
    dtype: DType

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> dims.Size:
        """The number of elements."""
        return dims.product(self.shape)

    def __str__(self) -> str:
        if not self.shape:
            return f"{self.dtype}[()]"
        sizes = (str(s) if isinstance(s, int) else f'"{s}"' for s in self.shape)
        return f"{self.dtype}[{', '.join(sizes)}]"


class Value:
    """One output of a node. Compared by identity; arithmetic builds nodes in the current builder."""

    __slots__ = ("index", "node", "type")

    def __init__(self, node: Node, index: int, type: TensorType):
        self.node = node
        self.index = index
        self.type = type

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def name(self) -> str:
        """Unique in its graph; the same in every pass that keeps the node."""
        return self.node.name if len(self.node.outputs) == 1 else f"{self.node.name}_{self.index}"

    def __repr__(self) -> str:
        return f"{self.name}: {self.type}"

    def __add__(self, other: Value | float) -> Value:
        return apply("add", self, other)

    def __radd__(self, other: float) -> Value:
        return apply("add", other, self)

    def __sub__(self, other: Value | float) -> Value:
        return apply("sub", self, other)

    def __rsub__(self, other: float) -> Value:
        return apply("sub", other, self)

    def __mul__(self, other: Value | float) -> Value:
        return apply("mul", self, other)

    def __rmul__(self, other: float) -> Value:
        return apply("mul", other, self)

    def __truediv__(self, other: Value | float) -> Value:
        return apply("div", self, other)

    def __neg__(self) -> Value:
        return apply("neg", self)


class Node:
    """One application of an op. ``attrs`` hold hashable, printable values (a ``constant`` holds its array,
    a loop the graph of its body)."""

    __slots__ = ("attrs", "inputs", "location", "name", "op", "outputs")

    def __init__(
        self,
        op: Op,
        inputs: tuple[Value, ...],
        attrs: Mapping[str, Any],
        types: tuple[TensorType, ...],
        name: str,
        location: SourceLocation | None,
    ):
        self.op = op
        self.inputs = inputs
        self.attrs = dict(attrs)
        self.name = name
        self.location = location
        self.outputs = tuple(Value(self, i, t) for i, t in enumerate(types))

    @property
    def output(self) -> Value:
        """The only output."""
        (value,) = self.outputs
        return value

    @property
    def is_literal(self) -> bool:
        """Whether it is a scalar constant: a number, whose place and name in the graph mean nothing."""
        return self.op.name == "constant" and not self.outputs[0].shape

    def __repr__(self) -> str:
        return f"{self.name} = {self.op.name}({', '.join(v.name for v in self.inputs)})"


@dataclass(frozen=True)
class Group:
    """Nodes that the fuse pass put in one kernel, in order; ``name`` says what the kernel does. It runs where the bool
    scalar ``guard``, if there is one, is true."""

    name: str
    nodes: tuple[Node, ...]
    guard: Value | None = None


@dataclass(frozen=True, eq=False)
class Graph:
    """A functional program: ``outputs`` and new ``state`` from ``inputs`` and old state.

    ``inputs`` and ``state`` are the outputs of nodes whose op is ``input`` or ``state``; ``nodes`` are all the others,
    in an order in which every value is made before it is used. ``updates`` gives state its new value. ``layouts`` holds
    the physical order of axes (outermost first) of values that are not row-major, ``groups`` the kernels once fused.
    ``rewrites`` tells how the graph came from the one before the last pass, where somebody asked for it.
    """

    name: str
    inputs: tuple[Value, ...]
    state: tuple[Value, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Value, ...]
    updates: Mapping[str, Value] = field(default_factory=dict)
    assumptions: tuple[Assumption, ...] = ()
    layouts: Mapping[Value, tuple[int, ...]] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()
    rewrites: tuple[Rewrite, ...] = ()

    def with_(self, **changes: Any) -> Graph:
        return replace(self, **changes)

    @property
    def results(self) -> tuple[Value, ...]:
        """Everything the graph must make: outputs, then the new values of state."""
        return (*self.outputs, *self.updates.values())

    def users(self) -> dict[Value, list[Node]]:
        """The nodes that read each value, a node once for each time it reads it."""
        found: dict[Value, list[Node]] = {v: [] for n in self.all_nodes() for v in n.outputs}
        for node in self.nodes:
            for v in node.inputs:
                found[v].append(node)
        return found

    def all_nodes(self) -> Iterator[Node]:
        """Inputs, state, then the others."""
        yield from (v.node for v in self.inputs)
        yield from (v.node for v in self.state)
        yield from self.nodes

    def dims(self) -> list[str]:
        """The names of the dims in the inputs' shapes, in order of appearance."""
        found: dict[str, None] = {}
        for v in self.inputs:
            for size in v.shape:
                found.update(dict.fromkeys(sorted(dims.names(size))))
        return list(found)

    def __str__(self) -> str:
        from engine.text import to_text  # the printer needs every op; the graph needs none

        return to_text(self)


class Builder:
    """Collects nodes into a graph. ``with builder:`` makes it the one that :func:`apply` adds to."""

    def __init__(self, name: str = "graph", first_number: int = 0):
        self.name = name
        self.nodes: list[Node] = []
        self.inputs: list[Value] = []
        self.state: dict[str, Value] = {}
        self.updates: dict[str, Value] = {}
        self.assumptions: list[Assumption] = []
        self._numbers = itertools.count(first_number)
        self._location: SourceLocation | None = None
        self._names: set[str] = set()

    def __enter__(self) -> Builder:
        _stack().append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        _stack().pop()

    @contextmanager
    def at(self, location: SourceLocation | None) -> Iterator[None]:
        """Nodes added meanwhile belong to ``location`` instead of the caller's line."""
        outer, self._location = self._location, location
        try:
            yield
        finally:
            self._location = outer

    def _port(self, op: str, name: str, type: TensorType) -> Value:
        from engine.op import get

        return Node(get(op), (), {"name": name}, (type,), self._unique(identifier(name)), user_location()).output

    def input(self, name: str, type: TensorType) -> Value:
        """A new input."""
        self.inputs.append(self._port("input", name, type))
        return self.inputs[-1]

    def port(self, name: str, type: TensorType) -> Value:
        """A new input of a loop's body, under ``name`` or, where that is taken, one like it."""
        from engine.op import get

        name = self._unique(identifier(name))
        location = self._location or user_location()
        self.inputs.append(Node(get("input"), (), {"name": name}, (type,), name, location).output)
        return self.inputs[-1]

    def state_input(self, name: str, type: TensorType) -> Value:
        """The old value of the state ``name``."""
        if name not in self.state:
            self.state[name] = self._port("state", name, type)
        return self.state[name]

    def _unique(self, wanted: str) -> str:
        name = wanted
        for i in itertools.count(1):
            if name not in self._names:
                break
            name = f"{wanted}_{i}"
        self._names.add(name)
        return name

    def add(self, op: Op, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> tuple[Value, ...]:
        """Infer the types and append the node."""
        location = self._location or user_location()
        with dims.recording(self.assumptions):
            full = op.complete(attrs)
            types = op.infer(tuple(v.type for v in inputs), full)
        node = Node(op, inputs, full, types, self._unique(f"t{next(self._numbers)}"), location)
        self.nodes.append(node)
        return node.outputs

    def nested(self, name: str) -> Builder:
        """A builder of a graph inside this one: what it assumes of sizes, this one does, and so for lines."""
        inner = type(self)(name)
        inner.assumptions, inner._location = self.assumptions, self._location
        return inner

    def sees(self, other: Builder) -> bool:
        """Whether values that ``other`` has made may be used here."""
        return other is self

    def take_input(self, value: Value) -> None:
        """Make an input of another graph one of this graph's, as it is."""
        self._names.add(value.node.name)
        self.inputs.append(value)

    def adopt(self, node: Node) -> None:
        """Append a node as it is; its inputs must be in this graph already."""
        self._names.add(node.name)
        self.nodes.append(node)

    def build(self, outputs: Iterable[Value], updates: Mapping[str, Value] | None = None) -> Graph:
        return Graph(
            self.name,
            tuple(self.inputs),
            tuple(self.state.values()),
            tuple(self.nodes),
            tuple(outputs),
            dict(self.updates if updates is None else updates),
            tuple(self.assumptions),
        )


_local = threading.local()


def _stack() -> list[Builder]:
    if not hasattr(_local, "stack"):
        _local.stack = []
    return _local.stack


def current_builder() -> Builder:
    """The innermost active builder of this thread. Raises TraceError outside of tracing."""
    stack = _stack()
    if not stack:
        raise TraceError(
            "this op needs a traced program: call it inside a function given to tn.compile, tn.function or tn.grad"
        )
    return stack[-1]


def tracing() -> bool:
    return bool(_stack())


def constant(value: object, dtype: DType | None = None) -> Value:
    """A literal array in the graph; ``dtype`` defaults to the array's own."""
    from engine.dtypes import as_dtype
    from engine.op import get

    array = np.asarray(value) if dtype is None else np.asarray(value, dtype.numpy)
    array = np.array(array, order="C")
    array.flags.writeable = False
    return current_builder().add(get("constant"), (), {"value": array, "dtype": as_dtype(array.dtype)})[0]


def apply(name: str, *inputs: Value | float, **attrs: Any) -> Any:
    """Add one op to the current builder. Numbers among ``inputs`` become constants with the dtype that they
    take beside the tensors. Returns the Value, or a tuple of them where the op has several outputs."""
    from engine import dtypes
    from engine.op import get

    op = get(name)
    tensors = [v.dtype for v in inputs if isinstance(v, Value)]
    beside = dtypes.promote(*tensors) if tensors else None
    values = tuple(v if isinstance(v, Value) else constant(v, dtypes.of_scalar(v, beside)) for v in inputs)
    outputs = current_builder().add(op, values, attrs)
    return outputs[0] if len(outputs) == 1 else outputs


class Rewriter:
    """Copies a graph node by node into a new one, which is how a pass is written.

    ``emit(node, inputs)`` is asked for each node with its inputs already mapped, and returns the new outputs; None
    keeps the node as it is. Values keep their names where nodes are kept.
    """

    def __init__(self, graph: Graph, builder: type[Builder] = Builder):
        self.graph = graph
        self.builder = builder(graph.name, first_number=_next_number(graph))
        self.builder.assumptions.extend(graph.assumptions)
        self.map: dict[Value, Value] = {}
        self.rule = ""  # what ``emit`` went by, for whoever listens
        for v in graph.inputs:
            self.builder.inputs.append(v)
            self.map[v] = v
        for v in graph.state:
            self.builder.state[v.node.attrs["name"]] = v
            self.map[v] = v
        self.builder._names.update(n.name for n in graph.all_nodes())

    def keep(self, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        """Add ``node`` with new inputs, of the same types or of others."""
        if inputs == node.inputs:
            self.builder.adopt(node)
            return node.outputs
        with dims.recording(self.builder.assumptions):
            types = node.op.infer(tuple(v.type for v in inputs), node.attrs)
        copy = Node(node.op, inputs, node.attrs, types, node.name, node.location)
        self.builder.adopt(copy)
        return copy.outputs

    def run(self, emit: Callable[[Node, tuple[Value, ...]], tuple[Value, ...] | None]) -> Graph:
        listening = listeners()
        with self.builder:
            for node in self.graph.nodes:
                inputs = tuple(self.map[v] for v in node.inputs)
                self.rule, count = "", len(self.builder.nodes)
                with self.builder.at(node.location):
                    outputs = emit(node, inputs)
                if outputs is None:
                    outputs = self.keep(node, inputs)
                elif listening is not None:
                    before, after = (tuple(v.name for v in values) for values in (node.outputs, outputs))
                    if before != after:
                        made = tuple(n.name for n in self.builder.nodes[count:])
                        listening.append(Rewrite(self.rule or node.op.name, node.name, before, after, made))
                self.map.update(zip(node.outputs, outputs, strict=True))
        return self.finish()

    def finish(self) -> Graph:
        g = self.graph
        built = self.builder.build((self.map[v] for v in g.outputs), {k: self.map[v] for k, v in g.updates.items()})
        layouts = {self.map[v]: order for v, order in g.layouts.items() if v in self.map}
        return built.with_(layouts=layouts)


def _next_number(graph: Graph) -> int:
    numbers = [int(n.name[1:]) for n in graph.nodes if n.name[:1] == "t" and n.name[1:].isdigit()]
    return max(numbers, default=-1) + 1
