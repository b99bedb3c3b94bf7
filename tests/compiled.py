"""Compile a graph for this processor, run it, and hold it to the interpreter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from engine import dims, dtypes, interpreter
from engine.dims import Expr, Size
from engine.graph import Builder, Graph, TensorType, Value
from engine.options import Options
from engine.program import Program
from engine.state import Cell
from engine.verify import verify
from passes.autodiff import expand_gradients
from passes.pipeline import compile_graph
from runtime import cache
from runtime.cpu.executor import Executor
from runtime.cpu.loading import build
from runtime.cpu.lower import lower
from runtime.cpu.target import target

Named = Mapping[str, np.ndarray]
LEVELS = (0, 1, 2)

TOLERANCE = {dtypes.f64: 1e-11, dtypes.f32: 3e-5, dtypes.f16: 4e-3, dtypes.bf16: 3e-2}
"""Of an error against the greatest finite magnitude of its array; pointwise, against the number itself."""


def program(graph: Graph, level: int = 2) -> Program:
    """``graph`` through every pass at ``level``; conftest.py has each stage verified."""
    return compile_graph(graph, target(), lower, Options(level))


def cells(graph: Graph, state: Named | None) -> dict[str, Cell]:
    """A state store that holds ``state`` for the ports of ``graph``."""
    return {v.node.attrs["name"]: Cell((state or {})[v.node.attrs["name"]], v.dtype) for v in graph.state}


def executor(graph: Graph, store: Mapping[str, Cell], level: int = 2) -> Executor:
    return build(program(graph, level), store, cache.default())[0]


def run(
    graph: Graph, inputs: Named, state: Named | None = None, level: int = 2
) -> tuple[tuple[np.ndarray, ...], dict[str, np.ndarray]]:
    """The outputs of the compiled program, and the state after the call."""
    store = cells(graph, state)
    outputs = executor(graph, store, level).run(dict(inputs))
    return outputs, {name: cell.array.copy() for name, cell in store.items()}


def check(
    graph: Graph,
    inputs: Named | Sequence[Named],
    state: Named | None = None,
    levels: Sequence[int] = LEVELS,
    pointwise: bool = False,
) -> None:
    """Compiled at every one of ``levels``, ``graph`` gives the interpreter's outputs and new state for each of the
    ``inputs``, which may differ in their sizes. ``pointwise`` is as for :func:`difference`."""
    cases = [inputs] if isinstance(inputs, Mapping) else list(inputs)
    expected = [interpreter.run(verify(expand_gradients(graph), expanded=True), case, state) for case in cases]
    for level in levels:
        store = cells(graph, state)
        runner = executor(graph, store, level)
        for case, (outputs, after) in zip(cases, expected, strict=True):
            for name in graph.updates:
                store[name].write((state or {})[name])
            found = runner.run(dict(case))
            named = {f"output {i} ({v.name})": (a, b) for i, (v, a, b) in
                     enumerate(zip(graph.outputs, found, outputs, strict=True))}  # fmt: skip
            named |= {f"state {name}": (cell.array, after[name]) for name, cell in store.items()}
            wrong = [f"{what}: {why}" for what, (a, b) in named.items() if (why := difference(a, b, pointwise))]
            if wrong:
                shapes = {k: np.shape(a) for k, a in case.items()}
                raise AssertionError("\n".join([f"level {level}, inputs {shapes}", *wrong, str(graph)]))


def difference(
    found: np.ndarray, expected: np.ndarray, pointwise: bool = False, slack: np.ndarray | float = 0.0
) -> str | None:
    """What is wrong with ``found``, or None. Floats may err by their dtype's tolerance, of every number on its own
    where ``pointwise``, and by ``slack`` besides; NaN and infinity must be where they are expected."""
    if (found.dtype, found.shape) != (expected.dtype, expected.shape):
        return f"{found.dtype}{found.shape} instead of {expected.dtype}{expected.shape}"
    dtype = dtypes.as_dtype(expected.dtype)
    equal = _close(found, expected, TOLERANCE[dtype], pointwise, slack) if dtype.is_float else found == expected
    if np.all(equal):
        return None
    at = tuple(int(i) for i in np.argwhere(~equal)[0])
    return f"{np.count_nonzero(~equal)} of {equal.size} are wrong; {found[at]!r} instead of {expected[at]!r} at {at}"


def _close(
    found: np.ndarray, expected: np.ndarray, tolerance: float, pointwise: bool, slack: np.ndarray | float
) -> np.ndarray:
    a, b = found.astype(np.float64), expected.astype(np.float64)
    scale = np.abs(b) if pointwise else np.abs(b[np.isfinite(b)]).max(initial=0.0)
    with np.errstate(invalid="ignore"):
        near = np.isfinite(b) & (np.abs(a - b) <= tolerance * scale + slack)
        return near | (a == b) | (np.isnan(a) & np.isnan(b)) | ~np.isfinite(slack)


# --- many graphs in one program ----------------------------------------------------------------------------------


def merge(graphs: Sequence[Graph]) -> tuple[Graph, list[slice]]:
    """One graph that does what all of ``graphs`` do, and which of its outputs are whose. Ports and dims of graph ``i``
    are renamed by :func:`renamed`, so each keeps sizes and state of its own."""
    builder = Builder("merged")
    outputs: list[Value] = []
    updates: dict[str, Value] = {}
    parts: list[slice] = []
    for i, graph in enumerate(graphs):
        with builder:
            values = _replay(graph, builder, i)
        parts.append(slice(len(outputs), len(outputs) + len(graph.outputs)))
        outputs += [values[v] for v in graph.outputs]
        updates |= {renamed(name, i): values[v] for name, v in graph.updates.items()}
    return builder.build(outputs, updates), parts


def renamed(name: str, i: int) -> str:
    """The name of a port or dim of graph ``i`` in a merged graph."""
    return f"{name}_of_{i}"


def _replay(graph: Graph, builder: Builder, i: int) -> dict[Value, Value]:
    known = {name: dims.dim(renamed(name, i)) for name in graph.dims()}

    def own(attr: object) -> object:
        if isinstance(attr, tuple):
            return tuple(own(a) for a in attr)
        return dims.substitute(attr, known) if isinstance(attr, Expr) else attr

    def port(value: Value) -> tuple[str, TensorType]:
        shape: tuple[Size, ...] = tuple(dims.substitute(s, known) for s in value.shape)
        return renamed(value.node.attrs["name"], i), TensorType(shape, value.dtype)

    values = {v: builder.input(*port(v)) for v in graph.inputs}
    values |= {v: builder.state_input(*port(v)) for v in graph.state}
    for node in graph.nodes:
        attrs = {k: own(a) for k, a in node.attrs.items()}
        made = builder.add(node.op, tuple(values[v] for v in node.inputs), attrs)
        values.update(zip(node.outputs, made, strict=True))
    return values
