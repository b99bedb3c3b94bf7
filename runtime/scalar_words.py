"""The operators of kernels as Python functions on NumPy scalars, for kernels that run as the Python that they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engine import dtypes
from engine.random import uniform_scalar
from engine.scalar import VOCABULARY


def _of_dtype(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` with results of its first argument's type."""

    def word(x: Any, *others: Any) -> Any:
        return type(x)(function(x, *others))

    return word


def _extremum(builtin: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    def word(a: Any, b: Any) -> Any:
        return builtin(a, b) if isinstance(a, int) and isinstance(b, int) else function(a, b)

    return word


def _integer_pow(base: Any, exponent: Any) -> Any:
    if exponent >= 0:
        return type(base)(np.power(base, exponent))
    if base == 1 or base == -1:
        return base if exponent % 2 else base * base
    return base - base


def _truncation(dtype: type) -> Callable[..., Any]:
    through: type = np.int64 if dtype is np.int64 else np.int32

    def word(x: Any) -> Any:
        return np.asarray(x).astype(through).astype(dtype)[()]

    return word


def _rounding(dtype: dtypes.DType) -> Callable[..., Any]:
    return lambda x: np.float32(np.asarray(x).astype(dtype.numpy)[()])


def _uniform(dtype: dtypes.DType) -> Callable[..., Any]:
    def word(seed: int, step: int, stream: int, index: int) -> Any:
        return uniform_scalar(int(seed), int(step), int(stream), int(index), dtype)

    return word


def _select(condition: Any, a: Any, b: Any) -> Any:
    return a if condition else b


def _quotient(a: int, b: int) -> int:
    return int(a) // int(b)


WORDS: dict[str, Callable[..., Any]] = {
    **{n: _of_dtype(VOCABULARY[n].numpy) for n in (
        "exp", "expm1", "log", "log1p", "sin", "cos", "tan", "atan", "atan2", "tanh", "sigmoid", "erf",
    )},
    "floor": _of_dtype(np.floor), "ceil": _of_dtype(np.ceil), "trunc": _of_dtype(np.trunc),
    "round_even": _of_dtype(np.rint), "absolute": _of_dtype(np.abs), "sqrt": _of_dtype(np.sqrt),
    "sign": _of_dtype(np.sign), "select": _select, "quotient": _quotient,
    "maximum": _extremum(max, np.maximum), "minimum": _extremum(min, np.minimum),
    "running_maximum": _extremum(max, np.maximum), "running_minimum": _extremum(min, np.minimum),
    "is_nan": np.isnan, "is_finite": np.isfinite,
    "integer_floordiv": _of_dtype(np.floor_divide), "integer_mod": _of_dtype(np.mod),
    "shift_left": _of_dtype(np.left_shift), "shift_right": _of_dtype(np.right_shift),
    "float_floordiv": _of_dtype(np.floor_divide), "float_mod": _of_dtype(np.mod),
    "float_pow": _of_dtype(np.power), "integer_pow": _integer_pow,
    "truncate_i8": _truncation(np.int8), "truncate_u8": _truncation(np.uint8),
    "truncate_i32": _truncation(np.int32), "truncate_i64": _truncation(np.int64),
    "round_f16": _rounding(dtypes.f16), "round_bf16": _rounding(dtypes.bf16),
    "uniform_f32": _uniform(dtypes.f32), "uniform_f64": _uniform(dtypes.f64),
}  # fmt: skip
