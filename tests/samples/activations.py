"""Activations and further elementwise functions: arguments on which ops are tried."""

from __future__ import annotations

import numpy as np

from samples import Sample, between, distinct

_F = "nn.functional."
_ANYWHERE = (
    "selu",
    "relu6",
    "hardsigmoid",
    "hardswish",
    "tanhshrink",
    "logsigmoid",
    "softsign",
    "silu",
    "mish",
    "gelu",
)
_X = distinct(3, 6) * 0.9


def _number(x: float) -> np.ndarray:
    return np.asarray(x)


SAMPLES: list[Sample] = [
    *(Sample(name, (_X,), torch=_F + name) for name in _ANYWHERE),
    *(Sample(name, (_X,), torch=name) for name in ("exp2", "sinh", "cosh", "asinh", "frac", "deg2rad")),
    Sample("rad2deg", (_X * 0.01,), torch="rad2deg"),
    *(Sample(name, (between(-0.9, 0.9, 3, 4),), torch=name) for name in ("asin", "acos", "atanh")),
    *(Sample(name, (between(0.3, 3, 3, 4),), torch=name) for name in ("log2", "log10")),
    Sample("acosh", (between(1.2, 9, 3, 4),), torch="acosh"),
    Sample("gelu_tanh", (_X,), torch=lambda t, x: t.nn.functional.gelu(x, approximate="tanh")),
    Sample("leaky_relu", (_X, _number(0.2))),
    Sample("leaky_relu", (distinct(2, 3, 4), between(0.1, 0.5, 3, 1))),
    Sample("elu", (_X, _number(0.7))),
    Sample("celu", (_X, _number(0.7))),
    Sample("hardtanh", (_X, _number(-1.1), _number(0.8))),
    Sample("hardshrink", (_X, _number(0.5))),
    Sample("softshrink", (_X, _number(0.5))),
    Sample("threshold", (_X, _number(0.2), _number(-3.0))),
    Sample("softplus", (_X, _number(1.5), _number(2.0))),
    Sample("fmod", (np.array([3.3, -3.3, 7.1]), np.array([[1.5], [-2.0]])), torch="fmod"),
    *(
        Sample(name, (distinct(3, 4), distinct(4) * 1.1), torch=name)
        for name in ("hypot", "logaddexp", "logaddexp2", "fmax", "fmin", "copysign")
    ),
    Sample("xlogy", (np.array([0.5, -2.0]), between(0.5, 2, 2)), torch="xlogy"),
    Sample("lerp", (distinct(3, 4), distinct(4), between(0, 1, 3, 1)), torch="lerp"),
]
