"""Control flow in programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engine import dims, dtypes, graph
from engine.errors import DTypeError, ShapeError, TraceError
from frontend.nest import flatten, unflatten
from frontend.sizes import SymbolicSize
from frontend.tensor import Tensor, as_tensor
from frontend.trace import current_trace

__all__ = ["cond"]


def cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], *operands: Any) -> Any:
    """``true_fn(*operands)`` where the bool scalar ``pred`` holds, else ``false_fn(*operands)``; only one of them runs.

    In a traced program both functions are traced, and must return tensors of the same shapes and dtypes, alone or in
    the same nest of tuples, lists and dicts. They may use tensors and parameters from outside, draw random numbers and
    assign state (as BatchNorm does). Gradients flow through the branch that ran, and are zero in the other: what is
    not computed there cannot put a NaN into them. Outside of tracing, and where ``pred`` is a Python bool, the function
    is called and the other one is not.

    Raises DTypeError and ShapeError where ``pred`` is no bool scalar or the results differ in dtype or shape, and
    TraceError where they differ in structure.

    PyTorch: torch.cond. Differs: operands follow one by one, as in JAX's lax.cond, and branches may assign state.
    """
    if isinstance(pred, (bool, np.bool_)):
        return (true_fn if pred else false_fn)(*operands)
    condition = _condition(pred)
    if not condition.is_symbolic:
        return (true_fn if condition.item() else false_fn)(*operands)
    trace = current_trace("F.cond")
    chosen = condition.value()
    with trace.branch(chosen, True) as if_true:
        ours, rebuild = _results("true_fn", true_fn(*operands))
    with trace.branch(chosen, False) as if_false:
        theirs, other = _results("false_fn", false_fn(*operands))
    if _shape_of(rebuild, len(ours)) != _shape_of(other, len(theirs)):
        raise TraceError(
            f"cond: true_fn returns {_shape_of(rebuild, len(ours))} and false_fn {_shape_of(other, len(theirs))}; "
            "both must return the same nest of tensors"
        )
    trace.join(chosen, if_true, if_false)
    return unflatten(rebuild, [_merged(i, chosen, a, b) for i, (a, b) in enumerate(zip(ours, theirs, strict=True))])


def _condition(pred: Any) -> Tensor:
    condition = as_tensor(pred)
    if condition.dtype != dtypes.bool_:
        raise DTypeError(f"cond: pred must be a bool, not {condition.dtype}")
    if condition.ndim:
        raise ShapeError(f"cond: pred must be one bool, not a tensor of shape {dims.shape_text(condition._type.shape)}")
    return condition


def _results(name: str, result: Any) -> tuple[list[Tensor], Any]:
    def reject(found: Any, where: str) -> TraceError:
        place = f" at {where}" if where else ""
        return TraceError(f"cond: {name} returned {type(found).__name__} {found!r:.60}{place}; a Tensor was expected")

    leaves, rebuild = flatten(result, _is_leaf, reject)
    return [as_tensor(x) for x in leaves], rebuild


def _is_leaf(x: Any) -> bool:
    return isinstance(x, (Tensor, np.ndarray, np.generic, bool, int, float, SymbolicSize))


def _shape_of(rebuild: Any, count: int) -> str:
    """The nest as text, with ``*`` for each tensor."""
    return repr(unflatten(rebuild, [_Star()] * count))


class _Star:
    def __repr__(self) -> str:
        return "*"


def _merged(i: int, condition: graph.Value, a: Tensor, b: Tensor) -> Tensor:
    if a.dtype != b.dtype:
        raise DTypeError(f"cond: result {i} is {a.dtype} from true_fn and {b.dtype} from false_fn")
    mine, other = a._type.shape, b._type.shape
    text = f"{dims.shape_text(mine)} from true_fn and {dims.shape_text(other)} from false_fn"
    if len(mine) != len(other):
        raise ShapeError(f"cond: result {i} has shape {text}")
    with dims.recording(graph.current_builder().assumptions):
        for one, two in zip(mine, other, strict=True):
            dims.assume(one - two, "== 0", f"cond: result {i} has shape {text}")
    found = graph.apply("merge", condition, a.value(), b.value())
    return Tensor.of(found if found.shape == mine else graph.apply("reshape", found, shape=mine))
