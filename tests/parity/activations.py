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


def slope(name: str, far: float = 1e4, **options: Any) -> Case:
    """The gradient of an activation, far out too: the runner's gradients of it are the second ones."""

    def ours(x: Any) -> Any:
        return tn.grad(lambda v: getattr(F, name)(v, **options).sum())(x)

    def theirs(t: Any, x: Any) -> Any:
        (found,) = t.autograd.grad(getattr(t.nn.functional, name)(x, **options).sum(), x, create_graph=True)
        return found

    x = np.concatenate([WIDE, [far, -far], X.ravel()])
    return Case(f"{name}/slope", ours, theirs, (x[abs(x) <= far],))


def module(name: str, x: np.ndarray, *args: Any, compiled: bool = False, **options: Any) -> ModuleCase:
    return ModuleCase(name, lambda: getattr(nn, name)(*args, **options), lambda t: getattr(t.nn, name)(*args, **options),
                      (x,), compiled=compiled)  # fmt: skip


def unary(name: str, x: np.ndarray, **more: Any) -> Case:
    return Case(name, getattr(tn, name), lambda t, v: getattr(t, name)(v), (x,), **more)


def pair(name: str, x: np.ndarray, y: np.ndarray, **more: Any) -> Case:
    return Case(name, getattr(tn, name), lambda t, a, b: getattr(t, name)(a, b), (x, y), **more)


SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 2.5, -2.5, 40.0, -40.0])
FINITE = np.array([0.0, 0.5, -0.5, 1.0, -1.0, 2.5, -2.5, 40.0, -40.0])
NUMBERS = ("abs", "sqrt", "rsqrt", "reciprocal", "log", "log2", "log10", "log1p", "exp2", "asin", "acos", "sinh", "cosh", "acosh",
           "atanh", "signbit", "isposinf", "isneginf", "logical_not")  # fmt: skip
