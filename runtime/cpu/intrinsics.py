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
from numba.core import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from runtime import scalar_ir
from runtime.cpu.register_tiles import elementwise, widest
from runtime.irvalue import EXACT, call_llvm

_I1, _I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
_F16, _F32, _F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()

CONSTANT_SCOPE = 127
"""The alias scope of constant tables, above those of the buffers that a loop may write."""


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
store_address = store_i64
"""For tables of addresses: a loop around it is not vectorised."""


@intrinsic
def slot(typingctx, args, index):
    """Slot ``index`` of the argument block at ``args``: an address or a size."""

    def codegen(context, builder, signature, values):
        return builder.load(_address(builder, values[0], values[1], _I64))

    return types.int64(types.int64, types.int64), codegen


def _asks_for(to_write: int, nearness: int):
    """The body of an intrinsic that asks for a cache line: to be written or not, so near (3: the first cache)."""

    def codegen(context, builder, signature, args):
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(), i32, i32, i32])
        prefetch = get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        of_data = i32(1)
        builder.call(prefetch, [builder.inttoptr(args[0], ir.PointerType()), i32(to_write), i32(nearness), of_data])
        return context.get_dummy_value()

    return codegen


@intrinsic
def claim(typingctx, pointer):
    """Have the cache line at ``pointer``, which will be written, on its way: a store waits for its line."""
    return types.void(types.int64), _asks_for(1, 3)


@intrinsic
def fetch(typingctx, pointer):
    """Have the cache line at ``pointer``, which will be read by and by, on its way to the second-level cache. It may
    lie beyond what is the program's: nothing is read then."""
    return types.void(types.int64), _asks_for(0, 2)


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


def _kind(kind: types.Type) -> str:
    if isinstance(kind, types.Float):
        return "f"
    return "i" if getattr(kind, "signed", False) else "u"


def _of_one(emit: scalar_ir.Operator, result: types.Type | None = None):
    @intrinsic
    def operator(typingctx, x):
        def codegen(context, builder, signature, args):
            return emit(builder, _kind(x), *args)

        return (result or x)(x), codegen

    return operator


def _of_two(emit: scalar_ir.Operator):
    @intrinsic
    def operator(typingctx, a, b):
        tile = widest((a, b))

        def codegen(context, builder, signature, args):
            if tile is not None:
                return elementwise(builder, (a, b), args, lambda *values: emit(builder, "f", *values))
            return emit(builder, _kind(a), *args)

        return (a(a, a) if tile is None else tile(a, b)), codegen

    return operator


maximum = _of_two(scalar_ir.extremum(greatest=True))
minimum = _of_two(scalar_ir.extremum(greatest=False))
sign = _of_one(scalar_ir.sign)
is_nan = _of_one(scalar_ir.is_nan, types.boolean)
is_finite = _of_one(scalar_ir.is_finite, types.boolean)
integer_floordiv = _of_two(scalar_ir.integer_division(quotient=True))
integer_mod = _of_two(scalar_ir.integer_division(quotient=False))
shift_left = _of_two(scalar_ir.shift(left=True))
shift_right = _of_two(scalar_ir.shift(left=False))


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
def quotient(typingctx, a, b):
    """``a // b`` of indices: ``a`` is not negative and ``b`` is positive."""

    def codegen(context, builder, signature, args):
        return builder.udiv(*args)

    return types.int64(types.int64, types.int64), codegen


def _truncation(result):
    emit = scalar_ir.truncation(result.bitwidth)

    @intrinsic
    def operator(typingctx, x):
        def codegen(context, builder, signature, args):
            return emit(builder, *args)

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
