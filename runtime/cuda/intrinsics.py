"""The scalar words that generated GPU kernels are written in: typed memory access and operators, by the CPU's names.

Each compiles to a few instructions, and is a Python function on NumPy scalars in the simulator. Addresses are int64
values of global memory, or 32-bit ones of shared memory; ``index`` counts elements. ``scope`` is for the CPU.

f16 and bf16 are stored forms: they load as float32 and are rounded to nearest even when stored. bool is one byte.
Integer operators wrap, and division by zero gives zero, as in NumPy. ``load4_f32`` and their kind take neighbouring
elements, in one access of up to 16 bytes where the address is a multiple of that, else one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from engine import dtypes
from engine.dtypes import DType
from runtime import scalar_ir
from runtime.cuda.simulator.memory import global_bytes, load_atomic, store_global, swap_global
from runtime.cuda.simulator.thread import current
from runtime.cuda.toolkit import typed
from runtime.irvalue import EXACT, call_llvm
from runtime.scalar_words import WORDS

Word = Callable[..., Any]
_COMPUTED = {"f16": "float32", "bf16": "float32", "f32": "float32", "f64": "float64", "i8": "int8", "u8": "uint8",
             "i32": "int32", "i64": "int64", "bool": "bool"}  # fmt: skip
VECTORS = (2, 4, 8)
"""How many neighbouring elements one word takes."""


# --- memory ------------------------------------------------------------------------------------------------


def _integer(bits: int) -> Any:
    return ir.IntType(bits)


def _stored(dtype: DType) -> Any:
    """The LLVM type of an element in memory: floats of 32 and 64 bits, else integers."""
    if dtype.is_float and not dtype.storage_only:
        return ir.FloatType() if dtype.itemsize == 4 else ir.DoubleType()
    return _integer(8 * dtype.itemsize)


def _ptx(builder: Any, text: str, constraints: str, result: Any, *values: Any) -> Any:
    """One instruction that NVVM does not know by a name of its own."""
    kind = ir.FunctionType(result, [v.type for v in values])
    return builder.call(ir.InlineAsm(kind, text, constraints, False), values)


def _widen(builder: Any, value: Any, dtype: DType) -> Any:
    """What is stored as the value that kernels compute with."""
    if dtype == dtypes.f16:
        return _ptx(builder, "cvt.f32.f16 $0, $1;", "=f,h", ir.FloatType(), value)
    if dtype == dtypes.bf16:
        return builder.bitcast(builder.shl(builder.zext(value, _integer(32)), _integer(32)(16)), ir.FloatType())
    return builder.icmp_unsigned("!=", value, _integer(8)(0)) if dtype == dtypes.bool_ else value


def _narrow(builder: Any, value: Any, dtype: DType) -> Any:
    """A value as it is stored: 16-bit floats rounded to nearest even."""
    if dtype.storage_only:
        return _ptx(builder, f"cvt.rn.{dtype}.f32 $0, $1;", "=h,f", _integer(16), value)
    return builder.zext(value, _integer(8)) if dtype == dtypes.bool_ else value


def _place(builder: Any, pointer: Any, index: Any, element: Any, space: int) -> Any:
    return builder.gep(builder.inttoptr(pointer, ir.PointerType(element, space)), [index])


_GLOBAL, _SHARED = 1, 3


def _loading(dtype: DType, space: int) -> Callable[..., Any]:
    def build(builder: Any, kind: str, pointer: Any, index: Any, *scope: Any) -> Any:
        loaded = builder.load(_place(builder, pointer, index, _stored(dtype), space))
        loaded.align = dtype.itemsize
        return _widen(builder, loaded, dtype)

    return build


def _storing(dtype: DType, space: int) -> Callable[..., Any]:
    def build(builder: Any, kind: str, pointer: Any, index: Any, value: Any, *scope: Any) -> None:
        written = builder.store(_narrow(builder, value, dtype), _place(builder, pointer, index, _stored(dtype), space))
        written.align = dtype.itemsize

    return build


def _memory(dtype: DType) -> dict[str, Word]:
    """The words that load and store one element of ``dtype``."""
    kind, value = np.dtype(dtype.numpy), _COMPUTED[dtype.name]
    wide = np.float32 if dtype.storage_only else kind.type

    @typed("int64 int64 int64", value, _loading(dtype, _GLOBAL))
    def load(pointer: int, index: int, scope: int) -> Any:
        return wide(global_bytes(pointer + int(index) * kind.itemsize, kind.itemsize, "reads").view(kind)[0])

    @typed(f"int64 int64 {value} int64", "", _storing(dtype, _GLOBAL))
    def store(pointer: int, index: int, x: Any, scope: int) -> None:
        global_bytes(pointer + int(index) * kind.itemsize, kind.itemsize, "writes").view(kind)[0] = x

    @typed("int64 int64", value, _loading(dtype, _SHARED))
    def load_shared(pointer: int, index: int) -> Any:
        thread = current()
        at = pointer + int(index) * kind.itemsize
        return wide(thread.block.shared.load(thread, at, kind.itemsize).view(kind)[0])

    @typed(f"int64 int64 {value}", "", _storing(dtype, _SHARED))
    def store_shared(pointer: int, index: int, x: Any) -> None:
        thread = current()
        thread.block.shared.store(thread, pointer + int(index) * kind.itemsize, np.array([x], kind).view(np.uint8))

    words: dict[str, Word] = {"load": load, "store": store, "load_shared": load_shared, "store_shared": store_shared}
    return {f"{name}_{dtype}": word for name, word in words.items()}


def _words(count: int, dtype: DType) -> tuple[Any, int]:
    """The LLVM type of the registers of a vector access, and how many elements are in each."""
    if dtype.itemsize >= 4:
        return _stored(dtype), 1
    return _integer(32), 4 // dtype.itemsize


def _aligned(builder: Any, pointer: Any, index: Any, nbytes: int, itemsize: int) -> Any:
    address = builder.add(pointer, builder.mul(index, _integer(64)(itemsize)))
    return builder.icmp_unsigned("==", builder.and_(address, _integer(64)(nbytes - 1)), _integer(64)(0))


def _vector_place(builder: Any, place: Any, word: Any, words: int) -> Any:
    return builder.bitcast(place, ir.PointerType(ir.VectorType(word, words) if words > 1 else word, _GLOBAL))


def _loading_vector(count: int, dtype: DType) -> Callable[..., Any]:
    word, each = _words(count, dtype)
    words, element = count // each, _stored(dtype)

    def together(builder: Any, place: Any) -> list[Any]:
        loaded = builder.load(_vector_place(builder, place, word, words))
        loaded.align = count * dtype.itemsize
        parts = [builder.extract_element(loaded, _integer(32)(i)) for i in range(words)] if words > 1 else [loaded]
        if each == 1:
            return parts
        bits = 8 * dtype.itemsize
        return [
            builder.trunc(builder.lshr(p, _integer(32)(bits * i)), element) for p in parts for i in range(each)
        ]  # fmt: skip

    def build(builder: Any, kind: str, pointer: Any, index: Any, scope: Any) -> list[Any]:
        place = _place(builder, pointer, index, element, _GLOBAL)
        with builder.if_else(_aligned(builder, pointer, index, count * dtype.itemsize, dtype.itemsize)) as (yes, no):
            with yes:
                wide, from_wide = together(builder, place), builder.block
            with no:
                single = []
                for i in range(count):
                    single.append(builder.load(builder.gep(place, [_integer(64)(i)])))
                    single[-1].align = dtype.itemsize
                from_single = builder.block
        found = []
        for a, b in zip(wide, single, strict=True):
            phi = builder.phi(element)
            phi.add_incoming(a, from_wide)
            phi.add_incoming(b, from_single)
            found.append(phi)
        return [_widen(builder, x, dtype) for x in found]

    return build


def _storing_vector(count: int, dtype: DType) -> Callable[..., Any]:
    word, each = _words(count, dtype)
    words, element = count // each, _stored(dtype)

    def joined(builder: Any, values: Sequence[Any]) -> Any:
        if each == 1:
            return values[0]
        total = builder.zext(values[0], word)
        for i, value in enumerate(values[1:], 1):
            total = builder.or_(total, builder.shl(builder.zext(value, word), word(8 * dtype.itemsize * i)))
        return total

    def build(builder: Any, kind: str, pointer: Any, index: Any, *values: Any) -> None:
        stored = [_narrow(builder, v, dtype) for v in values[:count]]
        place = _place(builder, pointer, index, element, _GLOBAL)
        with builder.if_else(_aligned(builder, pointer, index, count * dtype.itemsize, dtype.itemsize)) as (yes, no):
            with yes:
                parts = [joined(builder, stored[i : i + each]) for i in range(0, count, each)]
                whole = parts[0]
                if words > 1:
                    whole = ir.Constant(ir.VectorType(word, words), ir.Undefined)
                    for i, part in enumerate(parts):
                        whole = builder.insert_element(whole, part, _integer(32)(i))
                written = builder.store(whole, _vector_place(builder, place, word, words))
                written.align = count * dtype.itemsize
            with no:
                for i, value in enumerate(stored):
                    written = builder.store(value, builder.gep(place, [_integer(64)(i)]))
                    written.align = dtype.itemsize

    return build


def _vectors(count: int, dtype: DType) -> dict[str, Word]:
    kind, value = np.dtype(dtype.numpy), _COMPUTED[dtype.name]
    wide = np.float32 if dtype.storage_only else kind.type

    @typed("int64 int64 int64", " ".join([value] * count), _loading_vector(count, dtype))
    def load(pointer: int, index: int, scope: int) -> tuple[Any, ...]:
        found = _neighbours(pointer + int(index) * kind.itemsize, count, kind, "reads")
        return tuple(wide(x.view(kind)[0]) for x in found)

    @typed(" ".join(["int64 int64", *[value] * count, "int64"]), "", _storing_vector(count, dtype))
    def store(pointer: int, index: int, *values: Any) -> None:
        found = _neighbours(pointer + int(index) * kind.itemsize, count, kind, "writes")
        for place, x in zip(found, values[:count], strict=True):
            place.view(kind)[0] = x

    return {f"load{count}_{dtype}": load, f"store{count}_{dtype}": store}


def _neighbours(address: int, count: int, kind: np.dtype, what: str) -> list[np.ndarray]:
    """The bytes of each of ``count`` elements, taken together where they are aligned."""
    size = kind.itemsize
    if address % (count * size) == 0:
        whole = global_bytes(address, count * size, what)
        return [whole[i * size : (i + 1) * size] for i in range(count)]
    return [global_bytes(address + i * size, size, what) for i in range(count)]


def has_vector(count: int, dtype: DType) -> bool:
    """Whether ``count`` elements of ``dtype`` are one access: 4 to 16 bytes."""
    return count in VECTORS and 4 <= count * dtype.itemsize <= 16


for _dtype in dtypes.ALL:
    globals().update(_memory(_dtype))
    for _count in VECTORS:
        if has_vector(_count, _dtype):
            globals().update(_vectors(_count, _dtype))


# --- steps -------------------------------------------------------------------------------------------------


def _skipped(builder: Any, kind: str, guard: Any, error: Any) -> Any:
    i1, i8, i64 = _integer(1), _integer(8), _integer(64)

    def test(address: Any, element: Any, stops: str) -> Any:
        """Whether there is an address, and what is there makes the kernel stop."""
        before = builder.block
        given = builder.icmp_unsigned("!=", address, i64(0))
        with builder.if_then(given):
            loaded = builder.load(_place(builder, address, i64(0), element, _GLOBAL))
            stopped = builder.icmp_unsigned(stops, loaded, element(0))
            inside = builder.block
        phi = builder.phi(i1)
        phi.add_incoming(i1(0), before)
        phi.add_incoming(stopped, inside)
        return phi

    unwanted = test(guard, i8, "==")
    return builder.or_(unwanted, test(error, i64, "!="))


@typed("int64 int64", "bool", _skipped)
def skipped(guard: int, error: int) -> bool:
    """Whether a kernel must not run: the byte at ``guard`` is zero, or the number at ``error`` is not; an address 0
    stands for none."""
    off = guard != 0 and load_atomic(guard, np.dtype(np.uint8)) == 0
    return bool(off or (error != 0 and load_atomic(error, np.dtype(np.int64)) != 0))


def _report(builder: Any, kind: str, word: Any, failed: Any, code: Any, value: Any) -> None:
    i64 = _integer(64)
    with builder.if_then(failed, likely=False):
        first = _place(builder, word, i64(0), i64, _GLOBAL)
        claimed = builder.cmpxchg(first, i64(0), code, "monotonic", "monotonic")
        with builder.if_then(builder.extract_value(claimed, 1)):
            builder.store(value, _place(builder, word, i64(1), i64, _GLOBAL))


@typed("int64 bool int64 int64", "", _report)
def report(pointer: int, failed: bool, code: int, value: int) -> None:
    """Where ``failed``, write ``code`` and ``value`` into the error word (i64[2]) unless it holds an error already."""
    if failed and swap_global(pointer, np.dtype(np.int64), code, 0) == 0:
        store_global(pointer + 8, np.dtype(np.int64), value)


# --- operators ---------------------------------------------------------------------------------------------


def _operator(name: str, takes: str, gives: str, build: Callable[..., Any]) -> Word:
    return typed(takes, gives, build)(WORDS[name])


_NAMELESS = {"fabs": "abs.{t} $0, $1;", "trunc": "cvt.rzi.{t}.{t} $0, $1;", "rint": "cvt.rni.{t}.{t} $0, $1;",
             "copysign": "copysign.{t} $0, $2, $1;"}  # fmt: skip


def call(builder: Any, name: str, values: Sequence[Any]) -> Any:
    """The LLVM function ``name`` of floats, of which NVVM takes but few."""
    if name not in _NAMELESS:
        return call_llvm(builder, name, list(values))
    single = values[0].type == ir.FloatType()
    text = _NAMELESS[name].format(t="f32" if single else "f64")
    letter = "f" if single else "d"
    return _ptx(builder, text, ",".join([f"={letter}", *[letter] * len(values)]), values[0].type, *values)


def _llvm(name: str) -> Callable[..., Any]:
    return lambda builder, kind, *args: call(builder, name, args)


def _is_finite(builder: Any, kind: str, x: Any) -> Any:
    return builder.fcmp_ordered("<", call(builder, "fabs", [x]), ir.Constant(x.type, float("inf")), flags=EXACT)


def _extremum(greatest: bool) -> Callable[..., Any]:
    """maximum or minimum; a NaN in either argument wins."""

    def build(builder: Any, kind: str, a: Any, b: Any) -> Any:
        if a.type == ir.FloatType():  # sm_80 has an instruction for it
            text = f"{'max' if greatest else 'min'}.NaN.f32 $0, $1, $2;"
            return _ptx(builder, text, "=f,f,f", a.type, a, b)
        return scalar_ir.extremum(greatest)(builder, kind, a, b)

    return build


def _rounding(dtype: DType) -> Callable[..., Any]:
    return lambda builder, kind, x: _widen(builder, _narrow(builder, x, dtype), dtype)


def _truncation(bits: int) -> Callable[..., Any]:
    return lambda builder, kind, x: scalar_ir.truncation(bits)(builder, x)


floor = _operator("floor", "any", "any", _llvm("floor"))
ceil = _operator("ceil", "any", "any", _llvm("ceil"))
trunc = _operator("trunc", "any", "any", _llvm("trunc"))
round_even = _operator("round_even", "any", "any", _llvm("rint"))
absolute = _operator("absolute", "any", "any", _llvm("fabs"))
sqrt = _operator("sqrt", "any", "any", _llvm("sqrt"))
select = _operator("select", "bool any same", "any", lambda builder, kind, *args: builder.select(*args))
maximum = _operator("maximum", "any same", "any", _extremum(True))
minimum = _operator("minimum", "any same", "any", _extremum(False))
running_maximum, running_minimum = maximum, minimum
sign = _operator("sign", "any", "any", scalar_ir.sign)
is_nan = _operator("is_nan", "any", "bool", scalar_ir.is_nan)
is_finite = _operator("is_finite", "any", "bool", _is_finite)
integer_floordiv = _operator("integer_floordiv", "any same", "any", scalar_ir.integer_division(True))
integer_mod = _operator("integer_mod", "any same", "any", scalar_ir.integer_division(False))
shift_left = _operator("shift_left", "any same", "any", scalar_ir.shift(True))
shift_right = _operator("shift_right", "any same", "any", scalar_ir.shift(False))
truncate_i8 = _operator("truncate_i8", "any", "int8", _truncation(8))
truncate_u8 = _operator("truncate_u8", "any", "uint8", _truncation(8))
truncate_i32 = _operator("truncate_i32", "any", "int32", _truncation(32))
truncate_i64 = _operator("truncate_i64", "any", "int64", _truncation(64))
round_f16 = _operator("round_f16", "float32", "float32", _rounding(dtypes.f16))
round_bf16 = _operator("round_bf16", "float32", "float32", _rounding(dtypes.bf16))


@typed("int64", "int64", lambda builder, kind, x: call_llvm(builder, "ctpop", [x]))
def count_bits(x: int) -> int:
    """How many bits of ``x`` are set."""
    return bin(x).count("1")


def _quotient(builder: Any, kind: str, a: Any, b: Any) -> Any:
    """A division of 32 bits where both fit. Else, as good as never, by a reciprocal of 20 bits, which at every step
    takes as many bits off what is left: to divide 64 bits ptxas calls a function, and that takes a stack."""
    i32, i64, f64 = _integer(32), _integer(64), ir.DoubleType()
    large = builder.icmp_unsigned("!=", builder.lshr(builder.or_(a, b), i64(32)), i64(0))
    with builder.if_else(large, likely=False) as (yes, no):
        with yes:
            reciprocal = _ptx(builder, "rcp.approx.ftz.f64 $0, $1;", "=d,d", f64, builder.sitofp(b, f64))
            found, rest = i64(0), a
            for _ in range(4):
                step = builder.fptosi(builder.fmul(builder.sitofp(rest, f64), reciprocal), i64)
                found, rest = builder.add(found, step), builder.sub(rest, builder.mul(step, b))
            found = builder.sub(found, builder.zext(builder.icmp_signed("<", rest, i64(0)), i64))
            slow = builder.add(found, builder.zext(builder.icmp_signed(">=", rest, b), i64))
            from_slow = builder.block
        with no:
            short = builder.udiv(builder.trunc(a, i32), builder.trunc(b, i32))
            fast, from_fast = builder.zext(short, i64), builder.block
    result = builder.phi(i64)
    result.add_incoming(slow, from_slow)
    result.add_incoming(fast, from_fast)
    return result


quotient = _operator("quotient", "int64 int64", "int64", _quotient)
"""``a // b`` of indices: ``a`` is not negative and ``b`` is positive."""