PAIRS = ("add", "sub", "mul", "div", "pow", "atan2", "maximum", "minimum", "fmax", "fmin", "logaddexp", "xlogy", "remainder",
         "fmod", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor")  # fmt: skip
INSIDE = uniform(-0.95, 0.95, 3, 4)

CASES: list[Case | ModuleCase] = [
    *each("relu"), *each("relu6"), *each("leaky_relu", {"negative_slope": 0.3}), *each("elu", {"alpha": 0.5}),
    *each("selu"), *each("celu", {"alpha": 0.7}, tolerance=ROUGH), *each("hardtanh", {"min_val": -2.0, "max_val": 0.5}),
    *each("hardsigmoid", tolerance=ROUGH), *each("hardswish"), *each("hardshrink", {"lambd": 1.1}), *each("softshrink", {"lambd": 1.1}),
    *each("tanhshrink"), *each("logsigmoid"), *each("softplus", {"beta": 2.0, "threshold": 5.0}), *each("softsign"),
    *(slope(n) for n in ("relu", "relu6", "leaky_relu", "elu", "selu", "hardtanh", "hardswish", "hardshrink", "softshrink",
                         "tanhshrink", "logsigmoid", "softsign", "silu", "gelu", "sigmoid", "tanh")),
    slope("mish", far=40.0),  # PyTorch's is NaN further out
    slope("elu", alpha=0.5), slope("celu", alpha=0.5), slope("softplus", beta=2.0), slope("gelu", approximate="tanh"),
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
    *(unary(n, SPECIAL, grads=False) for n in NUMBERS),
    *(unary(n, SPECIAL) for n in ("square", "exp", "expm1", "sigmoid", "tanh", "erf", "atan", "asinh", "relu", "deg2rad",
                                  "rad2deg", "sinc")),
    *(pair(n, SPECIAL, SPECIAL[:, None], grads=False) for n in PAIRS if n not in ("copysign",)),
    pair("copysign", SPECIAL[1:], SPECIAL[1:, None], grads=False),
    *(pair(n, FINITE, FINITE[:, None]) for n in ("add", "sub", "mul", "maximum", "minimum", "fmax", "fmin", "atan2",
                                                 "copysign", "pow")),
    *(pair(n, FINITE, np.array([[2.0], [-0.5], [3.0]])) for n in ("div", "remainder", "fmod")),
    *(pair(n, np.zeros((0, 3)), normal(1, 3)) for n in ("add", "pow", "atan2", "maximum")),
    *(pair(n, distinct(3, 1, 4), distinct(5, 1)) for n in ("logaddexp2", "copysign")),
    *(Case(f"div/{m}", lambda x, y, m=m: tn.div(x, y, rounding_mode=m), lambda t, x, y, m=m: t.div(x, y, rounding_mode=m),
           arrays, grads=False) for m in ("floor", "trunc")
      for arrays in ((np.array([7.0, -7.0, 0.0, 2.5]), np.array([[2.0], [-3.0]])),
                     (np.array([7, -7, 0, 6]), np.array([[2], [-3]])))),
    *(Case(f"round/{d}", lambda x, d=d: tn.round(x, decimals=d), lambda t, x, d=d: t.round(x, decimals=d),
           (uniform(-90, 90, 20),), grads=False) for d in (0, 1, -1)),
    *(Case(f"logit/{e}", lambda x, e=e: tn.logit(x, e), lambda t, x, e=e: t.logit(x, e), (uniform(0.01, 0.99, 9),))
      for e in (None, 0.1)),
    *(Case(n, lambda x, y, z, n=n: getattr(tn, n)(x, y, z, value=0.3), lambda t, x, y, z, n=n: getattr(t, n)(x, y, z, value=0.3),
           (normal(2, 1, 4), normal(3, 1), uniform(1, 2, 4))) for n in ("addcmul", "addcdiv")),
    *(Case(f"{n}/alpha", lambda x, y, n=n: getattr(x, n)(y, alpha=3), lambda t, x, y, n=n: getattr(x, n)(y, alpha=3),
           (normal(2, 3), normal(3))) for n in ("add", "sub")),
    Case("heaviside", tn.heaviside, lambda t, x, y: t.heaviside(x, y), (np.array([-1.0, 0.0, 2.0]), np.array(0.3)), grads=False),
    Case("clamp/tensors", tn.clamp, lambda t, x, a, b: t.clamp(x, a, b), (X, normal(5), 2 + uniform(0, 1, 4, 1))),
    Case("clamp/at the bounds", lambda x: tn.clamp(x, 0, 1), lambda t, x: t.clamp(x, 0, 1), (np.array([-1.0, 0, 0.5, 1, 2]),)),
    Case("where/numbers", lambda x: tn.where(x > 0, x, -1.0), lambda t, x: t.where(x > 0, x, -1.0), (X,)),
    Case("nan_to_num/given", lambda x: tn.nan_to_num(x, 1.0, 2.0, -3.0), lambda t, x: t.nan_to_num(x, 1.0, 2.0, -3.0), (SPECIAL,), grads=False),
    Case("allclose, equal", lambda x, y: (tn.allclose(x, y), tn.equal(x, x), tn.equal(x, y), tn.equal(x, x[:2])),
         lambda t, x, y: tuple(t.tensor(v) for v in (t.allclose(x, y), t.equal(x, x), t.equal(x, y), t.equal(x, x[:2]))),
         (X, X * (1 + 1e-7)), grads=False),
    *(Case(f"{n}/bools", lambda x, y, n=n: getattr(tn, n)(x, y), lambda t, x, y, n=n: getattr(t, n)(x, y),
           (np.array([True, False]), np.array([[True], [False]])), grads=False, dtypes=("f64",))
      for n in ("bitwise_and", "bitwise_or", "bitwise_xor", "logical_and", "logical_or", "logical_xor", "eq", "ne", "maximum")),
    *(Case(f"{n}/{k}", getattr(tn, n), lambda t, x, n=n: getattr(t, n)(x), (np.array([0, 1, 5, -6]).astype(k),), grads=False, dtypes=("f64",))
      for n in ("bitwise_not", "logical_not", "abs", "neg", "sign", "square") for k in ("int32", "int64")),
    *(Case(f"pow/{p}", lambda x, p=p: x**p, lambda t, x, p=p: x**p, (np.array([-2.0, -0.5, 0.0, 1.5, 3.0]),))
      for p in (0, 1, 2, 3, -1, -2)),
    *(Case(f"pow/{p} of integers", lambda x, p=p: x**p, lambda t, x, p=p: x**p, (np.array([-2, 0, 1, 3]),), grads=False, dtypes=("f64",))
      for p in (0, 1, 2, 5)),
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
    # modules
    *(module(n, X) for n in ("ReLU", "ReLU6", "LeakyReLU", "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "Softplus", "Softsign",
                             "Hardsigmoid", "Hardswish", "Hardtanh", "Hardshrink", "Softshrink", "Tanhshrink", "LogSigmoid",
                             "Sigmoid", "Tanh")),
    module("LeakyReLU", X, 0.3), module("ELU", X, alpha=0.5), module("CELU", X, 0.7), module("GELU", X, approximate="tanh"),
    module("Softplus", X, beta=2, threshold=3), module("Hardtanh", X, -0.5, 0.7), module("Hardshrink", X, 1.0),
    module("Softshrink", X, 0.8), module("Threshold", X, 0.4, -2.0), module("GLU", normal(2, 4, 3), 1),
    module("Softmax", X, dim=1), module("LogSoftmax", X, 0), module("Softmin", X, -1), module("Softmax2d", normal(2, 3, 4, 5)),
    module("Softmax2d", normal(3, 4, 5)), module("PReLU", X), module("PReLU", X, 4, 0.1, compiled=True), module("PReLU", normal(3, 4), 4),
    ModuleCase("RReLU/eval", lambda: nn.RReLU(0.1, 0.5), lambda t: t.nn.RReLU(0.1, 0.5), (X,), train=False),
]  # fmt: skip
