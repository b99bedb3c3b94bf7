"""The operators of kernels as LLVM instructions, where these are the same on every backend.

Each takes a builder, the ``kind`` of its operands (``f`` float, ``i`` signed, ``u`` unsigned, ``b`` bool) and these.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from engine.random import MULTIPLIERS, ROUNDS, WEYL
from runtime.irvalue import EXACT, F32, F64, I32, I64, Num, call_llvm

Operator = Callable[..., ir.Value]


def _less(builder: ir.IRBuilder, kind: str, a: ir.Value, b: ir.Value) -> ir.Value:
    if kind == "f":
        return builder.fcmp_ordered("<", a, b, flags=EXACT)
    return (builder.icmp_signed if kind == "i" else builder.icmp_unsigned)("<", a, b)


def extremum(greatest: bool) -> Operator:
    """maximum or minimum; a NaN in either argument wins.

    A compare picks ``a`` over ``b`` and is false on NaN, so ``b``'s NaN stays and ``a``'s is put back. With a constant
    ``a`` the second select folds away and one instruction is left.
    """
    ordered = ">" if greatest else "<"

    def emit(builder: ir.IRBuilder, kind: str, x: ir.Value, y: ir.Value) -> ir.Value:
        if kind == "f":
            best = builder.select(builder.fcmp_ordered(ordered, x, y, flags=EXACT), x, y)
            return builder.select(builder.fcmp_unordered("uno", x, x, flags=EXACT), x, best)
        compare = builder.icmp_signed if kind == "i" else builder.icmp_unsigned
        return builder.select(compare(ordered, x, y), x, y)

    return emit


def sign(builder: ir.IRBuilder, kind: str, v: ir.Value) -> ir.Value:
    """-1, 0 or 1; NaN stays NaN."""
    zero = ir.Constant(v.type, 0)
    if kind == "f":
        below = builder.select(builder.fcmp_ordered("<", v, zero, flags=EXACT), ir.Constant(v.type, -1.0), v)
        return builder.select(builder.fcmp_ordered(">", v, zero, flags=EXACT), ir.Constant(v.type, 1.0), below)
    compare = builder.icmp_signed if kind == "i" else builder.icmp_unsigned
    below = builder.select(compare("<", v, zero), ir.Constant(v.type, -1), zero)
    return builder.select(compare(">", v, zero), ir.Constant(v.type, 1), below)


def is_nan(builder: ir.IRBuilder, kind: str, v: ir.Value) -> ir.Value:
    return builder.fcmp_unordered("uno", v, v, flags=EXACT)


def is_finite(builder: ir.IRBuilder, kind: str, v: ir.Value) -> ir.Value:
    size = call_llvm(builder, "fabs", [v])
    return builder.fcmp_ordered("<", size, ir.Constant(size.type, float("inf")), flags=EXACT)


def integer_division(quotient: bool) -> Operator:
    """Floor division or its remainder; a zero divisor gives 0, and the most negative number by -1 wraps."""

    def emit(builder: ir.IRBuilder, kind: str, x: ir.Value, y: ir.Value) -> ir.Value:
        zero, one = ir.Constant(x.type, 0), ir.Constant(x.type, 1)
        is_zero = builder.icmp_unsigned("==", y, zero)
        if kind != "i":
            safe = builder.select(is_zero, one, y)
            result = builder.udiv(x, safe) if quotient else builder.urem(x, safe)
            return builder.select(is_zero, zero, result)
        is_minus_one = builder.icmp_signed("==", y, ir.Constant(x.type, -1))
        safe = builder.select(builder.or_(is_zero, is_minus_one), one, y)
        q = builder.sdiv(x, safe)
        r = builder.sub(x, builder.mul(q, safe))
        differs = builder.icmp_signed("<", builder.xor(r, safe), zero)
        below = builder.and_(builder.icmp_unsigned("!=", r, zero), differs)
        if quotient:
            floored = builder.sub(q, builder.zext(below, x.type))
            floored = builder.select(is_minus_one, builder.neg(x), floored)
        else:
            floored = builder.select(below, builder.add(r, safe), r)
        return builder.select(is_zero, zero, floored)

    return emit


def shift(left: bool) -> Operator:
    """A shift by any amount: one outside the width of the type shifts everything out."""

    def emit(builder: ir.IRBuilder, kind: str, x: ir.Value, amount: ir.Value) -> ir.Value:
        inside = builder.icmp_unsigned("<", amount, ir.Constant(x.type, x.type.width))
        if left:
            shifted = builder.shl(x, builder.select(inside, amount, ir.Constant(x.type, 0)))
            return builder.select(inside, shifted, ir.Constant(x.type, 0))
        most = builder.select(inside, amount, ir.Constant(x.type, x.type.width - 1))
        if kind == "i":
            return builder.ashr(x, most)
        return builder.select(inside, builder.lshr(x, most), ir.Constant(x.type, 0))

    return emit


def truncation(bits: int) -> Callable[[ir.IRBuilder, ir.Value], ir.Value]:
    """A float cut to an integer as the hardware does it: through 32 bits, or 64 where the result is that wide."""

    def emit(builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
        if bits == 64:
            return builder.fptosi(x, I64)
        whole = builder.fptosi(x, I32)
        return whole if bits == 32 else builder.trunc(whole, ir.IntType(bits))

    return emit


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


def uniform_f32(*counters: Num) -> Num:
    """The draw of engine.random for i64 values of seed, step, stream and index."""
    return _philox(*counters)[0].logical_shift(8).to(I32).to(F32) * 2.0**-24


def uniform_f64(*counters: Num) -> Num:
    high, low = _philox(*counters)
    return ((high << 32) | low).logical_shift(11).to(F64) * 2.0**-53
