"""Running a graph on NumPy, node by node, by each op's own reference. This is what every backend is held to.

Nodes that only a branch not taken needs are passed over, and stand as zeros for whoever looks at them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from engine import binding, conditions, dims
from engine.dims import Expr
from engine.dtypes import as_dtype
from engine.errors import StateError, TenonError, UnsupportedError, VerifyError
from engine.graph import Builder, Graph, Node, TensorType, Value
from engine.op import Attrs, Op

Arrays = tuple[np.ndarray, ...]
Trace = Callable[[Node, Arrays], None]


def run(
    graph: Graph,
    inputs: Mapping[str, object] | Sequence[object],
    state: Mapping[str, np.ndarray] | None = None,
    trace: Trace | None = None,
) -> tuple[Arrays, dict[str, np.ndarray]]:
    """The outputs, and the state after the call; ``state`` itself is left as it is.

    ``trace(node, arrays)`` sees every node's results. Raises ShapeError and DTypeError for inputs that do not fit,
    StateError for missing state, IndexRangeError from a check in the program.
    """
    before = dict(state or {})
    arrays, sizes = bind(graph, inputs, before)
    outputs, updates = run_bound(graph, arrays, sizes, trace)
    return outputs, {**before, **updates}


def bind(
    graph: Graph, inputs: Mapping[str, object] | Sequence[object], state: Mapping[str, object]
) -> tuple[list[np.ndarray], dict[str, int]]:
    """What :func:`run_bound` takes: the arrays of inputs and state, and the sizes of the dims."""
    expected, kept = binding.ports(graph.inputs), binding.ports(graph.state)
    if missing := [p.name for p in kept if p.name not in state]:
        raise StateError(f"the program reads the state {', '.join(missing)}, which was not given")
    arrays = binding.arrange(expected, inputs)
    sizes = binding.solve(expected, [a.shape for a in arrays])
    binding.check_assumptions(graph.assumptions, sizes)
    old = [binding.as_input(state[p.name], p) for p in kept]
    for port, array in zip(kept, old, strict=True):
        shape = tuple(dims.evaluate(s, sizes) for s in port.shape)
        if array.shape != shape:
            raise StateError(f"the state {port.name!r} has shape {array.shape}; the program expects {shape}")
    return arrays + old, sizes


def run_bound(
    graph: Graph, arrays: Sequence[np.ndarray], sizes: Mapping[str, int], trace: Trace | None = None
) -> tuple[Arrays, dict[str, np.ndarray]]:
    """As :func:`run`, on arrays that were checked already: inputs, then state. Gives outputs and updates."""
    known: dict[Value, np.ndarray] = dict(zip((*graph.inputs, *graph.state), arrays, strict=True))
    needs = conditions.needs(graph)
    for node in conditions.ordered(graph, needs):
        if node in needs and not conditions.holds(needs[node], known):
            known.update((v, _nothing(v, sizes)) for v in node.outputs)
            continue
        try:
            found = evaluate(node.op, [known[v] for v in node.inputs], node.attrs, sizes)
            for v, a in zip(node.outputs, found, strict=True):
                _check_result(v, a, sizes)
        except TenonError as error:
            if node.location is not None:
                error.location = node.location
            raise
        known.update(zip(node.outputs, found, strict=True))
        if trace is not None:
            trace(node, found)
    return tuple(known[v] for v in graph.outputs), {k: known[v] for k, v in graph.updates.items()}


def evaluate(op: Op, arrays: Sequence[np.ndarray], attrs: Attrs, sizes: Mapping[str, int]) -> Arrays:
    """One op on arrays, its symbolic attributes taken at ``sizes``. A composite without a reference is decomposed.

    Raises UnsupportedError for an op that has neither, such as ``grad`` before autodiff.
    """
    if op.kind == "loop":
        body = attrs["body"]
        return loop(lambda *given: run_bound(body, given, sizes)[0], arrays, bound(attrs["length"], sizes),
                    attrs["carries"], attrs["sequences"], attrs["reverse"])  # fmt: skip
    concrete = {k: bound(a, sizes) for k, a in op.complete(attrs).items()}
    inputs = tuple(TensorType(a.shape, as_dtype(a.dtype)) for a in arrays)
    if op.reference is not None:
        return op.evaluate(arrays, op.infer(inputs, concrete), concrete)
    if op.decompose is None:
        raise UnsupportedError(f"{op.name} has no reference: it is expanded before anything runs")
    builder = Builder(op.name)
    with builder:
        found = op.decompose(*(builder.input(f"x{i}", t) for i, t in enumerate(inputs)), **concrete)
    graph = builder.build(found if isinstance(found, tuple) else (found,))
    return run_bound(graph, arrays, sizes)[0]


def loop(
    body: Callable[..., Arrays], arrays: Sequence[np.ndarray], length: int, carries: int, sequences: int, reverse: bool
) -> Arrays:
    """``body`` at every step, as engine/ops/loop.py says."""
    carry, xs, fixed = tuple(arrays[:carries]), arrays[carries : carries + sequences], arrays[carries + sequences :]
    if length == 0:  # the body is run once nevertheless, on zeros, to see what it would keep
        kept = body(*carry, *(np.zeros(x.shape[1:], x.dtype) for x in xs), *fixed)[carries:]
        return (*carry, *(np.empty((0, *a.shape), a.dtype) for a in kept))
    every: list[np.ndarray] = []
    for t in reversed(range(length)) if reverse else range(length):
        found = body(*carry, *(x[t] for x in xs), *fixed)
        carry, kept = found[:carries], found[carries:]
        every = every or [np.empty((length, *a.shape), a.dtype) for a in kept]
        for whole, one in zip(every, kept, strict=True):
            whole[t] = one
    return (*carry, *every)


def bound(attr: Any, sizes: Mapping[str, int]) -> Any:
    """An attribute with every symbolic size in it replaced by its value."""
    if isinstance(attr, Expr):
        return dims.evaluate(attr, sizes)
    if isinstance(attr, tuple):
        return tuple(bound(a, sizes) for a in attr)
    return attr


def _nothing(v: Value, sizes: Mapping[str, int]) -> np.ndarray:
    """Zeros that take no memory."""
    return np.broadcast_to(np.zeros((), v.dtype.numpy), tuple(dims.evaluate(s, sizes) for s in v.shape))


def _check_result(v: Value, array: np.ndarray, sizes: Mapping[str, int]) -> None:
    """A reference that disagrees with its op's type rule is a defect of the op."""
    shape = tuple(dims.evaluate(s, sizes) for s in v.shape)
    if array.shape != shape or array.dtype != v.dtype.numpy:
        raise VerifyError(
            f"the reference of {v.node.op.name} gave {array.dtype}{list(array.shape)} for {v.name}; "
            f"its type {v.type} says {list(shape)}"
        )
