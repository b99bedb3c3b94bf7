"""The math functions that GPU kernels call: the CPU's own polynomials, in the same order of operations.

So results agree with the CPU's to within the roundings that fused multiply-adds save: f32 within 2 ulp, f64 within a
few. NVIDIA's library would do for most, but its sin and cos keep an array in local memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runtime import exponential, remainders, scalar_ir, trigonometry
from runtime.cuda import intrinsics
from runtime.cuda.intrinsics import absolute, floor, select
from runtime.cuda.toolkit import SIMULATED, device, typed
from runtime.irvalue import Num
from runtime.scalar_words import WORDS


class _Num(Num):
    """As NVVM takes it: it has no instruction that negates, and constant arrays are in global memory."""

    __slots__ = ()
    constants = 1

    def __neg__(self) -> Num:
        return self.like(-0.0) - self

    def call(self, name: str, *others: Num | float) -> Num:
        return self._of(intrinsics.call(self.builder, name, [self.value, *(self.like(o).value for o in others)]))


def _build(name: str) -> Callable[..., Any]:
    function = next(getattr(m, name) for m in (exponential, trigonometry, scalar_ir) if hasattr(m, name))
    return lambda builder, kind, *args: function(*(_Num(builder, a) for a in args)).value


def _function(name: str, takes: str, gives: str, built_as: str = "") -> Callable[..., Any]:
    return typed(takes, gives, _build(built_as or name))(WORDS[name])


exp = _function("exp", "any", "any")
expm1 = _function("expm1", "any", "any")
log = _function("log", "any", "any")
log1p = _function("log1p", "any", "any")
tanh = _function("tanh", "any", "any")
sigmoid = _function("sigmoid", "any", "any")
erf = _function("erf", "any", "any")
sin = _function("sin", "any", "any")
cos = _function("cos", "any", "any")
tan = _function("tan", "any", "any")
atan = _function("atan", "any", "any")
atan2 = _function("atan2", "any same", "any")
float_pow = _function("float_pow", "any same", "any", "power")
uniform_f32 = _function("uniform_f32", "int64 int64 int64 int64", "float32")
uniform_f64 = _function("uniform_f64", "int64 int64 int64 int64", "float64")
"""Bit-equal to engine/random.py's."""

if SIMULATED:
    float_mod, float_floordiv, integer_pow = (WORDS[n] for n in ("float_mod", "float_floordiv", "integer_pow"))
else:
    _with_sign_of = typed("any same", "any", lambda b, kind, x, y: _Num(b, x).copysign(_Num(b, y)).value)(
        WORDS["select"]
    )
    float_mod, float_floordiv, integer_pow = remainders.words(device, absolute, floor, select, _with_sign_of)
