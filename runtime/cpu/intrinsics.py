"""The scalar instructions that generated kernels are written in: typed memory access and operators.

Every name here is an intrinsic that inlines to a few LLVM instructions: no calls, no exceptions, no symbol outside
the kernel. Addresses are int64 values; ``index`` counts elements. ``scope`` is a literal number, one for each buffer
of a kernel: accesses of different scopes never alias, which is what lets LLVM vectorise a loop over many buffers
without run-time checks. A buffer that is read and written in place is one scope.

f16 and bf16 are stored forms: they load as float32 and are rounded to nearest even when stored. bool is one byte.
Integer operators wrap, and division by zero gives zero, as in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_I1, _I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
_F16, _F32, _F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()

CONSTANT_SCOPE = 127
"""The alias scope of constant tables, above those of the buffers that a loop may write."""

EXACT = ("nsz",)
"""Flags for floating-point instructions whose order matters. Numba adds the kernel's own flags (reassoc among
them) to every instruction that has none."""


# --- memory ------------------------------------------------------------------------------------------------


def mark_scope(module: ir.Module, instruction: ir.Instruction, scope: int) -> None:
    """Put ``instruction`` into alias scope ``scope``. It suffices that of two scopes the higher names the lower."""
    domain = module.add_metadata(["tenon"])
    scopes = [module.add_metadata([f"buffer{i}", domain]) for i in range(scope + 1)]
    instruction.set_metadata("alias.scope", module.add_metadata([scopes[scope]]))
    if scope:
        instruction.set_metadata("noalias", module.add_metadata(scopes[:scope]))


def _address(builder: ir.IRBuilder, pointer: ir.Value, index: ir.Value, element: ir.Type) -> ir.Value:
    base = builder.inttoptr(pointer, element.as_pointer())
    return builder.gep(base, [index], inbounds=True)


def _widen_f16(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    return builder.fpext(value, _F32)


def _narrow_f16(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    return builder.fptrunc(value, _F16)


def _widen_bf16(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    return builder.bitcast(builder.shl(builder.zext(value, _I32), _I32(16)), _F32)


def _narrow_bf16(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """Round to nearest even on the bits; a NaN keeps its sign and becomes quiet."""
    bits = builder.bitcast(value, _I32)
    odd = builder.and_(builder.lshr(bits, _I32(16)), _I32(1))
    rounded = builder.add(bits, builder.add(odd, _I32(0x7FFF)))
    is_nan = builder.fcmp_unordered("uno", value, value, flags=EXACT)
    chosen = builder.select(is_nan, builder.or_(bits, _I32(0x400000)), rounded)
    return builder.trunc(builder.lshr(chosen, _I32(16)), _I16)


def _widen_bool(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    return builder.icmp_unsigned("!=", value, _I8(0))


def _narrow_bool(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    return builder.zext(value, _I8)


def _same(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    return value


Conversion = Callable[[ir.IRBuilder, ir.Value], ir.Value]


def _memory(stored: ir.Type, value: types.Type, widen: Conversion, narrow: Conversion, align: int) -> tuple:
    """The load and the store of one dtype: ``stored`` in memory, ``value`` in registers."""

    @intrinsic(prefer_literal=True)
    def load(typingctx, pointer, index, scope):
        number = scope.literal_value

        def codegen(context, builder, signature, args):
            loaded = builder.load(_address(builder, args[0], args[1], stored))
            loaded.align = align
            mark_scope(builder.module, loaded, number)
            return widen(builder, loaded)

        return value(types.int64, types.int64, scope), codegen

    @intrinsic(prefer_literal=True)
    def store(typingctx, pointer, index, x, scope):
        number = scope.literal_value

        def codegen(context, builder, signature, args):
            stored_now = builder.store(narrow(builder, args[2]), _address(builder, args[0], args[1], stored))
            stored_now.align = align
            mark_scope(builder.module, stored_now, number)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, value, scope), codegen

    return load, store


load_f32, store_f32 = _memory(_F32, types.float32, _same, _same, 4)
load_f64, store_f64 = _memory(_F64, types.float64, _same, _same, 8)
load_f16, store_f16 = _memory(_F16, types.float32, _widen_f16, _narrow_f16, 2)
load_bf16, store_bf16 = _memory(_I16, types.float32, _widen_bf16, _narrow_bf16, 2)
load_i8, store_i8 = _memory(_I8, types.int8, _same, _same, 1)
load_u8, store_u8 = _memory(_I8, types.uint8, _same, _same, 1)
load_i32, store_i32 = _memory(_I32, types.int32, _same, _same, 4)
load_i64, store_i64 = _memory(_I64, types.int64, _same, _same, 8)
load_bool, store_bool = _memory(_I8, types.boolean, _widen_bool, _narrow_bool, 1)


@intrinsic
def slot(typingctx, args, index):
    """Slot ``index`` of the argument block at ``args``: an address or a size."""

    def codegen(context, builder, signature, values):
        return builder.load(_address(builder, values[0], values[1], _I64))

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def report(typingctx, pointer, failed, code, value):
    """Where ``failed``, write ``code`` and ``value`` into the error word (i64[2]) unless it holds an error already."""

    def codegen(context, builder, signature, values):
        word, failed, code, value = values
        with builder.if_then(failed, likely=False):
            first = _address(builder, word, _I64(0), _I64)
            claimed = builder.cmpxchg(first, _I64(0), code, "monotonic", "monotonic")
            with builder.if_then(builder.extract_value(claimed, 1)):
                builder.store(value, _address(builder, word, _I64(1), _I64))
        return context.get_dummy_value()

    return types.void(types.int64, types.boolean, types.int64, types.int64), codegen


# --- operators ---------------------------------------------------------------------------------------------


def _llvm_unary(name: str):
    """A float function that LLVM lowers to an instruction."""

    @intrinsic
    def operator(typingctx, x):
        def codegen(context, builder, signature, args):
            return call_llvm(builder, name, args)

        return x(x), codegen

    return operator


def call_llvm(builder: ir.IRBuilder, name: str, args: list[ir.Value] | tuple[ir.Value, ...]) -> ir.Value:
    """A call of the overloaded LLVM intrinsic ``name`` at the type of its arguments."""
    kind = args[0].type
    suffix = {_F32: "f32", _F64: "f64"}.get(kind) or f"i{kind.width}"
    function_type = ir.FunctionType(kind, [a.type for a in args])
    function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.{name}.{suffix}")
    return builder.call(function, args)


floor = _llvm_unary("floor")
ceil = _llvm_unary("ceil")
trunc = _llvm_unary("trunc")
round_even = _llvm_unary("rint")
absolute = _llvm_unary("fabs")
sqrt = _llvm_unary("sqrt")


@intrinsic
def select(typingctx, condition, a, b):
    """``a`` where ``condition``, else ``b``; both are evaluated."""

    def codegen(context, builder, signature, args):
        return builder.select(*args)

    return a(types.boolean, a, a), codegen


def _extremum(ordered: str):
    """maximum or minimum; a NaN in either argument wins.

    ``ordered`` picks ``a`` over ``b``; a compare is false on NaN, so ``b``'s NaN stays and ``a``'s is put back.
    With a constant ``a`` the second select folds away and one instruction is left.
    """

    @intrinsic
    def operator(typingctx, a, b):
        def codegen(context, builder, signature, args):
            x, y = args
            if isinstance(a, types.Float):
                best = builder.select(builder.fcmp_ordered(ordered, x, y, flags=EXACT), x, y)
                return builder.select(builder.fcmp_unordered("uno", x, x, flags=EXACT), x, best)
            compare = builder.icmp_signed if getattr(a, "signed", False) else builder.icmp_unsigned
            return builder.select(compare(ordered, x, y), x, y)

        return a(a, a), codegen

    return operator


maximum = _extremum(">")
minimum = _extremum("<")


def _running_extremum(name: str):
    """maximum or minimum (``max``, ``min``) in the form that LLVM knows as a reduction and vectorises over a loop."""

    @intrinsic
    def operator(typingctx, a, b):
        def codegen(context, builder, signature, args):
            if isinstance(a, types.Float):
                return call_llvm(builder, f"{name}imum", args)
            return call_llvm(builder, f"s{name}" if a.signed else f"u{name}", args)

        return a(a, a), codegen

    return operator


running_maximum = _running_extremum("max")
running_minimum = _running_extremum("min")


@intrinsic
def sign(typingctx, x):
    """-1, 0 or 1; NaN stays NaN."""

    def codegen(context, builder, signature, args):
        (v,) = args
        zero = ir.Constant(v.type, 0)
        if isinstance(x, types.Float):
            below = builder.select(builder.fcmp_ordered("<", v, zero, flags=EXACT), ir.Constant(v.type, -1.0), v)
            return builder.select(builder.fcmp_ordered(">", v, zero, flags=EXACT), ir.Constant(v.type, 1.0), below)
        compare = builder.icmp_signed if x.signed else builder.icmp_unsigned
        below = builder.select(compare("<", v, zero), ir.Constant(v.type, -1), zero)
        return builder.select(compare(">", v, zero), ir.Constant(v.type, 1), below)

    return x(x), codegen


@intrinsic
def is_nan(typingctx, x):
    def codegen(context, builder, signature, args):
        return builder.fcmp_unordered("uno", args[0], args[0], flags=EXACT)

    return types.boolean(x), codegen


@intrinsic
def is_finite(typingctx, x):
    def codegen(context, builder, signature, args):
        size = call_llvm(builder, "fabs", args)
        return builder.fcmp_ordered("<", size, ir.Constant(size.type, float("inf")), flags=EXACT)

    return types.boolean(x), codegen


def _integer_division(quotient: bool):
    """Floor division or its remainder; a zero divisor gives 0, and the most negative number by -1 wraps."""

    @intrinsic
    def operator(typingctx, a, b):
        def codegen(context, builder, signature, args):
            x, y = args
            zero, one = ir.Constant(x.type, 0), ir.Constant(x.type, 1)
            is_zero = builder.icmp_unsigned("==", y, zero)
            if not a.signed:
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

        return a(a, a), codegen

    return operator


integer_floordiv = _integer_division(True)
integer_mod = _integer_division(False)


@intrinsic
def quotient(typingctx, a, b):
    """``a // b`` of indices: ``a`` is not negative and ``b`` is positive."""

    def codegen(context, builder, signature, args):
        return builder.udiv(*args)

    return types.int64(types.int64, types.int64), codegen


