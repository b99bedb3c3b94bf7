"""Elementwise ops: each is an expression over the scalar vocabulary and its derivatives.

In a derivative ``g`` is the gradient that arrives, ``out`` the op's own output; the result is summed over broadcast
axes and cast by the autodiff pass.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from engine import dims, scalar
from engine.graph import Node, TensorType, Value
from engine.op import Op, register
from engine.rules import build, sum_to


def _rule(expression: str, names: tuple[str, ...], *types: TensorType) -> TensorType:
    last = scalar.typed(expression, names, tuple(t.dtype for t in types))[-1]
    return TensorType(dims.broadcast(*(t.shape for t in types)), last.declared)


def _reference(expression: str, names: tuple[str, ...], *arrays: np.ndarray) -> np.ndarray:
    return scalar.evaluate(expression, names, arrays)


def _gradient(names: tuple[str, ...], derivatives: tuple[str | None, ...], node: Node, g: Value) -> list[Value | None]:
    values = dict(zip(names, node.inputs, strict=True)) | {"g": g, "out": node.outputs[0]}
    return [
        sum_to(build(d, **values), x.shape) if d is not None and x.dtype.is_float else None
        for d, x in zip(derivatives, node.inputs, strict=True)
    ]


def elementwise(name: str, inputs: str, expression: str, derivatives: str | None, doc: str) -> Op:
    """Register an op. ``inputs`` are names split by spaces; ``derivatives`` one expression an input, split by ``;``
    (``-`` where no gradient flows), or None where none flows at all."""
    names = tuple(inputs.split())
    parts = tuple(None if d.strip() == "-" else d.strip() for d in derivatives.split(";")) if derivatives else None
    return register(elementwise_op(name, names, expression, parts, doc))


def elementwise_op(
    name: str, names: tuple[str, ...], expression: str, derivatives: tuple[str | None, ...] | None, doc: str
) -> Op:
    """The record of an op with inputs ``names``; ``derivatives`` has an expression, or None, for each."""
    return Op(
        name,
        "elementwise",
        names,
        partial(_rule, expression, names),
        partial(_reference, expression, names),
        partial(_gradient, names, derivatives) if derivatives else None,
        expression=expression,
        doc=doc,
    )


# name, inputs, expression, derivatives, doc
_TABLE: tuple[tuple[str, str, str, str | None, str], ...] = (
    ("add", "x y", "x + y", "g; g", "x + y"),
    ("sub", "x y", "x - y", "g; -g", "x - y"),
    ("mul", "x y", "x * y", "g*y; g*x", "x * y"),
    ("div", "x y", "x / y", "g/y; -g*out/y", "x / y, in floating point"),
    ("floordiv", "x y", "x // y", None, "floor(x / y); by zero 0 for integers"),
    ("mod", "x y", "x % y", "g; -g*(x // y)", "x - floor(x / y) * y: the sign of y"),
    (
        "pow",
        "x y",
        "x ** y",
        "where(y == 0, 0, g*y*x**(y - 1)); where(and_(x == 0, y >= 0), 0, g*out*log(x))",
        "x to the power y",
    ),
    ("maximum", "x y", "maximum(x, y)",
     "where(x == y, g*0.5, where(x < y, 0, g)); where(x == y, g*0.5, where(y < x, 0, g))",
     "The greater one; NaN wins. Ties share the gradient."),
    ("minimum", "x y", "minimum(x, y)",
     "where(x == y, g*0.5, where(x > y, 0, g)); where(x == y, g*0.5, where(y > x, 0, g))",
     "The lesser one; NaN wins. Ties share the gradient."),
    ("atan2", "y x", "atan2(y, x)",
     "where(x*x + y*y == 0, 0, g*x/(x*x + y*y)); where(x*x + y*y == 0, 0, -g*y/(x*x + y*y))",
     "The angle of the point (x, y)"),
    ("neg", "x", "-x", "-g", "-x"),
    ("abs", "x", "abs(x)", "g*sign(x)", "The magnitude"),
    ("sign", "x", "sign(x)", None, "-1, 0 or 1"),
    ("square", "x", "square(x)", "2*g*x", "x * x"),
    ("sqrt", "x", "sqrt(x)", "g*0.5/out", "The square root"),
    ("rsqrt", "x", "1/sqrt(x)", "-0.5*g*out/x", "1 / sqrt(x)"),
    ("reciprocal", "x", "1/x", "-g*out*out", "1 / x"),
    ("exp", "x", "exp(x)", "g*out", "e to the power x"),
    ("expm1", "x", "expm1(x)", "g*(out + 1)", "exp(x) - 1, exact near 0"),
    ("log", "x", "log(x)", "g/x", "The natural logarithm"),
    ("log1p", "x", "log1p(x)", "g/(1 + x)", "log(1 + x), exact near 0"),
    ("sin", "x", "sin(x)", "g*cos(x)", "The sine of x radians"),
    ("cos", "x", "cos(x)", "-g*sin(x)", "The cosine of x radians"),
    ("tan", "x", "tan(x)", "g*(1 + out*out)", "The tangent of x radians"),
    ("atan", "x", "atan(x)", "g/(1 + x*x)", "The inverse tangent, in radians"),
    ("tanh", "x", "tanh(x)", "g*(1 - out*out)", "The hyperbolic tangent"),
    ("sigmoid", "x", "sigmoid(x)", "g*out*(1 - out)", "1 / (1 + exp(-x))"),
    ("erf", "x", "erf(x)", "g*1.1283791670955126*exp(-x*x)",
     "The error function 2/sqrt(pi) * integral of exp(-t*t) from 0 to x"),
    ("relu", "x", "maximum(x, 0)", "where(out <= 0, 0, g)", "max(x, 0); NaN stays"),
    ("floor", "x", "floor(x)", None, "The greatest integer <= x"),
    ("ceil", "x", "ceil(x)", None, "The least integer >= x"),
    ("trunc", "x", "trunc(x)", None, "x without its fraction"),
    ("round", "x", "round(x)", None, "The nearest integer, halves to even"),
    ("where", "condition x y", "where(condition, x, y)", "-; where(condition, g, 0); where(condition, 0, g)",
     "x where the condition holds, else y"),
    ("eq", "x y", "x == y", None, "x == y"),
    ("ne", "x y", "x != y", None, "x != y"),
    ("lt", "x y", "x < y", None, "x < y"),
    ("le", "x y", "x <= y", None, "x <= y"),
    ("gt", "x y", "x > y", None, "x > y"),
    ("ge", "x y", "x >= y", None, "x >= y"),
    ("and_", "x y", "and_(x, y)", None, "Both are true"),
    ("or_", "x y", "or_(x, y)", None, "Either is true"),
    ("not_", "x", "not_(x)", None, "It is not true"),
    ("isnan", "x", "isnan(x)", None, "It is NaN"),
    ("isfinite", "x", "isfinite(x)", None, "It is neither NaN nor infinite"),
    ("bitand", "x y", "x & y", None, "Bitwise and"),
    ("bitor", "x y", "x | y", None, "Bitwise or"),
    ("bitxor", "x y", "x ^ y", None, "Bitwise exclusive or"),
    ("invert", "x", "~x", None, "Every bit inverted"),
    ("shl", "x y", "x << y", None, "x shifted left by y bits"),
    ("shr", "x y", "x >> y", None, "x shifted right by y bits"),
)  # fmt: skip

for _row in _TABLE:
    elementwise(*_row)
