"""Blocks of vector registers as values of kernels: what the microkernel has summed, before it is stored.

Operators work on all elements; a single row meets every row of a block, a number every element. So the statements of a
body that are the same for all pixels are written as they are for numbers, and their values never leave the registers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import reduce

from llvmlite import ir
from numba.core import types
from numba.core.cgutils import get_or_insert_function
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

from runtime.irvalue import F32, F64

_INT, _LANE, _POINTER = ir.IntType(64), ir.IntType(32), ir.PointerType()
_ELEMENT = {"f32": (F32, types.float32, 4), "f64": (F64, types.float64, 8)}


class RegisterTile(types.Type):
    """``rows`` times ``vectors`` registers of ``lanes`` elements."""

    def __init__(self, dtype: str, rows: int, vectors: int, lanes: int):
        super().__init__(f"tile_{dtype}_{rows}x{vectors}x{lanes}")
        self.dtype, self.rows, self.vectors, self.lanes = dtype, rows, vectors, lanes
        self.element, self.number, self.size = _ELEMENT[dtype]
        self.vector = ir.VectorType(self.element, lanes)


@register_model(RegisterTile)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, kind: RegisterTile):
        super().__init__(manager, kind, ir.ArrayType(kind.vector, kind.rows * kind.vectors))


def packed_tile(builder: ir.IRBuilder, registers: Sequence[ir.Value]) -> ir.Value:
    """The value that holds ``registers``, row after row."""
    value = ir.Constant(ir.ArrayType(registers[0].type, len(registers)), ir.Undefined)
    for at, register in enumerate(registers):
        value = builder.insert_value(value, register, at)
    return value


def widest(kinds: Sequence[types.Type]) -> RegisterTile | None:
    """The type of what an operator makes of such operands, if one is a tile."""
    return max((k for k in kinds if isinstance(k, RegisterTile)), key=lambda k: k.rows, default=None)


def elementwise(builder: ir.IRBuilder, kinds: Sequence[types.Type], values: Sequence[ir.Value],
                emit: Callable[..., ir.Value]) -> ir.Value:  # fmt: skip
    """``emit`` of all registers of the operands, of which one is a tile."""
    result = widest(kinds)
    assert result is not None
    count = result.rows * result.vectors
    operands = [_registers(builder, k, v, result) for k, v in zip(kinds, values, strict=True)]
    return packed_tile(builder, [emit(*(o[i % len(o)] for o in operands)) for i in range(count)])


def _registers(builder: ir.IRBuilder, kind: types.Type, value: ir.Value, like: RegisterTile) -> list[ir.Value]:
    if isinstance(kind, RegisterTile):
        return [builder.extract_value(value, i) for i in range(kind.rows * kind.vectors)]
    return [_splat(builder, value, like.vector)]


def _splat(builder: ir.IRBuilder, value: ir.Value, vector: ir.VectorType) -> ir.Value:
    """A vector whose every element is ``value``."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, _LANE(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_LANE, vector.count), [0] * vector.count))


def __getattr__(name: str) -> Callable[..., object]:
    """``load_row_f32_2x16(pointer, index)``: the row of two vectors of 16 elements from element ``index`` on.

    ``load_part_f32_1x16(pointer, index, first, end)`` reads its elements ``first .. end - 1`` alone, and no memory
    beside them; the others are zero. ``store_row_f32_1x16(pointer, index, tile)`` writes a row.

    ``store_rows_f32_8x2x16(table, offset, tile)`` writes the rows of a tile, each ``offset`` bytes behind the address
    that ``table`` holds for it. ``own_rows_f32_8x2x16(table, offset)`` writes a zero where each of its vectors will be:
    a line that another core has read takes longer to come than the sums to this one take, and a prefetch does not
    fetch it away from there.

    ``largest_rows_f32_8x2x16_of_4(tile)`` is the tile of the largest elements of each four rows, of equal ones the
    first; NaN is larger than all.
    """
    if found := re.fullmatch(r"load_row_(f32|f64)_(\d+)x(\d+)", name):
        return _load_row(RegisterTile(found[1], 1, int(found[2]), int(found[3])))
    if found := re.fullmatch(r"load_part_(f32|f64)_1x(\d+)", name):
        return _load_part(RegisterTile(found[1], 1, 1, int(found[2])))
    if found := re.fullmatch(r"store_row_(f32|f64)_(\d+)x(\d+)", name):
        return _store_row(RegisterTile(found[1], 1, int(found[2]), int(found[3])))
    if found := re.fullmatch(r"(store|own)_rows_(f32|f64)_(\d+)x(\d+)x(\d+)", name):
        make = _store_rows if found[1] == "store" else _own_rows
        return make(RegisterTile(found[2], *map(int, found.groups()[2:])))
    if found := re.fullmatch(r"largest_rows_(f32|f64)_(\d+)x(\d+)x(\d+)_of_(\d+)", name):
        dtype, *sizes, window = found.groups()
        return _largest_rows(RegisterTile(dtype, *map(int, sizes)), int(window))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _load_row(kind: RegisterTile) -> Callable[..., object]:
    @intrinsic
    def load_row(typing, pointer, index):
        def generate(context, builder, signature, args):
            first = builder.gep(builder.inttoptr(args[0], _POINTER), [args[1]], source_etype=kind.element)
            places = _places(builder, kind, first)
            return packed_tile(builder, [builder.load(place, typ=kind.vector, align=kind.size) for place in places])

        return kind(types.int64, types.int64), generate

    return load_row


