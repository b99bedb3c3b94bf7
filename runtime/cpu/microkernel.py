"""The one microkernel behind every dense contraction: a register tile of multiply-adds as LLVM vector IR.

``acc[i, j] = sum over t < outer, k < inner of A[i](t, k) * B[t * inner + k][j]`` for ``rows`` x ``columns`` of a
:class:`~runtime.cpu.tiles.Tile`. A is not packed: a table of row addresses, read anew for every ``t``, says where
its rows are. So a matrix product (``outer`` 1), a convolution (``t`` a tap) and a weight gradient
(``t`` a row of pixels) are the same code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache, reduce

from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from runtime.cpu.group_lanes import GroupLanes
from runtime.cpu.register_tiles import RegisterTile, packed_tile

UNROLL = 4
_INT = ir.IntType(64)
_BYTE = ir.IntType(8)
_POINTER = ir.PointerType()
_ELEMENT = {"f32": (ir.FloatType(), 4), "f64": (ir.DoubleType(), 8)}


def __getattr__(name: str) -> Callable[..., object]:
    """The microkernel that :meth:`runtime.cpu.tiles.Tile.name` names, for ``from runtime.cpu.microkernel import``."""
    ways = "_packed|_jumps|_near|_taps|_fold\\d+|_spread\\d+"
    found = re.fullmatch(rf"tile_(f32|f64)_(\d+)x(\d+)x(\d+)(_unit)?({ways})?(_sums)?", name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    dtype, rows, vectors, lanes, unit_k, packed, sums = found.groups()
    return microkernel(dtype, int(rows), int(vectors), int(lanes), bool(unit_k), packed or "", bool(sums))


@cache
def microkernel(dtype: str, rows: int, vectors: int, lanes: int, unit_k: bool, packed: str,
                sums: bool = False) -> Callable[..., object]:  # fmt: skip
    """The intrinsic ``tile(outer, inner, a_step, table, b, b_step, c, c_step, accumulate)``; all arguments int64.

    ``table`` holds ``outer * rows`` addresses, those of one ``t`` side by side. ``a_step`` is the distance in bytes
    from one k to the next in A (the element size where ``unit_k``), ``b_step`` that between rows of B (one packed
    row of ``columns`` elements where ``packed``), ``c_step`` that between rows of the result at ``c``, which is
    overwritten, or added to where ``accumulate`` is not 0. Where ``packed`` is ``_jumps``, rows of B are packed too,
    and ``b_step`` is the distance from the first row of one ``t`` to that of the next. Where it is ``_near`` they are
    packed, the rows of A are neighbours in memory, and ``table`` holds for each ``t`` two distances: that of A's first
    element from the address ``b_step``, and that of B's first row from ``b``. Where it is ``_taps``, ``a_step`` is the
    address of a table of the distances, in bytes, of every k from the first in A.

    Two ways are for convolutions of small groups (see group_lanes.py) of so many inputs and of ``vectors`` outputs: an
    element of A is then a vector of the inputs of several groups. Where ``packed`` is ``_fold`` and the inputs' number,
    rows of B are packed, ``b_step`` is added to all addresses of A, and the result's rows, which are overwritten, are
    the outputs of these groups. Where it is ``_spread`` and that number, a row of B is the outputs of these groups, and
    the sums stay apart for every input.

    With ``sums`` nothing is stored: ``tile(outer, inner, a_step, table, b, b_step)`` is the tile of sums itself (see
    register_tiles.py).
    """
    element, size = _ELEMENT[dtype]
    vector = ir.VectorType(element, lanes)
    width = size * lanes
    fused = f"llvm.fmuladd.v{lanes}{dtype}"
    way = packed.rstrip("0123456789")
    groups = GroupLanes(int(packed.removeprefix(way) or 1), vectors, lanes)
    grouped = way in ("_fold", "_spread")
    zero = ir.Constant(vector, [0.0] * lanes)

    def address(builder: ir.IRBuilder, base: ir.Value, offset: ir.Value) -> ir.Value:
        return builder.gep(base, [offset], source_etype=_BYTE)

    def load_vector(builder: ir.IRBuilder, base: ir.Value, offset: ir.Value) -> ir.Value:
        return builder.load(address(builder, base, offset), typ=vector, align=size)

    def shuffled(builder: ir.IRBuilder, source: ir.Value, chosen: list[int], other: ir.Value | None = None) -> ir.Value:
        """The ``chosen`` elements of ``source``, and of ``other``, which are counted on."""
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(chosen)), chosen)
        return builder.shuffle_vector(source, other or ir.Constant(source.type, ir.Undefined), mask)

    def folded(builder: ir.IRBuilder, sums: list[ir.Value]) -> ir.Value:
        """The outputs of all groups, one group after the other."""
        parts = []
        for terms in groups.fold():
            first, *others = (shuffled(builder, sums[q], chosen) for q, chosen in terms)
            parts.append(reduce(builder.fadd, others, first))
        run = groups.run
        while len(parts) > 1:  # runs of two neighbours take turns
            order = [p + at for p in range(0, groups.count * run, run) for half in (0, groups.count * run)
                     for at in range(half, half + run)]  # fmt: skip
            parts = [shuffled(builder, a, order, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
            run *= 2
        return parts[0]

    def splat(builder: ir.IRBuilder, scalar: ir.Value) -> ir.Value:
        undefined = ir.Constant(vector, ir.Undefined)
        one = builder.insert_element(undefined, scalar, ir.IntType(32)(0))
        return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))

    def stored(builder: ir.IRBuilder, args: list[ir.Value]) -> None:
        """Start from zero, or from what is there, and write the sums."""
        *operands, c, c_step, accumulate = args
        c = builder.inttoptr(c, _POINTER)
        begin, start = (builder.function.append_basic_block(f"tile.{name}") for name in ("begin", "start"))
        offsets = []
        for i in range(rows):
            row = builder.mul(c_step, _INT(i))
            offsets += [builder.add(row, _INT(j * width)) for j in range(vectors)]
        entry = builder.block
        builder.cbranch(builder.icmp_signed("!=", accumulate, _INT(0)), begin, start)
        builder.position_at_end(begin)
        present = [zero if way == "_fold" else load_vector(builder, c, offset) for offset in offsets]
        builder.branch(start)
        builder.position_at_end(start)
        initial = [builder.phi(vector) for _ in offsets]
        for target, value in zip(initial, present, strict=True):
            target.add_incoming(zero, entry)
            target.add_incoming(value, begin)
        final = multiplied(builder, operands, initial)
        if way == "_fold":
            final = [folded(builder, final[i : i + vectors]) for i in range(0, rows * vectors, vectors)]
            offsets = offsets[::vectors]
        for value, offset in zip(final, offsets, strict=True):
            builder.store(value, address(builder, c, offset), align=size)

    def multiplied(builder: ir.IRBuilder, args: list[ir.Value], initial: Sequence[ir.Value]) -> list[ir.Value]:
        """``initial`` and the sums of products."""
        outer, inner, a_step, table, b, b_step = args
        if unit_k:
            a_step = _INT(size)
        b_jump = a_origin = b_step
        if way == "_taps":
            distances, a_step = builder.inttoptr(a_step, _POINTER), _INT(8)
        if packed and way not in ("_spread", "_taps"):
            b_step = _INT(vectors * width)
        function, module = builder.function, builder.module
        multiply_add = get_or_insert_function(module, ir.FunctionType(vector, [vector] * 3), fused)
        table, b = (builder.inttoptr(p, _POINTER) for p in (table, b))
        block = {
            name: function.append_basic_block(f"tile.{name}")
            for name in ("outer", "unrolled", "middle", "single", "next", "store")
        }

        def step(k: ir.Value, row_of_b: ir.Value, bases: list[ir.Value], sums: list[ir.Value]) -> list[ir.Value]:
            """One k: the row of B at ``row_of_b`` times the elements of A at byte offset ``k``."""
            if way == "_spread":
                outputs = builder.load(row_of_b, typ=ir.VectorType(element, groups.count * vectors), align=size)
                b_values = [shuffled(builder, outputs, groups.spread(j)) for j in range(vectors)]
            else:
                b_values = [load_vector(builder, row_of_b, _INT(j * width)) for j in range(vectors)]
            result = list(sums)
            if way == "_taps":
                k = builder.load(address(builder, distances, k), typ=_INT, align=8)
            for i in range(rows):
                if grouped:
                    a_value = load_vector(builder, bases[i], k)
                else:
                    a_value = splat(builder, builder.load(address(builder, bases[i], k), typ=element, align=size))
                for j in range(vectors):
                    at = i * vectors + j
                    result[at] = builder.call(multiply_add, [a_value, b_values[j], result[at]])
            return result

        def first_addresses(t: ir.Value, b_outer: ir.Value) -> tuple[list[ir.Value], ir.Value]:
            """Where the rows of A, and those of B, begin for this ``t``."""
            width_of_entry = 2 if packed == "_near" else rows
            entry = builder.gep(table, [builder.mul(t, _INT(width_of_entry))], source_etype=_INT)
            words = [
                builder.load(builder.gep(entry, [_INT(i)], source_etype=_INT), typ=_INT, align=8)
                for i in range(width_of_entry)
            ]
            if packed != "_near":
                words = [builder.add(word, a_origin) if way == "_fold" else word for word in words]
                return [builder.inttoptr(word, _POINTER) for word in words], b_outer
            first = builder.inttoptr(builder.add(a_origin, words[0]), _POINTER)
            return [address(builder, first, _INT(i * size)) for i in range(rows)], address(builder, b, words[1])

        def phis(entries: int) -> list[ir.PhiInstr]:
            return [builder.phi(vector) for _ in range(entries)]

        def join(targets: list[ir.PhiInstr], values: Sequence[ir.Value], source: ir.Block) -> None:
            for target, value in zip(targets, values, strict=True):
                target.add_incoming(value, source)

        start = builder.block
        unrolled_end = builder.and_(inner, _INT(-UNROLL))
        some = builder.and_(builder.icmp_signed(">", outer, _INT(0)), builder.icmp_signed(">", inner, _INT(0)))
        builder.cbranch(some, block["outer"], block["store"])

        # for t in range(outer)
        builder.position_at_end(block["outer"])
        t = builder.phi(_INT)
        b_outer = builder.phi(_POINTER)
        sums_outer = phis(rows * vectors)
        t.add_incoming(_INT(0), start)
        b_outer.add_incoming(b, start)
        join(sums_outer, initial, start)
        bases, b_first = first_addresses(t, b_outer)
        builder.cbranch(builder.icmp_signed(">", unrolled_end, _INT(0)), block["unrolled"], block["middle"])

        # for k in range(0, inner - 3, 4)
        builder.position_at_end(block["unrolled"])
        k = builder.phi(_INT)
        k_offset = builder.phi(_INT)
        b_unrolled = builder.phi(_POINTER)
        sums_unrolled = phis(rows * vectors)
        sums: list[ir.Value] = list(sums_unrolled)
        offset_next, b_next = k_offset, b_unrolled
        for _ in range(UNROLL):
            sums = step(offset_next, b_next, bases, sums)
            offset_next, b_next = builder.add(offset_next, a_step), address(builder, b_next, b_step)
        k_next = builder.add(k, _INT(UNROLL))
        for source, values in ((block["outer"], (_INT(0), _INT(0), b_first)),
                               (block["unrolled"], (k_next, offset_next, b_next))):  # fmt: skip
            for target, value in zip((k, k_offset, b_unrolled), values, strict=True):
                target.add_incoming(value, source)
        join(sums_unrolled, sums_outer, block["outer"])
        join(sums_unrolled, sums, block["unrolled"])
        builder.cbranch(builder.icmp_signed("<", k_next, unrolled_end), block["unrolled"], block["middle"])
        unrolled_state = (b_next, offset_next, sums)

        # the last inner % 4 of them
        builder.position_at_end(block["middle"])
        b_middle = builder.phi(_POINTER)
        offset_middle = builder.phi(_INT)
        sums_middle = phis(rows * vectors)
        for source, state in (
            (block["outer"], (b_first, _INT(0), sums_outer)),
            (block["unrolled"], unrolled_state),
        ):
            b_middle.add_incoming(state[0], source)
            offset_middle.add_incoming(state[1], source)
            join(sums_middle, state[2], source)
        builder.cbranch(builder.icmp_signed("<", unrolled_end, inner), block["single"], block["next"])

        builder.position_at_end(block["single"])
        k1 = builder.phi(_INT)
        offset1 = builder.phi(_INT)
        b1 = builder.phi(_POINTER)
        sums1 = phis(rows * vectors)
        after = step(offset1, b1, bases, list(sums1))
        state1 = (builder.add(k1, _INT(1)), builder.add(offset1, a_step), address(builder, b1, b_step))
        for source, values in ((block["middle"], (unrolled_end, offset_middle, b_middle)), (block["single"], state1)):
            for target, value in zip((k1, offset1, b1), values, strict=True):
                target.add_incoming(value, source)
        join(sums1, sums_middle, block["middle"])
        join(sums1, after, block["single"])
        builder.cbranch(builder.icmp_signed("<", state1[0], inner), block["single"], block["next"])

        # the next t
        builder.position_at_end(block["next"])
        b_after = builder.phi(_POINTER)
        b_after.add_incoming(b_middle, block["middle"])
        b_after.add_incoming(state1[2], block["single"])
        sums_after = phis(rows * vectors)
        join(sums_after, sums_middle, block["middle"])
        join(sums_after, after, block["single"])
        if packed == "_jumps":
            b_after = address(builder, b_outer, b_jump)
        t_next = builder.add(t, _INT(1))
        t.add_incoming(t_next, block["next"])
        b_outer.add_incoming(b_after, block["next"])
        join(sums_outer, sums_after, block["next"])
        builder.cbranch(builder.icmp_signed("<", t_next, outer), block["outer"], block["store"])

        builder.position_at_end(block["store"])
        final = phis(rows * vectors)
        join(final, initial, start)
        join(final, sums_after, block["next"])
        return final

    @intrinsic
    def tile(typing, outer, inner, a_step, table, b, b_step, c, c_step, accumulate):
        def generate(context, builder, signature, args):
            stored(builder, args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 9), generate

    @intrinsic
    def tile_of_sums(typing, outer, inner, a_step, table, b, b_step):
        def generate(context, builder, signature, args):
            return packed_tile(builder, multiplied(builder, args, [zero] * (rows * vectors)))

        return RegisterTile(dtype, rows, vectors, lanes)(*[types.int64] * 6), generate

    return tile_of_sums if sums else tile
