"""The math functions that kernels call: vectorisable, inlined, without libm.

Numba has had no vector math library since 0.62, so these are the project's own: see :mod:`exponential` and
:mod:`trigonometry` for methods and sources. f32 results are within 2 ulp, f64 within a few.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic

from engine.random import MULTIPLIERS, ROUNDS, WEYL
from runtime.cpu import exponential, trigonometry
from runtime.cpu.intrinsics import absolute, floor, select
from runtime.cpu.irvalue import F32, F64, I32, Num


def _unary(function: Callable[[Num], Num]):
    @intrinsic
    def operator(typingctx, x):
        def codegen(context, builder, signature, args):
            return function(Num(builder, args[0])).value

        return x(x), codegen

    return operator


def _binary(function: Callable[[Num, Num], Num]):
    @intrinsic
    def operator(typingctx, x, y):
        def codegen(context, builder, signature, args):
            return function(Num(builder, args[0]), Num(builder, args[1])).value

        return x(x, x), codegen

    return operator


exp = _unary(exponential.exp)
expm1 = _unary(exponential.expm1)
log = _unary(exponential.log)
log1p = _unary(exponential.log1p)
tanh = _unary(exponential.tanh)
sigmoid = _unary(exponential.sigmoid)
erf = _unary(exponential.erf)
float_pow = _binary(exponential.power)
sin = _unary(trigonometry.sin)
cos = _unary(trigonometry.cos)
tan = _unary(trigonometry.tan)
atan = _unary(trigonometry.atan)
atan2 = _binary(trigonometry.atan2)


# --- division with remainder -----------------------------------------------------------------------------------


@intrinsic
def _with_sign_of(typingctx, x, y):
    def codegen(context, builder, signature, args):
        return Num(builder, args[0]).copysign(Num(builder, args[1])).value

    return x(x, x), codegen


_helper = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)


@_helper
def _truncated_remainder(a, b):
    """C's fmod, exactly: long division in base 2, every subtraction exact by Sterbenz's lemma."""
    rest, size = absolute(a), absolute(b)
    if not (rest - rest == 0 and size > 0):  # infinite or NaN a, zero or NaN b
        return a * b - a * b + (rest - rest) / (size - size)
    step = size
    half = rest / 2
    while step <= half:
        step += step
    while step >= size and rest >= size:
        if rest >= step:
            rest -= step
        step /= 2
    return _with_sign_of(rest, a)


@_helper
def float_mod(a, b):
    """NumPy's mod: the remainder has the sign of ``b``."""
    rest = _truncated_remainder(a, b)
    moved = select((rest != 0) & ((b < 0) != (rest < 0)), rest + b, rest)
    return select(rest == 0, _with_sign_of(rest, b), moved)


@_helper
def float_floordiv(a, b):
    """NumPy's floor_divide: exact where a / b, rounded, would land on the wrong side of an integer."""
    if b == 0:
        return a / b
    rest = _truncated_remainder(a, b)
    ratio = (a - rest) / b
    if (rest != 0) and ((b < 0) != (rest < 0)):
        ratio -= 1
    if ratio == 0:
        return _with_sign_of(ratio, a / b)
    whole = floor(ratio)
    return select(ratio - whole > type(ratio)(0.5), whole + 1, whole)


@_helper
def integer_pow(base, exponent):
    """base**exponent, wrapping; a negative exponent, which NumPy refuses, gives the truncated quotient 1 / base**n."""
    result = base - base + 1
    if exponent < 0:
        if base == 1:
            return result
        if base == -1:
            return result if exponent % 2 == 0 else -result
        return result - 1
    while exponent > 0:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


# --- random numbers --------------------------------------------------------------------------------------------

_LOW_32 = 0xFFFFFFFF


def _philox(seed: Num, step: Num, stream: Num, index: Num) -> tuple[Num, Num]:
    """Words 0 and 1 of the block that engine.random defines, as i64 values below 2**32."""
    c0, c1 = index & _LOW_32, index.logical_shift(32)
    c2, c3 = stream & _LOW_32, step & _LOW_32
    k0, k1 = seed & _LOW_32, seed.logical_shift(32)
    for _ in range(ROUNDS):
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            p1.logical_shift(32) ^ c1 ^ k0, p1 & _LOW_32, p0.logical_shift(32) ^ c3 ^ k1, p0 & _LOW_32
        )  # fmt: skip
        k0, k1 = (k0 + WEYL[0]) & _LOW_32, (k1 + WEYL[1]) & _LOW_32
    return c0, c1


def _uniform(result: types.Float, convert: Callable[[Num, Num], Num]):
    @intrinsic
    def operator(typingctx, seed, step, stream, index):
        def codegen(context, builder: ir.IRBuilder, signature, args):
            return convert(*_philox(*(Num(builder, a) for a in args))).value

        return result(types.int64, types.int64, types.int64, types.int64), codegen

    return operator


uniform_f32 = _uniform(types.float32, lambda a, b: a.logical_shift(8).to(I32).to(F32) * 2.0**-24)
uniform_f64 = _uniform(types.float64, lambda a, b: ((a << 32) | b).logical_shift(11).to(F64) * 2.0**-53)

__all__ = [
    "atan", "atan2", "cos", "erf", "exp", "expm1", "float_floordiv", "float_mod", "float_pow", "integer_pow", "log",
    "log1p", "sigmoid", "sin", "tan", "tanh", "uniform_f32", "uniform_f64",
]  # fmt: skip