def _load_part(kind: RegisterTile) -> Callable[..., object]:
    numbers = ir.VectorType(_LANE, kind.lanes)
    name = f"llvm.masked.load.v{kind.lanes}f{8 * kind.size}.p0"
    takes = [_POINTER, _LANE, ir.VectorType(ir.IntType(1), kind.lanes), kind.vector]

    @intrinsic
    def load_part(typing, pointer, index, first, end):
        def generate(context, builder, signature, args):
            start = builder.gep(builder.inttoptr(args[0], _POINTER), [args[1]], source_etype=kind.element)
            bounds = (builder.trunc(bound, _LANE) for bound in args[2:])
            low, high = (_splat(builder, bound, numbers) for bound in bounds)
            lane = ir.Constant(numbers, list(range(kind.lanes)))
            inside = builder.and_(builder.icmp_signed(">=", lane, low), builder.icmp_signed("<", lane, high))
            load = get_or_insert_function(builder.module, ir.FunctionType(kind.vector, takes), name)
            zeros = ir.Constant(kind.vector, [0.0] * kind.lanes)
            return packed_tile(builder, [builder.call(load, [start, _LANE(kind.size), inside, zeros])])

        return kind(*[types.int64] * 4), generate

    return load_part


def _store_row(kind: RegisterTile) -> Callable[..., object]:
    @intrinsic
    def store_row(typing, pointer, index, tile):
        def generate(context, builder, signature, args):
            first = builder.gep(builder.inttoptr(args[0], _POINTER), [args[1]], source_etype=kind.element)
            registers = _registers(builder, kind, args[2], kind)
            for place, register in zip(_places(builder, kind, first), registers, strict=True):
                builder.store(register, place, align=kind.size)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, kind), generate

    return store_row


def _store_rows(kind: RegisterTile) -> Callable[..., object]:
    @intrinsic
    def store_rows(typing, table, offset, tile):
        def generate(context, builder, signature, args):
            registers = _registers(builder, kind, args[2], kind)
            for place, register in zip(_places_of_rows(builder, kind, *args[:2]), registers, strict=True):
                builder.store(register, place, align=kind.size)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, kind), generate

    return store_rows


def _own_rows(kind: RegisterTile) -> Callable[..., object]:
    @intrinsic
    def own_rows(typing, table, offset):
        def generate(context, builder, signature, args):
            for place in _places_of_rows(builder, kind, *args):
                builder.store(kind.element(0.0), place, align=kind.size)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    return own_rows


def _largest_rows(kind: RegisterTile, window: int) -> Callable[..., object]:
    result = RegisterTile(kind.dtype, kind.rows // window, kind.vectors, kind.lanes)

    @intrinsic
    def largest_rows(typing, tile):
        def generate(context, builder, signature, args):
            registers = _registers(builder, kind, args[0], kind)

            def larger(best: ir.Value, value: ir.Value) -> ir.Value:
                wins = builder.fcmp_unordered(">", value, best)
                return builder.select(builder.and_(wins, builder.fcmp_ordered("ord", best, best)), value, best)

            rows = [registers[at : at + kind.vectors] for at in range(0, len(registers), kind.vectors)]
            windows = [rows[at : at + window] for at in range(0, len(rows), window)]
            found = [reduce(larger, column) for rows in windows for column in zip(*rows, strict=True)]
            return packed_tile(builder, found)

        return result(kind), generate

    return largest_rows


def _places(builder: ir.IRBuilder, kind: RegisterTile, first: ir.Value) -> list[ir.Value]:
    """Where the vectors of the row at ``first`` are."""
    return [builder.gep(first, [_INT(j * kind.lanes)], source_etype=kind.element) for j in range(kind.vectors)]


def _places_of_rows(builder: ir.IRBuilder, kind: RegisterTile, table: ir.Value, offset: ir.Value) -> list[ir.Value]:
    entries = builder.inttoptr(table, _POINTER)
    found = []
    for i in range(kind.rows):
        row = builder.load(builder.gep(entries, [_INT(i)], source_etype=_INT), typ=_INT, align=8)
        found += _places(builder, kind, builder.inttoptr(builder.add(row, offset), _POINTER))
    return found
