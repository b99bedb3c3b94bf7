"""Transposing a square of elements in vector registers, for packing what lies the other way round."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_INT = ir.IntType(64)
_ELEMENT = {"f32": (ir.FloatType(), 4), "f64": (ir.DoubleType(), 8)}


def __getattr__(name: str) -> Callable[..., None]:
    """The intrinsic that :func:`runtime.cpu.tiles.transpose_name` names."""
    found = re.fullmatch(r"transpose_(f32|f64)_(\d+)", name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return transpose(found[1], int(found[2]))


@cache
def transpose(dtype: str, lanes: int) -> Callable[..., None]:
    """The intrinsic ``transpose(source, source_step, target, target_step)``; all arguments int64, steps in bytes.

    Element ``j`` of row ``i`` of a ``lanes`` x ``lanes`` square goes to element ``i`` of row ``j``. In round ``d`` = 1,
    2, 4 ... rows ``d`` apart exchange the elements in which bit ``d`` of the row and of the column differ.
    """
    element, size = _ELEMENT[dtype]
    vector = ir.VectorType(element, lanes)
    mask_type = ir.VectorType(ir.IntType(32), lanes)

    def emit(builder: ir.IRBuilder, args: list[ir.Value]) -> None:
        source, source_step, target, target_step = args

        def row(base: ir.Value, step: ir.Value, number: int) -> ir.Value:
            return builder.inttoptr(builder.add(base, builder.mul(step, _INT(number))), ir.PointerType())

        rows = [builder.load(row(source, source_step, i), typ=vector, align=size) for i in range(lanes)]
        distance = 1
        while distance < lanes:
            low = [e + lanes - distance if e & distance else e for e in range(lanes)]
            high = [e + lanes if e & distance else e + distance for e in range(lanes)]
            for i in (i for i in range(lanes) if not i & distance):
                pair = rows[i], rows[i + distance]
                rows[i] = builder.shuffle_vector(*pair, ir.Constant(mask_type, low))
                rows[i + distance] = builder.shuffle_vector(*pair, ir.Constant(mask_type, high))
            distance *= 2
        for i, value in enumerate(rows):
            builder.store(value, row(target, target_step, i), align=size)

    @intrinsic
    def transpose(typing, source, source_step, target, target_step):
        def generate(context, builder, signature, args):
            emit(builder, args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), generate

    return transpose
