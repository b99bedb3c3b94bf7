"""Activations and other elementwise functions: cases in which Tenon and PyTorch do the same."""

from __future__ import annotations

from typing import Any

import numpy as np

import tenon as tn
from parity import Case, ModuleCase, distinct, normal, uniform
from tenon import F, nn

WIDE = np.array([-200.0, -30.0, -5.0, -0.7, -1e-4, 0.3, 2.5, 21.0, 90.0])
EDGES = np.array([np.nan, np.inf, -np.inf, 0.0])
X = distinct(3, 4, 5)


ROUGH = 1e3
"""PyTorch divides by 6, and by celu's alpha, through factors in f32, also for f64."""


def each(name: str, *options: dict[str, Any], tolerance: float = 1.0, edges: np.ndarray = EDGES) -> list[Case]:
    """An activation with its defaults and with options: far out, and its values at the edges."""

    def case(text: str, kwargs: dict[str, Any], x: np.ndarray, **more: Any) -> Case:
        return Case(f"{name}{text}", lambda v: getattr(F, name)(v, **kwargs),
                    lambda t, v: getattr(t.nn.functional, name)(v, **kwargs), (x,), tolerance=tolerance, **more)  # fmt: skip

    return [
        case("", {}, X, compiled=True, batched=(0,)),
        case("/wide", {}, WIDE),
        case("/edges", {}, edges, grads=False),
        case("/empty", {}, normal(0, 3)),
        *(case(f"/{o}", o, np.concatenate([WIDE, X.ravel()])) for o in options),
    ]


def unary(name: str, x: np.ndarray, **more: Any) -> Case:
    return Case(name, getattr(tn, name), lambda t, v: getattr(t, name)(v), (x,), **more)


def pair(name: str, x: np.ndarray, y: np.ndarray, **more: Any) -> Case:
    return Case(name, getattr(tn, name), lambda t, a, b: getattr(t, name)(a, b), (x, y), **more)


INSIDE = uniform(-0.95, 0.95, 3, 4)

CASES: list[Case | ModuleCase] = [
    *each("relu"), *each("relu6"), *each("leaky_relu", {"negative_slope": 0.3}), *each("elu", {"alpha": 0.5}),
    *each("selu"), *each("celu", {"alpha": 0.7}, tolerance=ROUGH), *each("hardtanh", {"min_val": -2.0, "max_val": 0.5}),
    *each("hardsigmoid", tolerance=ROUGH), *each("hardswish"), *each("hardshrink", {"lambd": 1.1}), *each("softshrink", {"lambd": 1.1}),
    *each("tanhshrink"), *each("logsigmoid"), *each("softplus", {"beta": 2.0, "threshold": 5.0}), *each("softsign"),
    *each("silu"), *each("mish"), *each("gelu", {"approximate": "tanh"}, edges=EDGES[:1]), *each("sigmoid"), *each("tanh"),
    *(Case(f"threshold/{v}", lambda x, v=v: F.threshold(x, 0.4, v), lambda t, x, v=v: t.nn.functional.threshold(x, 0.4, v),
           (X,)) for v in (-3.0, 0.0)),
    *(Case(f"glu/{d}", lambda x, d=d: F.glu(x, d), lambda t, x, d=d: t.nn.functional.glu(x, d), (normal(2, 4, 6),))
      for d in (1, -1)),
    Case("prelu/one", F.prelu, lambda t, x, w: t.nn.functional.prelu(x, w), (X, np.array([0.2]))),
    Case("prelu/channels", F.prelu, lambda t, x, w: t.nn.functional.prelu(x, w), (X, uniform(0, 1, 4)), compiled=True),
    Case("rrelu", F.rrelu, lambda t, x: t.nn.functional.rrelu(x), (X,)),
    *(Case(f"{name}/{d}", lambda x, n=name, d=d: getattr(F, n)(x, d),
           lambda t, x, n=name, d=d: getattr(t.nn.functional, n)(x, d), (normal(3, 4, 2) * 5,))
      for name in ("softmax", "log_softmax", "softmin") for d in (0, 1, -1)),
    *(unary(n, np.concatenate([X.ravel(), [0.1, -0.02, 12.0, -30.0]]))
      for n in ("sin", "cos", "tan", "atan", "tanh", "erf", "exp2", "expm1", "sinh", "cosh", "asinh", "abs", "square",
                "sigmoid", "frac")),
    *(unary(n, INSIDE) for n in ("asin", "acos", "atanh", "tan")),
    *(unary(n, uniform(0.2, 30, 4, 3)) for n in ("log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal")),
    unary("acosh", uniform(1.1, 30, 4, 3)),
    *(unary(n, np.concatenate([X.ravel(), EDGES, [2.5, -2.5, 0.5]]), grads=False)
      for n in ("floor", "ceil", "trunc", "round", "isnan", "isinf", "isfinite")),
    unary("sign", np.concatenate([X.ravel(), [0.0, np.inf]]), grads=False),  # of NaN it is NaN here, and 0 there
    *(pair(n, distinct(4, 1, 3), distinct(5, 3) * 1.01) for n in ("hypot", "logaddexp", "fmax", "fmin", "atan2", "maximum",
                                                                "minimum", "add", "sub", "mul", "div")),
    *(pair(n, np.array([3.3, -3.3, 7.1, 0.0]), np.array([[1.5], [-2.0]])) for n in ("fmod", "remainder")),
    pair("floor_divide", np.array([3.3, -3.3, 7.1, 0.0]), np.array([[1.5], [-2.0]]), grads=False),
    pair("xlogy", np.array([0.0, 0.5, -2.0, 0.0]), np.array([0.3, 1.2, 2.0, np.nan]), grads=False),
    pair("xlogy", np.array([0.0, 0.5, -2.0]), np.array([0.3, 1.2, 2.0])),
    pair("pow", uniform(0.3, 3, 4, 3), normal(3)),
    Case("lerp", tn.lerp, lambda t, a, b, w: t.lerp(a, b, w), (normal(3, 4), normal(3, 4), uniform(0, 1, 3, 4))),
    Case("where", lambda x, y: tn.where(x > 0, x, y), lambda t, x, y: t.where(x > 0, x, y), (X, X[::-1].copy())),
    *(Case(f"clamp/{a}/{b}", lambda x, a=a, b=b: tn.clamp(x, a, b), lambda t, x, a=a, b=b: t.clamp(x, a, b), (X,))
      for a, b in ((-1.0, 2.0), (None, 0.5), (0.5, None))),
    Case("nan_to_num", tn.nan_to_num, lambda t, x: t.nan_to_num(x), (np.concatenate([EDGES, X.ravel()]),), grads=False),
    Case("isclose", lambda x, y: tn.isclose(x, y, equal_nan=True), lambda t, x, y: t.isclose(x, y, equal_nan=True),
         (np.concatenate([EDGES, [1.0, 2.0]]), np.concatenate([EDGES, [1.0 + 1e-7, 2.1]])), grads=False),
    *(Case(n, lambda x, y, n=n: getattr(tn, n)(x, y), lambda t, x, y, n=n: getattr(t, n)(x, y),
           (np.array([0, 1, 5, -6]), np.array([[3], [1]])), grads=False, dtypes=("f64",))
      for n in ("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_left_shift", "bitwise_right_shift", "logical_and",
                "logical_or", "floor_divide", "remainder", "fmod", "maximum", "eq", "lt", "ge")),
    ModuleCase("Linear", lambda: nn.Linear(4, 3), lambda t: t.nn.Linear(4, 3), (normal(2, 4),), compiled=True),
]  # fmt: skip
