"""Applying an op to tensors: a node while tracing, the op's NumPy reference at once otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from engine import dtypes, graph, rules
from engine.dtypes import DType
from engine.errors import DTypeError
from engine.graph import TensorType, Value
from engine.op import get
from frontend.sizes import SymbolicSize

if TYPE_CHECKING:
    from frontend.tensor import Tensor


def call(name: str, *operands: Any, **attrs: Any) -> Any:
    """Apply the op ``name`` to tensors, NumPy arrays, Python numbers and symbolic sizes; a tuple of tensors where the
    op has several outputs. Numbers and sizes take the dtype of the tensors beside them."""
    from frontend.tensor import Tensor

    if graph.tracing():
        values = graph.apply(name, *_as_values(name, operands), **attrs)
        return tuple(map(Tensor.of, values)) if isinstance(values, tuple) else Tensor.of(values)
    beside = _beside(operands)
    results = _evaluate(name, [_as_array(name, x, beside) for x in operands], attrs)
    tensors = tuple(map(Tensor, results))
    return tensors if len(tensors) > 1 else tensors[0]


def as_value(x: Tensor | np.ndarray) -> Value:
    """``x`` in the program being traced; arrays become constants."""
    return graph.constant(x) if isinstance(x, np.ndarray) else x.value()


def _as_values(name: str, operands: tuple[Any, ...]) -> list[Value | float]:
    beside = _beside(operands)
    values: list[Value | float] = []
    for x in operands:
        if is_tensor(x):
            values.append(as_value(x))
        elif isinstance(x, SymbolicSize):
            values.append(rules.size_value(x.expr, dtypes.of_scalar(0, beside)))
        else:
            _check_scalar(name, x)
            values.append(x)
    return values


def _evaluate(name: str, arrays: list[np.ndarray], attrs: dict[str, Any]) -> tuple[np.ndarray, ...]:
    op = get(name)
    full = op.complete(attrs)
    types = op.infer(tuple(TensorType(a.shape, dtypes.as_dtype(a.dtype)) for a in arrays), full)
    return op.evaluate(arrays, types, full)


def _as_array(name: str, x: Any, beside: DType | None) -> np.ndarray:
    if is_tensor(x):
        return x if isinstance(x, np.ndarray) else x.numpy()
    _check_scalar(name, x)
    return np.asarray(x, dtypes.of_scalar(x, beside).numpy)


def is_tensor(x: object) -> bool:
    from frontend.tensor import Tensor

    return isinstance(x, (Tensor, np.ndarray))


def _beside(operands: tuple[Any, ...]) -> DType | None:
    found = [dtypes.as_dtype(x.dtype) for x in operands if is_tensor(x)]
    return dtypes.promote(*found) if found else None


def foreign(name: str, x: object) -> DTypeError:
    """The error for an operand of the op ``name`` that is no tensor, such as another framework's."""
    kind = type(x).__name__ if type(x).__module__ == "builtins" else f"{type(x).__module__}.{type(x).__name__}"
    convert = "; tn.tensor(x) makes a tensor of it" if hasattr(x, "__array__") or isinstance(x, (list, tuple)) else ""
    return DTypeError(f"{name} takes tensors, NumPy arrays and numbers, not {kind} {x!r:.60}{convert}")


def _check_scalar(name: str, x: object) -> None:
    if not isinstance(x, (bool, int, float, np.generic)):
        raise foreign(name, x)
