"""Arithmetic that rounds otherwise, for level 3: products with reciprocals instead of quotients.

Each such product is within 1.5 units in the last place of the quotient, which is within 0.5. Where the reciprocal of a
divisor overflows or loses digits (beyond 2**126 in f32, or subnormal), a number stays a divisor, and a tensor gives
infinity or zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine import dims
from engine.graph import Node, Value, apply, constant
from passes.simplify.patterns import Number, Rule, Var, number_of, op

X, Y, C, D = Var("x"), Var("y"), Number("c"), Number("d")


def _uniform_floats(root: Node) -> bool:
    dtype = root.output.dtype
    return dtype.is_float and dtype.itemsize >= 4 and all(v.dtype == dtype for v in root.inputs)


def _by_number(x: Value, c: Any, root: Node) -> Value | None:
    if not _uniform_floats(root):
        return None
    limits = np.finfo(np.float64 if x.dtype.itemsize == 8 else np.float32)
    if not float(limits.tiny) <= abs(float(c)) <= 1 / float(limits.tiny):
        return None
    return apply("mul", x, constant(1 / float(c), x.dtype))


def _by_few(x: Value, y: Value, root: Node) -> Value | None:
    """One division for each element of the divisor, where each divides several."""
    few = dims.product(y.shape)
    if (
        number_of(y) is not None
        or not _uniform_floats(root)
        or few == dims.product(root.output.shape)
        or x.type != root.output.type
    ):
        return None
    return apply("mul", x, apply("reciprocal", y))


def _scaled_once(x: Value, c: Any, d: Any, root: Node) -> Value | None:
    if not _uniform_floats(root) or x.dtype != root.output.dtype:
        return None
    with np.errstate(over="ignore", under="ignore"):
        scale = float(c) * float(d)
    whole = np.isfinite(scale) and abs(scale) >= np.finfo(np.float32).tiny
    return apply("mul", x, constant(scale, x.dtype)) if whole and abs(scale) < np.finfo(np.float32).max else None


RULES = (
    Rule("x / c as a product", op("div", X, C), _by_number),
    Rule("x / y as products", op("div", X, Y), _by_few),
    Rule("x * c * d, rounded once", op("mul", op("mul", X, C), D), _scaled_once),
)
