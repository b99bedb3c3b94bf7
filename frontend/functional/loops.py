"""Loops in programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engine import dims, graph
from engine.dims import Size
from engine.errors import DTypeError, ShapeError, TraceError
from engine.graph import TensorType, Value
from frontend import creation
from frontend.dispatch import call
from frontend.nest import Rebuild, flatten, unflatten
from frontend.sizes import SymbolicSize, as_size, plain
from frontend.tensor import Tensor, as_tensor
from frontend.trace import current_trace

__all__ = ["scan"]


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: Any = None,
    reverse: bool = False,
    truncate: int | None = None,
) -> tuple[Any, Any]:
    """``carry, y = f(carry, x)`` for every ``x`` along the first axis of ``xs``, from ``carry = init``: gives the last
    carry and all ``y``, stacked along a new first axis.

    ``init``, ``xs`` and ``y`` are tensors, or nests of tuples, lists and dicts of them; ``xs`` may be None, with
    ``length`` steps, and ``y`` too. With ``reverse`` the steps run from the last to the first, and each ``y`` stands
    where its ``x`` does. The new carry has the nest, shapes and dtypes of the old one.

    In a traced program ``f`` is traced once, and the length may be symbolic: the graph, its kernels and the time to
    compile do not depend on it. ``f`` may use tensors and parameters from outside, draw random numbers (others at each
    step), branch with :func:`cond` and loop itself; gradients flow through all of it, of any order. It cannot assign
    state, which BatchNorm does in training. ``truncate=k`` cuts the gradient of the carry in front of every ``k``-th
    step (truncated backpropagation through time; Williams and Peng, 1990, "An efficient gradient-based algorithm for
    on-line training of recurrent network trajectories"). Outside of tracing ``f`` is called step by step.

    Raises ShapeError where lengths or the carry's shapes differ, DTypeError where its dtypes do, and TraceError where
    nests differ, something else than a tensor is returned, or ``f`` assigns state.

    It is JAX's ``lax.scan``, and ``truncate`` is more than that has.
    """
    carries, carry_nest = _leaves("init", init)
    sequences, nest = _leaves("xs", xs)
    steps = _steps(sequences, length)
    if truncate is not None and (not isinstance(truncate, int) or truncate < 1):
        raise ShapeError(f"scan: truncate is a number of steps, at least 1, not {truncate!r}")
    step: _Step | _Truncated = _Step(f, carry_nest, [x._type for x in carries], nest)
    if truncate is not None:
        number = creation.arange(0, as_size(steps))
        cut = (number if not reverse else as_size(steps) - 1 - number) % truncate == 0
        step, sequences = _Truncated(step), [cut, *sequences]
    if not graph.tracing():
        return _at_once(step, carries, sequences, int(steps), reverse)
    return _traced(step, carries, sequences, steps, reverse)


class _Step:
    """``f`` on lists of tensors, its results checked."""

    def __init__(self, f: Callable[..., Any], carry_nest: Rebuild, types: Sequence[TensorType], x_nest: Rebuild):
        self.f, self.carry_nest, self.types, self.x_nest = f, carry_nest, types, x_nest
        self.y_nest: Rebuild | None = None

    def __call__(self, carries: Sequence[Tensor], xs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        found = self.f(unflatten(self.carry_nest, carries), unflatten(self.x_nest, xs))
        if not isinstance(found, tuple) or len(found) != 2:
            raise TraceError(f"scan: f returned {type(found).__name__}; a pair (carry, y) was expected")
        new, nest = _leaves("f's carry", found[0])
        kept, self.y_nest = _leaves("f's y", found[1])
        wanted, given = _text(self.carry_nest, len(self.types)), _text(nest, len(new))
        if wanted != given:
            raise TraceError(f"scan: f returns the carry {given}; init is {wanted}")
        return [_fit(i, x, t) for i, (x, t) in enumerate(zip(new, self.types, strict=True))], kept


class _Truncated:
    """A step whose first sequence says where the carry's gradient is cut."""

    def __init__(self, step: _Step | _Truncated):
        self.step = step
        self.carry_nest: Rebuild = step.carry_nest

    @property
    def y_nest(self) -> Rebuild | None:
        return self.step.y_nest

    def __call__(self, carries: Sequence[Tensor], xs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        cut, *rest = xs
        return self.step([call("where", cut, c.detach(), c) if c.dtype.is_float else c for c in carries], rest)


def _leaves(what: str, nest: Any) -> tuple[list[Tensor], Rebuild]:
    def reject(found: Any, where: str) -> TraceError:
        place = f" at {where}" if where else ""
        return TraceError(f"scan: {what} holds {type(found).__name__} {found!r:.60}{place}; a Tensor was expected")

    leaves, rebuild = flatten(nest, _is_leaf, reject)
    return [as_tensor(x) for x in leaves], rebuild


def _is_leaf(x: Any) -> bool:
    return isinstance(x, (Tensor, np.ndarray, np.generic, bool, int, float, SymbolicSize))


def _steps(sequences: Sequence[Tensor], length: Any) -> Size:
    """The number of steps, which all sequences have."""
    known: Size | None = None if length is None else plain(length)
    if isinstance(known, int) and known < 0:
        raise ShapeError(f"scan: length is a number of steps, not {length}")
    for i, x in enumerate(sequences):
        shape = x._type.shape
        if not shape:
            raise ShapeError(f"scan: xs are split along their first axis; {'one' if i else 'the first'} has none")
        if known is None:
            known = shape[0]
            continue
        text = f"scan: a sequence of {shape[0]} steps beside {'a length' if length is not None else 'one'} of {known}"
        if graph.tracing():
            with dims.recording(graph.current_builder().assumptions):
                dims.assume(shape[0] - known, "== 0", text)
        else:
            dims.assume(shape[0] - known, "== 0", text)
    if known is None:
        raise ShapeError("scan: without xs it takes the length, a number of steps")
    return known


def _fit(i: int, new: Tensor, old: TensorType) -> Tensor:
    """A new carry, of the type of the old one."""
    given, wanted = new._type.shape, old.shape
    if new.dtype != old.dtype:
        raise DTypeError(f"scan: carry {i} is {old.dtype}, and f makes it {new.dtype}")
    text = f"scan: carry {i} has shape {dims.shape_text(wanted)}, and f makes it {dims.shape_text(given)}"
    if len(given) != len(wanted):
        raise ShapeError(text)
    if given == wanted:
        return new
    with dims.recording(graph.current_builder().assumptions if graph.tracing() else []):
        for a, b in zip(given, wanted, strict=True):
            dims.assume(a - b, "== 0", text)
    return call("reshape", new, shape=wanted)


def _text(rebuild: Rebuild, count: int) -> str:
    """A nest with ``*`` for each tensor."""
    return repr(unflatten(rebuild, [_Star()] * count))


class _Star:
    def __repr__(self) -> str:
        return "*"


def _traced(
    step: _Step | _Truncated, carries: Sequence[Tensor], sequences: Sequence[Tensor], length: Size, reverse: bool
) -> tuple[Any, Any]:
    start, every = [x.value() for x in carries], [x.value() for x in sequences]
    with current_trace("F.scan").body("body", length) as body:
        old = [body.port(f"carry{i}", v.type) for i, v in enumerate(start)]
        xs = [body.port(f"x{i}", TensorType(v.shape[1:], v.dtype)) for i, v in enumerate(every)]
        new, kept = step([Tensor.of(v) for v in old], [Tensor.of(v) for v in xs])
        results = [x.value() for x in (*new, *kept)]
        traced = body.body(old, xs, results)
    values = [*start, *every, *body.drawn, *body.captured]
    sequence_count = len(every) + len(body.drawn)
    if not traced.outputs:
        return unflatten(step.carry_nest, []), unflatten(_nest_of(step), [])
    made: Any = graph.apply(
        "scan", *values, body=traced, length=length, carries=len(old), sequences=sequence_count, reverse=reverse
    )
    outputs: Sequence[Value] = made if isinstance(made, tuple) else (made,)
    tensors = [Tensor.of(v) for v in outputs]
    return unflatten(step.carry_nest, tensors[: len(old)]), unflatten(_nest_of(step), tensors[len(old) :])


def _at_once(
    step: _Step | _Truncated, carries: list[Tensor], sequences: Sequence[Tensor], length: int, reverse: bool
) -> tuple[Any, Any]:
    if length == 0:
        raise ShapeError("scan: no steps; only a traced program knows what they would give")
    every: dict[int, list[Tensor]] = {}
    for t in reversed(range(length)) if reverse else range(length):
        carries, every[t] = step(carries, [x[t] for x in sequences])
    kept = [Tensor(np.stack([every[t][i].numpy() for t in range(length)])) for i in range(len(every[0]))]
    return unflatten(step.carry_nest, carries), unflatten(_nest_of(step), kept)


def _nest_of(step: _Step | _Truncated) -> Rebuild:
    assert step.y_nest is not None
    return step.y_nest
