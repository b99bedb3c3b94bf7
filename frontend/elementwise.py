"""The elementwise functions and Tensor methods, one of each for every elementwise op record, named as in PyTorch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from engine.op import Op, all_ops
from frontend import dispatch

_PYTORCH_NAMES = {
    "and_": "logical_and",
    "or_": "logical_or",
    "not_": "logical_not",
    "xor_": "logical_xor",
    "bitand": "bitwise_and",
    "bitor": "bitwise_or",
    "bitxor": "bitwise_xor",
    "invert": "bitwise_not",
    "shl": "bitwise_left_shift",
    "shr": "bitwise_right_shift",
    "floordiv": "floor_divide",
    "mod": "remainder",
}
"""Ops whose names in the graph are not PyTorch's."""

_ALIASES = {
    "absolute": "abs", "arccos": "acos", "arccosh": "acosh", "arcsin": "asin", "arcsinh": "asinh", "arctan": "atan",
    "arctan2": "atan2", "arctanh": "atanh", "fix": "trunc", "greater": "gt", "greater_equal": "ge", "less": "lt",
    "less_equal": "le", "multiply": "mul", "negative": "neg", "not_equal": "ne", "sgn": "sign",
}  # fmt: skip
"""PyTorch's second names."""

_WITH_OPTIONS = frozenset({
    "add", "celu", "div", "elu", "gelu", "gelu_tanh", "hardshrink", "hardsigmoid", "hardswish", "hardtanh",
    "leaky_relu", "mish", "relu6", "round", "selu", "silu", "softplus", "softshrink", "sub", "threshold",
})  # fmt: skip
"""Ops whose functions, with PyTorch's options and defaults, are written out in frontend/functional/activations.py and
frontend/arithmetic.py."""


_OF_NETWORKS = frozenset({"logsigmoid", "softsign", "tanhshrink"})
"""Those that PyTorch has in torch.nn.functional alone."""

_DIFFERENCES = {
    "copysign": "of integers it gives an integer",
    "sgn": "bools are an error",
    "sign": "bools are an error",
    "square": "bools are an error",
}
"""Beside what NumPy's dtypes make different everywhere: functions of real numbers give f64 for integers."""


def records() -> dict[str, Op]:
    """The ops that have a scalar expression, under the names that users write."""
    found = {
        _PYTORCH_NAMES.get(name, name): op
        for name, op in all_ops().items()
        if op.expression is not None and name not in _WITH_OPTIONS | {"merge"}  # which F.cond makes
    }
    return dict(sorted((found | {alias: found[name] for alias, name in _ALIASES.items()}).items()))


def pytorch(name: str) -> str:
    """The last line of a docstring: PyTorch's name of the function, and what differs."""
    line = f"PyTorch: torch.{'nn.functional.' if name in _OF_NETWORKS else ''}{name}."
    return f"{line} Differs: {_DIFFERENCES[name]}." if name in _DIFFERENCES else line


def _function(name: str, op: Op) -> Callable[..., Any]:
    def function(*operands: Any) -> Any:
        if len(operands) != len(op.inputs):
            raise TypeError(f"{name}() takes {len(op.inputs)} arguments ({', '.join(op.inputs)}), not {len(operands)}")
        return dispatch.call(op.name, *operands)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{op.doc}\n\n{pytorch(name)}"
    parameters = [inspect.Parameter(p, inspect.Parameter.POSITIONAL_ONLY) for p in op.inputs]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return function


FUNCTIONS: dict[str, Callable[..., Any]] = {name: _function(name, op) for name, op in records().items()}
globals().update(FUNCTIONS)

ElementwiseMethods = type(
    "ElementwiseMethods",
    (),
    # The condition of ``where`` comes first, and a tensor's own where() has it second.
    {"__slots__": (), "__doc__": "The elementwise ops as methods of a tensor."}
    | {name: function for name, function in FUNCTIONS.items() if name != "where"},
)

__all__ = list(FUNCTIONS)
