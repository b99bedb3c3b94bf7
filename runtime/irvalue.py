"""Writing LLVM IR as arithmetic: the notation of the math library.

A :class:`Num` is a float or an integer in a kernel; operators on it append instructions. Floating-point
instructions carry flags of their own, so that Numba's fast-math flags never reorder a careful sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

F32, F64 = ir.FloatType(), ir.DoubleType()
I32, I64 = ir.IntType(32), ir.IntType(64)

EXACT = ("nsz",)
"""Flags for floating-point instructions whose order matters. Numba adds the kernel's own flags (reassoc among
them) to every instruction that has none."""


def call_llvm(builder: ir.IRBuilder, name: str, args: list[ir.Value] | tuple[ir.Value, ...]) -> ir.Value:
    """A call of the overloaded LLVM intrinsic ``name`` at the type of its arguments."""
    kind = args[0].type
    suffix = {F32: "f32", F64: "f64"}.get(kind) or f"i{kind.width}"
    full = f"llvm.{name}.{suffix}"
    function = builder.module.globals.get(full)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(kind, [a.type for a in args]), full)
    return builder.call(function, args)


class Num:
    """A value with its builder. Comparisons give a Num of one bit, for :meth:`where`."""

    __slots__ = ("builder", "value")
    constants = 0
    """The address space of constant arrays."""

    def __init__(self, builder: ir.IRBuilder, value: ir.Value):
        self.builder = builder
        self.value = value

    def _of(self, value: ir.Value) -> Num:
        return type(self)(self.builder, value)

    @property
    def type(self) -> ir.Type:
        return self.value.type

    @property
    def is_f32(self) -> bool:
        return self.type == F32

    def like(self, number: Num | float | int) -> Num:
        """``number`` as a constant of this value's type."""
        if isinstance(number, Num):
            return number
        return self._of(ir.Constant(self.type, number))

    def _float(self, name: str, other: Num | float, swap: bool = False) -> Num:
        a, b = (self.like(other), self) if swap else (self, self.like(other))
        return self._of(getattr(self.builder, name)(a.value, b.value, flags=EXACT))

    def _integer(self, name: str, other: Num | int) -> Num:
        return self._of(getattr(self.builder, name)(self.value, self.like(other).value))

    def _is_integer(self) -> bool:
        return isinstance(self.type, ir.IntType)

    def __add__(self, other: Num | float) -> Num:
        return self._integer("add", other) if self._is_integer() else self._float("fadd", other)  # type: ignore[arg-type]

    def __sub__(self, other: Num | float) -> Num:
        return self._integer("sub", other) if self._is_integer() else self._float("fsub", other)  # type: ignore[arg-type]

    def __mul__(self, other: Num | float) -> Num:
        return self._integer("mul", other) if self._is_integer() else self._float("fmul", other)  # type: ignore[arg-type]

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: Num | float) -> Num:
        return self.like(other) - self

    def __truediv__(self, other: Num | float) -> Num:
        return self._float("fdiv", other)

    def __rtruediv__(self, other: Num | float) -> Num:
        return self._float("fdiv", other, swap=True)

    def __neg__(self) -> Num:
        return self._of(self.builder.fneg(self.value))

    def __and__(self, other: Num | int) -> Num:
        return self._integer("and_", other)

    def __or__(self, other: Num | int) -> Num:
        return self._integer("or_", other)

    def __xor__(self, other: Num | int) -> Num:
        return self._integer("xor", other)

    def __lshift__(self, count: int) -> Num:
        return self._integer("shl", count)

    def __rshift__(self, count: int) -> Num:
        """The arithmetic shift."""
        return self._integer("ashr", count)

    def logical_shift(self, count: int) -> Num:
        return self._integer("lshr", count)

    def _compare(self, operator: str, other: Num | float) -> Num:
        left, right = self.value, self.like(other).value
        if self._is_integer():
            return self._of(self.builder.icmp_signed(operator, left, right))
        make = self.builder.fcmp_unordered if operator == "!=" else self.builder.fcmp_ordered
        return self._of(make(operator, left, right, flags=EXACT))

    def __lt__(self, other: Num | float) -> Num:
        return self._compare("<", other)

    def __le__(self, other: Num | float) -> Num:
        return self._compare("<=", other)

    def __gt__(self, other: Num | float) -> Num:
        return self._compare(">", other)

    def __ge__(self, other: Num | float) -> Num:
        return self._compare(">=", other)

    def equals(self, other: Num | float) -> Num:
        return self._compare("==", other)

    def differs(self, other: Num | float) -> Num:
        return self._compare("!=", other)

    def where(self, a: Num | float, b: Num | float) -> Num:
        """``a`` where this bit is set, else ``b``; at least one of them is a Num."""
        kind = a if isinstance(a, Num) else b
        assert isinstance(kind, Num)
        return self._of(self.builder.select(self.value, kind.like(a).value, kind.like(b).value))

    def call(self, name: str, *others: Num | float) -> Num:
        """The LLVM intrinsic ``name`` on this value and ``others``."""
        return self._of(call_llvm(self.builder, name, [self.value, *(self.like(o).value for o in others)]))

    def fma(self, factor: Num | float, summand: Num | float) -> Num:
        """``self * factor + summand`` with one rounding."""
        return self.call("fma", factor, summand)

    def abs(self) -> Num:
        return self.call("fabs")

    def rint(self) -> Num:
        return self.call("rint")

    def copysign(self, sign: Num) -> Num:
        return self.call("copysign", sign)

    def at_most(self, bound: float) -> Num:
        """The smaller of this and ``bound``; NaN stays."""
        return (self > bound).where(bound, self)

    def at_least(self, bound: float) -> Num:
        return (self < bound).where(bound, self)

    def bits(self) -> Num:
        return self._of(self.builder.bitcast(self.value, I32 if self.is_f32 else I64))

    def as_float(self) -> Num:
        """The float whose bits this integer holds."""
        return self._of(self.builder.bitcast(self.value, F32 if self.type == I32 else F64))

    def to(self, kind: ir.Type) -> Num:
        """A conversion between float types, or of a signed integer to a float or a wider integer."""
        if self.type == kind:
            return self
        build = self.builder
        if self._is_integer():
            if isinstance(kind, ir.IntType):
                narrower = kind.width < self.type.width
                return self._of(build.trunc(self.value, kind) if narrower else build.sext(self.value, kind))
            return self._of(build.sitofp(self.value, kind))
        return self._of(build.fpext(self.value, kind) if kind == F64 else build.fptrunc(self.value, kind))

    def scaled(self, n: Num) -> Num:
        """``self * 2**n`` for an integer ``n`` that takes no more than two normal factors."""
        half = n >> 1
        return self * power_of_two(half) * power_of_two(n - half)

    def table(self, name: str, values: Sequence[float], index: Num) -> Num:
        """``values[index]``, an f64, from a constant array of the module that all who give it this ``name`` share."""
        module, kind = self.builder.module, ir.ArrayType(F64, len(values))
        array = module.globals.get(name)
        if array is None:
            array = ir.GlobalVariable(module, kind, name, self.constants)
            array.global_constant = True
            array.linkage = "internal"
            array.initializer = ir.Constant(kind, values)
        return self._of(self.builder.load(self.builder.gep(array, [I64(0), index.value], inbounds=True)))

    def polynomial(self, coefficients: Sequence[float | Num]) -> Num:
        """Horner's rule, highest power first."""
        result = self.like(coefficients[0])
        for c in coefficients[1:]:
            result = result.fma(self, c)
        return result


def power_of_two(n: Num) -> Num:
    """2**n for an integer n in the range of normal exponents."""
    bias, shift = (127, 23) if n.type.width == 32 else (1023, 52)
    return ((n + bias) << shift).as_float()


def two_product(a: Num, b: Num | float) -> tuple[Num, Num]:
    """The product and its rounding error."""
    product = a * b
    return product, a.fma(b, -product)


def two_sum(a: Num, b: Num) -> tuple[Num, Num]:
    """The sum and its rounding error (Knuth)."""
    total = a + b
    shadow = total - a
    return total, (a - (total - shadow)) + (b - shadow)


def fast_two_sum(a: Num, b: Num) -> tuple[Num, Num]:
    """The sum and its rounding error, where a is not the smaller one (Dekker)."""
    total = a + b
    return total, b - (total - a)
