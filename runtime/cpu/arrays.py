"""Memory as arrays, for users' kernels: what the function around such a kernel is written with.

Nothing here counts references: the memory is the program's, and a kernel that makes arrays of its own does not compile.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from runtime.cpu.intrinsics import slot

compiled = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)
"""Decorator of the functions that kernels call."""


def _maker(dtype: types.Type):
    @intrinsic
    def array(typingctx, address, shape):
        """The C-contiguous array of a shape at an address."""
        result = types.Array(dtype, len(shape), "C")

        def codegen(context, builder, signature, args):
            step = context.get_abi_sizeof(context.get_data_type(dtype))
            sizes = [builder.extract_value(args[1], i) for i in range(len(shape))]
            sizes = [builder.sext(n, ir.IntType(64)) if n.type.width < 64 else n for n in sizes]
            strides = [ir.Constant(ir.IntType(64), step)]
            for n in sizes[:0:-1]:
                strides.insert(0, builder.mul(strides[0], n))
            made = make_array(result)(context, builder)
            data = builder.inttoptr(args[0], context.get_data_type(dtype).as_pointer())
            populate_array(made, data, sizes, strides[: len(shape)], step, None)
            return made._getvalue()

        return result(types.int64, shape), codegen

    return array


array_float32 = _maker(types.float32)
array_float64 = _maker(types.float64)
array_int8 = _maker(types.int8)
array_uint8 = _maker(types.uint8)
array_int32 = _maker(types.int32)
array_int64 = _maker(types.int64)
array_bool_ = _maker(types.boolean)

nan, inf, minus_inf = np.nan, np.inf, -np.inf

__all__ = ["array_bool_", "array_float32", "array_float64", "array_int8", "array_int32", "array_int64",
           "array_uint8", "compiled", "inf", "minus_inf", "nan", "slot"]  # fmt: skip
