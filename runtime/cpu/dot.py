"""The product of two short vectors, in vector registers: left to itself LLVM would rather gather from many at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from runtime.cpu.intrinsics import mark_scope

_INT = ir.IntType(64)
_ELEMENT = {"f32": (ir.FloatType(), 4), "f64": (ir.DoubleType(), 8)}


def __getattr__(name: str) -> Callable[..., None]:
    """The intrinsic that :func:`runtime.cpu.tiles.dot_name` names."""
    found = re.fullmatch(r"dot_(f32|f64)_(\d+)x(\d+)", name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return dot(found[1], int(found[2]), int(found[3]))


@cache
def dot(dtype: str, size: int, lanes: int) -> Callable[..., None]:
    """The intrinsic ``dot(a, b, scope_a, scope_b)``: the sum of the products of the ``size`` elements at two addresses,
    of these alias scopes."""
    element, itemsize = _ELEMENT[dtype]
    kind = types.float32 if dtype == "f32" else types.float64

    def emit(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, scopes: tuple[int, int]) -> ir.Value:
        def load(base: ir.Value, start: int, count: int, scope: int) -> ir.Value:
            vector = ir.VectorType(element, count)
            pointer = builder.inttoptr(builder.add(base, _INT(start * itemsize)), ir.PointerType())
            loaded = builder.load(pointer, typ=vector, align=itemsize)
            mark_scope(builder.module, loaded, scope)
            return loaded

        sums: dict[int, ir.Value] = {}
        start, count = 0, lanes
        while start < size:
            while count > size - start:
                count //= 2
            x, y = (load(p, start, count, s) for p, s in zip((a, b), scopes, strict=True))
            if count in sums:
                name = f"llvm.fmuladd.v{count}{dtype}"
                multiply_add = get_or_insert_function(builder.module, ir.FunctionType(x.type, [x.type] * 3), name)
                sums[count] = builder.call(multiply_add, [x, y, sums[count]])
            else:
                sums[count] = builder.fmul(x, y)
            start += count
        total = ir.Constant(element, 0.0)
        for count, vector in sums.items():
            name = f"llvm.vector.reduce.fadd.v{count}{dtype}"
            reduce = get_or_insert_function(builder.module, ir.FunctionType(element, [element, vector.type]), name)
            total = builder.call(reduce, [total, vector], fastmath=("reassoc", "nsz"))
        return total

    @intrinsic(prefer_literal=True)
    def dot(typing, a, b, scope_a, scope_b):
        scopes = (scope_a.literal_value, scope_b.literal_value)

        def generate(context, builder, signature, args):
            return emit(builder, args[0], args[1], scopes)

        return kind(types.int64, types.int64, scope_a, scope_b), generate

    return dot
