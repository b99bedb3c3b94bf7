"""The math functions that kernels call: vectorisable, inlined, without libm.

Numba has had no vector math library since 0.62, so these are the project's own: see :mod:`exponential` and
:mod:`trigonometry` for methods and sources. f32 results are within 2 ulp, f64 within a few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic

from runtime import exponential, remainders, scalar_ir, trigonometry
from runtime.cpu.intrinsics import CONSTANT_SCOPE, absolute, floor, mark_scope, select
from runtime.cpu.tiles import host_vector_bytes
from runtime.irvalue import Num


class _Num(Num):
    """With the scope of constant tables, and AVX-512's instruction for scaling by a power of two."""

    __slots__ = ()

    def scaled(self, n: Num) -> Num:
        return self.call("ldexp", n) if self.is_f32 and host_vector_bytes() == 64 else super().scaled(n)

    def table(self, name: str, values: Sequence[float], index: Num) -> Num:
        found = super().table(name, values, index)
        mark_scope(self.builder.module, found.value, CONSTANT_SCOPE)
        return found


def _unary(function: Callable[[Num], Num]):
    @intrinsic
    def operator(typingctx, x):
        def codegen(context, builder, signature, args):
            return function(_Num(builder, args[0])).value

        return x(x), codegen

    return operator


def _binary(function: Callable[[Num, Num], Num]):
    @intrinsic
    def operator(typingctx, x, y):
        def codegen(context, builder, signature, args):
            return function(_Num(builder, args[0]), _Num(builder, args[1])).value

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
        return _Num(builder, args[0]).copysign(_Num(builder, args[1])).value

    return x(x, x), codegen


float_mod, float_floordiv, integer_pow = remainders.words(
    njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True), absolute, floor, select, _with_sign_of
)


# --- random numbers --------------------------------------------------------------------------------------------


def _uniform(result: types.Float, draw: Callable[..., Num]):
    @intrinsic
    def operator(typingctx, seed, step, stream, index):
        def codegen(context, builder: ir.IRBuilder, signature, args):
            return draw(*(_Num(builder, a) for a in args)).value

        return result(types.int64, types.int64, types.int64, types.int64), codegen

    return operator


uniform_f32 = _uniform(types.float32, scalar_ir.uniform_f32)
uniform_f64 = _uniform(types.float64, scalar_ir.uniform_f64)

__all__ = [
    "atan", "atan2", "cos", "erf", "exp", "expm1", "float_floordiv", "float_mod", "float_pow", "integer_pow", "log",
    "log1p", "sigmoid", "sin", "tan", "tanh", "uniform_f32", "uniform_f64",
]  # fmt: skip
