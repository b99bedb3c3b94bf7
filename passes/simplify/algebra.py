"""Identities of arithmetic that hold for every value, NaN and infinity included.

The sign of a zero result may change, as the kernels' own arithmetic (``nsz``) allows; nothing else may.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine import dtypes
from engine.dtypes import DType
from engine.graph import Node, Value, apply, constant
from engine.rules import full
from passes.simplify.patterns import Number, Rule, Var, op

X, Y = Var("x"), Var("y")
C, D = Number("c"), Number("d")
ZERO, ONE = Number("zero", lambda n: n == 0), Number("one", lambda n: n == 1)
_IDEMPOTENT = ("relu", "abs", "floor", "ceil", "round", "trunc", "sign")


def _uniform(root: Node) -> bool:
    """Whether nothing is promoted on the way: wrapping and rounding happen in one dtype throughout."""
    return all(v.dtype == root.output.dtype for v in root.inputs)


def _difference(x: Value, y: Value, root: Node) -> Value | None:
    return apply("sub", x, y) if _uniform(root) else None


def _sum(x: Value, y: Value, root: Node) -> Value | None:
    return apply("add", x, y) if _uniform(root) else None


def _integer_zero(x: Value, root: Node) -> Value | None:
    if x.dtype.is_float or root.output.dtype.is_float:
        return None  # 0 * inf is NaN
    return full(root.output.shape, 0, root.output.dtype)


def _scaled_twice(x: Value, c: Any, d: Any, root: Node) -> Value | None:
    """``x * c * d`` as ``x * (c * d)`` where no rounding parts them: integers wrap either way; scaling floats up by
    powers of two rounds only to infinity, and by -1 never. Scaling down twice would round a subnormal twice."""
    if not _uniform(root) or x.dtype != root.output.dtype:
        return None
    if x.dtype.is_float:
        product = float(c) * float(d)
        if not (abs(c) == 1 or abs(d) == 1 or (_scales_up(c) and _scales_up(d))):
            return None
        return apply("mul", x, constant(product, x.dtype)) if math.isfinite(_rounded(product, x.dtype)) else None
    if not x.dtype.is_integer:
        return None
    bits = 8 * x.dtype.itemsize
    product = (int(c) * int(d)) % (1 << bits)
    if x.dtype.kind == "i" and product >> (bits - 1):
        product -= 1 << bits
    return apply("mul", x, constant(product, x.dtype))


def _rounded(number: float, dtype: DType) -> float:
    """``number`` as a value of ``dtype``; infinity where it overflows."""
    with np.errstate(over="ignore"):
        return float(np.asarray(number).astype(dtype.numpy))


def _scales_up(c: Any) -> bool:
    return abs(float(c)) >= 1 and math.isfinite(float(c)) and abs(math.frexp(float(c))[0]) == 0.5


def _times_reciprocal(x: Value, c: Any, root: Node) -> Value | None:
    """``x / c`` as a product, where the reciprocal of ``c`` is exact: c is a power of two."""
    if not _uniform(root) or not math.isfinite(float(c)) or abs(math.frexp(float(c))[0]) != 0.5:
        return None
    reciprocal = 1 / float(c)
    return apply("mul", x, constant(reciprocal, x.dtype)) if _rounded(reciprocal, x.dtype) == reciprocal else None


def _negated_factor(x: Value, c: Any, root: Node) -> Value | None:
    if not _uniform(root) or not x.dtype.is_float or x.dtype != root.output.dtype:
        return None
    return apply("mul", x, constant(-c, x.dtype))


def _square(x: Value) -> Value | None:
    return None if x.dtype == dtypes.bool_ else apply("square", x)


RULES = (
    Rule("x + 0", op("add", X, ZERO), lambda x: x),
    Rule("x - 0", op("sub", X, ZERO), lambda x: x),
    Rule("x * 1", op("mul", X, ONE), lambda x: x),
    Rule("x / 1", op("div", X, ONE), lambda x: x),
    Rule("x * 0 of integers", op("mul", X, ZERO), _integer_zero),
    Rule("--x", op("neg", op("neg", X)), lambda x: x),
    Rule("x + -y", op("add", X, op("neg", Y)), _difference),
    Rule("x - -y", op("sub", X, op("neg", Y)), _sum),
    Rule("-(x * c)", op("neg", op("mul", X, C)), _negated_factor),
    Rule("-x * c", op("mul", op("neg", X), C), _negated_factor),
    Rule("x * c * d", op("mul", op("mul", X, C), D), _scaled_twice),
    Rule("x / 2**n", op("div", X, C), _times_reciprocal),
    Rule("x * x", op("mul", X, X), _square),
    Rule("x ** 1", op("pow", X, ONE), lambda x: x),
    Rule("x ** 2", op("pow", X, Number("two", lambda n: n == 2)), _square),
    Rule("where(c, x, x)", op("where", Var("c"), X, X), lambda x: x),
    Rule("merge(c, x, x)", op("merge", Var("c"), X, X), lambda x: x),
    Rule("merge(known, x, y)", op("merge", C, X, Y), lambda c, x, y: x if c else y),
    Rule("not not x", op("not_", op("not_", X)), lambda x: x),
    *(Rule(f"{f}({f}(x))", op(f, op(f, X, name="inner")), lambda inner: inner) for f in _IDEMPOTENT),
)