def _shift(left: bool):
    """A shift by any amount: one outside the width of the type shifts everything out."""

    @intrinsic
    def operator(typingctx, a, b):
        def codegen(context, builder, signature, args):
            x, amount = args
            inside = builder.icmp_unsigned("<", amount, ir.Constant(x.type, x.type.width))
            if left:
                shifted = builder.shl(x, builder.select(inside, amount, ir.Constant(x.type, 0)))
                return builder.select(inside, shifted, ir.Constant(x.type, 0))
            most = builder.select(inside, amount, ir.Constant(x.type, x.type.width - 1))
            if a.signed:
                return builder.ashr(x, most)
            return builder.select(inside, builder.lshr(x, most), ir.Constant(x.type, 0))

        return a(a, a), codegen

    return operator


shift_left = _shift(True)
shift_right = _shift(False)


def _truncation(result: types.Integer):
    """A float cut to an integer as the hardware does it: through 32 bits, or 64 where the result is that wide."""

    @intrinsic
    def operator(typingctx, x):
        def codegen(context, builder, signature, args):
            if result.bitwidth == 64:
                return builder.fptosi(args[0], _I64)
            whole = builder.fptosi(args[0], _I32)
            return whole if result.bitwidth == 32 else builder.trunc(whole, ir.IntType(result.bitwidth))

        return result(x), codegen

    return operator


truncate_i8 = _truncation(types.int8)
truncate_u8 = _truncation(types.uint8)
truncate_i32 = _truncation(types.int32)
truncate_i64 = _truncation(types.int64)


def _rounding(narrow: Conversion, widen: Conversion):
    @intrinsic
    def operator(typingctx, x):
        """The float32 ``x`` rounded to what the stored form can hold."""

        def codegen(context, builder, signature, args):
            return widen(builder, narrow(builder, args[0]))

        return types.float32(types.float32), codegen

    return operator


round_f16 = _rounding(_narrow_f16, _widen_f16)
round_bf16 = _rounding(_narrow_bf16, _widen_bf16)
