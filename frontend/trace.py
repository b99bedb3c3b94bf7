"""A trace: the graph being built from user code, with the state cells that it reads and writes."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from engine import graph
from engine.dims import Size, shape_text
from engine.errors import DTypeError, ShapeError, TraceError, current_module, in_module
from engine.graph import Graph, TensorType, Value
from engine.state import Cell
from frontend import random
from frontend.bodies import BodyBuilder
from frontend.branches import BranchingBuilder


class Trace:
    """One program being traced. ``with trace:`` makes it the one that tensors and modules of this thread build.

    ``cells`` maps the name of each state the program uses to its cell; the same cell has the same name throughout.
    """

    def __init__(self, name: str = "graph"):
        self.root = BranchingBuilder(name)
        self.builder = self.root
        self.cells: dict[str, Cell] = {}
        self._names: dict[Cell, str] = {}
        self._preferred: dict[Cell, str] = {}
        self._naming: list[Callable[[], Mapping[str, Cell]]] = []
        self._current: dict[Cell, Value] = {}
        self._leaves: dict[Value, Cell] = {}
        self._constants: dict[object, Value] = {}
        self._streams = itertools.count()
        self._paths: dict[Any, str] = {}
        self._drew_random = False

    def __enter__(self) -> Trace:
        _stack().append(self)
        self.builder.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.builder.__exit__(*exc)
        _stack().pop()

    def prefer_names(self, names: Mapping[str, Cell]) -> None:
        """Names for cells that this trace has not used yet; the first name given to a cell stays."""
        for name, cell in names.items():
            self._preferred.setdefault(cell, name)

    def name_after(self, names: Callable[[], Mapping[str, Cell]]) -> None:
        """As :meth:`prefer_names`, asked for when a cell without a name comes up: layers that learn their sizes while
        they are traced make cells on the way."""
        self._naming.append(names)

    @contextmanager
    def inside(self, module: Any) -> Iterator[None]:
        """What is traced meanwhile belongs to ``module``, which goes by its path from the class of the outermost one:
        ``CNN.conv1``. One that is no part of that is named by its own class."""
        if module not in self._paths:
            outer = current_module()
            wanted = f"{outer}.{type(module).__name__}" if outer else type(module).__name__
            taken = set(self._paths.values())
            others = (f"{wanted}_{i}" for i in itertools.count(1))
            top = next(name for name in itertools.chain([wanted], others) if name not in taken)
            for path, part in module.named_modules():
                self._paths.setdefault(part, f"{top}.{path}" if path else top)
        with in_module(self._paths[module]):
            yield

    def name_of(self, cell: Cell, preferred_name: str = "state") -> str:
        """The name of ``cell`` in this program, given out now if it has none."""
        if cell not in self._names:
            if cell not in self._preferred:
                for names in self._naming:
                    self.prefer_names(names())
            wanted = self._preferred.get(cell, preferred_name)
            name = wanted
            for i in itertools.count(1):
                if name not in self.cells:
                    break
                name = f"{wanted}_{i}"
            self._names[cell] = name
            self.cells[name] = cell
        return self._names[cell]

    def read(self, cell: Cell, preferred_name: str = "state", type: TensorType | None = None) -> Value:
        """The value of ``cell`` at this point of the program. It is a leaf: gradients end here, also where the
        program assigned it before."""
        if cell not in self._current:
            name = self.name_of(cell, preferred_name)
            self._set_leaf(cell, self.root.state_input(name, type or type_of(cell)))
        value = self._current[cell]
        if value not in self._leaves:  # assigned earlier in this trace, and read now for the first time
            with self.root, self.root.where_made(value):
                self._set_leaf(cell, graph.apply("detach", value))
        return self._current[cell]

    def assign(self, cell: Cell, value: Value, preferred_name: str = "state") -> None:
        """Give ``cell`` a new value when the program runs; later reads in this trace see it.

        Raises ShapeError or DTypeError where ``value`` is not of the cell's type, TraceError in the body of a loop.
        """
        if self.builder is not self.root:
            raise TraceError(
                f"scan: its function assigns the state {self.name_of(cell, preferred_name)}; let the carry hold what "
                "changes from step to step, and assign it after the loop"
            )
        expected = type_of(cell)
        name = self.name_of(cell, preferred_name)
        if value.shape != expected.shape:
            raise ShapeError(
                f"{name} has the shape {shape_text(expected.shape)} and cannot be assigned a value of shape "
                f"{shape_text(value.shape)}"
            )
        if value.dtype != expected.dtype:
            raise DTypeError(f"{name} is {expected.dtype} and cannot be assigned a value of {value.dtype}")
        self.builder.state_input(name, expected)
        self._current[cell] = value
        self.builder.updates[name] = value

    @contextmanager
    def branch(self, condition: Value, side: bool) -> Iterator[dict[str, Value]]:
        """Trace a branch that runs where ``condition`` is ``side``. What it assigns to state is undone at its end, and
        is then in the dict, by name: :meth:`join` makes of two branches what the program assigns."""
        assigned: dict[str, Value] = {}
        before, current = dict(self.builder.updates), dict(self._current)
        with self.builder.branch(condition, side):
            yield assigned
        after = self.builder.updates
        assigned.update((name, v) for name, v in after.items() if before.get(name) is not v)
        for name in assigned:
            cell = self.cells[name]
            self._current.pop(cell)
            if cell in current:
                self._current[cell] = current[cell]
        self.builder.updates = before

    @contextmanager
    def body(self, name: str, length: Size) -> Iterator[BodyBuilder]:
        """Trace the body of a loop of ``length`` steps."""
        outer = self.builder
        self.builder = inner = BodyBuilder(name, outer, length)
        try:
            with inner:
                yield inner
        finally:
            self.builder = outer

    def join(self, condition: Value, if_true: Mapping[str, Value], if_false: Mapping[str, Value]) -> None:
        """Assign to each state what the branch that ran has assigned, or nothing."""
        for name in dict.fromkeys((*if_true, *if_false)):
            cell = self.cells[name]
            old = self.read(cell)
            with self.builder:
                self.assign(cell, graph.apply("merge", condition, if_true.get(name, old), if_false.get(name, old)))

    def leaves(self, result: Value, cells: Iterable[Cell]) -> dict[Cell, Value]:
        """The value of each of ``cells`` that ``result`` was computed from: what its gradient is taken for.

        Cells that ``result`` does not depend on are left out. Raises TraceError for a cell that was assigned between
        two uses in ``result``, so that no single value stands for it.
        """
        wanted = dict.fromkeys(cells)
        found: dict[Cell, Value] = {}
        seen = {result}
        pending = [result]
        while pending:
            value = pending.pop()
            cell = self._leaves.get(value)
            if cell in wanted:
                if found.setdefault(cell, value) is not value:
                    raise TraceError(
                        f"{self.name_of(cell)} was updated between two uses in this loss, so its gradient has two "
                        "meanings; compute the loss from values before or after the update"
                    )
                continue
            if value.node.op.kind != "grad" and value.node.op.gradient is None and value.node.op.decompose is None:
                continue
            fresh = [v for v in value.node.inputs if v not in seen]
            seen.update(fresh)
            pending.extend(fresh)
        return {cell: found[cell] for cell in wanted if cell in found}

    def constant(self, owner: object, array: np.ndarray) -> Value:
        """The constant that stands for ``array`` in this program: the same one for the same ``owner`` (hashed by
        identity)."""
        if owner not in self._constants:
            with self.root:
                self._constants[owner] = graph.constant(array)
        return self._constants[owner]

    def random_stream(self) -> tuple[Value, Value, int]:
        """Seed and step (i64 scalars) and the id of a new stream: what one op that draws random numbers takes."""
        self._drew_random = True
        seed = self.read(random.default.seed, "rng.seed")
        step = self.read(random.default.step, "rng.step")
        return seed, step, next(self._streams)

    def finish(self, outputs: Iterable[Value]) -> Graph:
        """The traced program. One that drew random numbers advances ``rng.step``, so each call draws others."""
        if self._drew_random:
            with self.builder:
                step = self.read(random.default.step)
                self.assign(random.default.step, graph.apply("add", step, 1))
            self._drew_random = False
        return self.builder.build(outputs)

    def _set_leaf(self, cell: Cell, value: Value) -> None:
        self._current[cell] = value
        self._leaves[value] = cell


def type_of(cell: Cell) -> TensorType:
    return TensorType(cell.shape, cell.dtype)


_local = threading.local()


def _stack() -> list[Trace]:
    if not hasattr(_local, "stack"):
        _local.stack = []
    return _local.stack


def active() -> Trace | None:
    """The innermost trace of this thread, or None outside of tracing."""
    stack = _stack()
    return stack[-1] if stack else None


def current_trace(what: str = "this") -> Trace:
    """The innermost trace of this thread. Raises TraceError outside of tracing, naming ``what`` needs one."""
    trace = active()
    if trace is None:
        raise TraceError(
            f"{what} needs a traced program: call it inside a function given to tn.function, tn.compile or tn.grad"
        )
    return trace
