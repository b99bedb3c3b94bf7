"""What operators make of numbers in CPU kernels: the kind of the result, as Numba has it, and the code.

Integers are computed with 64 bits, whatever width they have, and are never unsigned then. Where a float meets an
integer or a wider float, both become f64. No division of integers traps: by zero it gives zero.
"""

from __future__ import annotations

import ast

from llvmlite import ir

from runtime import scalar_ir
from runtime.cpu.kinds import Kind, boolean, float64, int64

_SUMS = {ast.Add: ("add", "fadd"), ast.Sub: ("sub", "fsub"), ast.Mult: ("mul", "fmul")}
_BITS = {ast.BitAnd: "and_", ast.BitOr: "or_", ast.BitXor: "xor", ast.RShift: "ashr"}
_ORDER = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_WHOLE = {ast.FloorDiv: scalar_ir.integer_division(quotient=True), ast.Mod: scalar_ir.integer_division(quotient=False)}


class Unknown(Exception):
    """The source holds something that only the whole of Numba understands."""


def convert(builder: ir.IRBuilder, value: ir.Value, have: Kind, want: Kind) -> ir.Value:
    """A number or a bool of the kind ``have`` as one of the kind ``want``. Raises Unknown for anything else."""
    if have == want:
        return value
    if "v" in (have.letter, want.letter):
        raise Unknown(f"{have} as {want}")
    if want == boolean:
        zero = ir.Constant(have.ir, 0)
        return builder.fcmp_unordered("!=", value, zero) if have.is_float else builder.icmp_signed("!=", value, zero)
    if have.is_float and want.is_float:
        return builder.fpext(value, want.ir) if want == float64 else builder.fptrunc(value, want.ir)
    if have.is_float:
        return builder.fptosi(value, want.ir) if want.signed else builder.fptoui(value, want.ir)
    if want.is_float:
        return builder.sitofp(value, want.ir) if have.signed else builder.uitofp(value, want.ir)
    if have.bits >= want.bits:
        return value if have.bits == want.bits else builder.trunc(value, want.ir)
    return builder.sext(value, want.ir) if have.signed else builder.zext(value, want.ir)


def unary(builder: ir.IRBuilder, op: type[ast.AST], kind: Kind, value: ir.Value) -> tuple[Kind, ir.Value]:
    """``-``, ``~`` and ``not``. Raises Unknown."""
    if op is ast.Not:
        truth = convert(builder, value, kind, boolean)
        return boolean, builder.xor(truth, boolean.ir(1))
    if op is ast.USub and kind.is_float:
        return kind, builder.fneg(value)
    if op not in (ast.USub, ast.Invert) or not kind.is_integer:
        raise Unknown(f"{op.__name__} of {kind}")
    whole = convert(builder, value, kind, int64)
    return int64, builder.sub(int64.ir(0 if op is ast.USub else -1), whole)


def binary(
    builder: ir.IRBuilder, op: type[ast.AST], left: Kind, a: ir.Value, right: Kind, b: ir.Value
) -> tuple[Kind, ir.Value]:
    """Arithmetic, comparisons and operators on bits. Raises Unknown."""
    kind = _common(left, right)
    if op in _ORDER and left == right:
        return boolean, _compare(builder, _ORDER[op], kind, a, b)
    if op is ast.Div and kind.is_integer:
        kind = float64
    elif kind.is_integer:
        kind = int64
    x, y = convert(builder, a, left, kind), convert(builder, b, right, kind)
    if op in _ORDER:
        return boolean, _compare(builder, _ORDER[op], kind, x, y)
    if op in _SUMS and kind != boolean:
        return kind, getattr(builder, _SUMS[op][kind.is_float])(x, y)
    if op is ast.Div and kind.is_float:
        # Reassociated with a product behind it, it would move into that one's loop.
        return kind, builder.fdiv(x, y, flags=["nsz"])
    if op in _BITS and not kind.is_float:
        return kind, getattr(builder, _BITS[op])(x, y)
    if op in _WHOLE and kind == int64:
        return kind, _WHOLE[op](builder, "i", x, y)
    raise Unknown(f"{op.__name__} of {left} and {right}")


def _common(left: Kind, right: Kind) -> Kind:
    if left == right:
        return left
    if left.is_integer and right.is_integer:
        return int64
    if {left.letter, right.letter} <= {"f", "i", "u"}:
        return float64
    raise Unknown(f"{left} and {right} together")


def _compare(builder: ir.IRBuilder, order: str, kind: Kind, a: ir.Value, b: ir.Value) -> ir.Value:
    if kind.is_float:
        return (builder.fcmp_unordered if order == "!=" else builder.fcmp_ordered)(order, a, b)
    return (builder.icmp_signed if kind.signed else builder.icmp_unsigned)(order, a, b)
