"""Written by python -m frontend.stubs from the op records; do not edit."""

from collections.abc import Callable
from typing import Any

from engine.op import Op
from frontend.tensor import Operand, Tensor

FUNCTIONS: dict[str, Callable[..., Any]]

def records() -> dict[str, Op]: ...

def abs(x: Operand, /) -> Tensor:
    """The magnitude"""

def add(x: Operand, y: Operand, /) -> Tensor:
    """x + y"""

def atan(x: Operand, /) -> Tensor:
    """The inverse tangent, in radians"""

def atan2(y: Operand, x: Operand, /) -> Tensor:
    """The angle of the point (x, y)"""

def bitwise_and(x: Operand, y: Operand, /) -> Tensor:
    """Bitwise and"""

def bitwise_left_shift(x: Operand, y: Operand, /) -> Tensor:
    """x shifted left by y bits"""

def bitwise_not(x: Operand, /) -> Tensor:
    """Every bit inverted"""

def bitwise_or(x: Operand, y: Operand, /) -> Tensor:
    """Bitwise or"""

def bitwise_right_shift(x: Operand, y: Operand, /) -> Tensor:
    """x shifted right by y bits"""

def bitwise_xor(x: Operand, y: Operand, /) -> Tensor:
    """Bitwise exclusive or"""

def ceil(x: Operand, /) -> Tensor:
    """The least integer >= x"""

def cos(x: Operand, /) -> Tensor:
    """The cosine of x radians"""

def div(x: Operand, y: Operand, /) -> Tensor:
    """x / y, in floating point"""

def eq(x: Operand, y: Operand, /) -> Tensor:
    """x == y"""

def erf(x: Operand, /) -> Tensor:
    """The error function 2/sqrt(pi) * integral of exp(-t*t) from 0 to x"""

def exp(x: Operand, /) -> Tensor:
    """e to the power x"""

def expm1(x: Operand, /) -> Tensor:
    """exp(x) - 1, exact near 0"""

def floor(x: Operand, /) -> Tensor:
    """The greatest integer <= x"""

def floor_divide(x: Operand, y: Operand, /) -> Tensor:
    """floor(x / y); by zero 0 for integers"""

def ge(x: Operand, y: Operand, /) -> Tensor:
    """x >= y"""

def gt(x: Operand, y: Operand, /) -> Tensor:
    """x > y"""

def isfinite(x: Operand, /) -> Tensor:
    """It is neither NaN nor infinite"""

def isnan(x: Operand, /) -> Tensor:
    """It is NaN"""

def le(x: Operand, y: Operand, /) -> Tensor:
    """x <= y"""

def log(x: Operand, /) -> Tensor:
    """The natural logarithm"""

def log1p(x: Operand, /) -> Tensor:
    """log(1 + x), exact near 0"""

def logical_and(x: Operand, y: Operand, /) -> Tensor:
    """Both are true"""

def logical_not(x: Operand, /) -> Tensor:
    """It is not true"""

def logical_or(x: Operand, y: Operand, /) -> Tensor:
    """Either is true"""

def lt(x: Operand, y: Operand, /) -> Tensor:
    """x < y"""

def maximum(x: Operand, y: Operand, /) -> Tensor:
    """The greater one; NaN wins. Ties share the gradient."""

def minimum(x: Operand, y: Operand, /) -> Tensor:
    """The lesser one; NaN wins. Ties share the gradient."""

def mul(x: Operand, y: Operand, /) -> Tensor:
    """x * y"""

def ne(x: Operand, y: Operand, /) -> Tensor:
    """x != y"""

def neg(x: Operand, /) -> Tensor:
    """-x"""

def pow(x: Operand, y: Operand, /) -> Tensor:
    """x to the power y"""

def reciprocal(x: Operand, /) -> Tensor:
    """1 / x"""

def relu(x: Operand, /) -> Tensor:
    """max(x, 0); NaN stays"""

def remainder(x: Operand, y: Operand, /) -> Tensor:
    """x - floor(x / y) * y: the sign of y"""

def round(x: Operand, /) -> Tensor:
    """The nearest integer, halves to even"""

def rsqrt(x: Operand, /) -> Tensor:
    """1 / sqrt(x)"""

def sigmoid(x: Operand, /) -> Tensor:
    """1 / (1 + exp(-x))"""

def sign(x: Operand, /) -> Tensor:
    """-1, 0 or 1"""

def sin(x: Operand, /) -> Tensor:
    """The sine of x radians"""

def sqrt(x: Operand, /) -> Tensor:
    """The square root"""

def square(x: Operand, /) -> Tensor:
    """x * x"""

def sub(x: Operand, y: Operand, /) -> Tensor:
    """x - y"""

def tan(x: Operand, /) -> Tensor:
    """The tangent of x radians"""

def tanh(x: Operand, /) -> Tensor:
    """The hyperbolic tangent"""

def trunc(x: Operand, /) -> Tensor:
    """x without its fraction"""

def where(condition: Operand, x: Operand, y: Operand, /) -> Tensor:
    """x where the condition holds, else y"""

class ElementwiseMethods:
    def abs(self, /) -> Tensor:
        """The magnitude"""

    def add(self, y: Operand, /) -> Tensor:
        """x + y"""

    def atan(self, /) -> Tensor:
        """The inverse tangent, in radians"""

    def atan2(self, x: Operand, /) -> Tensor:
        """The angle of the point (x, y)"""

    def bitwise_and(self, y: Operand, /) -> Tensor:
        """Bitwise and"""

    def bitwise_left_shift(self, y: Operand, /) -> Tensor:
        """x shifted left by y bits"""

    def bitwise_not(self, /) -> Tensor:
        """Every bit inverted"""

    def bitwise_or(self, y: Operand, /) -> Tensor:
        """Bitwise or"""

    def bitwise_right_shift(self, y: Operand, /) -> Tensor:
        """x shifted right by y bits"""

    def bitwise_xor(self, y: Operand, /) -> Tensor:
        """Bitwise exclusive or"""

    def ceil(self, /) -> Tensor:
        """The least integer >= x"""

    def cos(self, /) -> Tensor:
        """The cosine of x radians"""

    def div(self, y: Operand, /) -> Tensor:
        """x / y, in floating point"""

    def eq(self, y: Operand, /) -> Tensor:
        """x == y"""

    def erf(self, /) -> Tensor:
        """The error function 2/sqrt(pi) * integral of exp(-t*t) from 0 to x"""

    def exp(self, /) -> Tensor:
        """e to the power x"""

    def expm1(self, /) -> Tensor:
        """exp(x) - 1, exact near 0"""

    def floor(self, /) -> Tensor:
        """The greatest integer <= x"""

    def floor_divide(self, y: Operand, /) -> Tensor:
        """floor(x / y); by zero 0 for integers"""

    def ge(self, y: Operand, /) -> Tensor:
        """x >= y"""

    def gt(self, y: Operand, /) -> Tensor:
        """x > y"""

    def isfinite(self, /) -> Tensor:
        """It is neither NaN nor infinite"""

    def isnan(self, /) -> Tensor:
        """It is NaN"""

    def le(self, y: Operand, /) -> Tensor:
        """x <= y"""

    def log(self, /) -> Tensor:
        """The natural logarithm"""

    def log1p(self, /) -> Tensor:
        """log(1 + x), exact near 0"""

    def logical_and(self, y: Operand, /) -> Tensor:
        """Both are true"""

    def logical_not(self, /) -> Tensor:
        """It is not true"""

    def logical_or(self, y: Operand, /) -> Tensor:
        """Either is true"""

    def lt(self, y: Operand, /) -> Tensor:
        """x < y"""

    def maximum(self, y: Operand, /) -> Tensor:
        """The greater one; NaN wins. Ties share the gradient."""

    def minimum(self, y: Operand, /) -> Tensor:
        """The lesser one; NaN wins. Ties share the gradient."""

    def mul(self, y: Operand, /) -> Tensor:
        """x * y"""

    def ne(self, y: Operand, /) -> Tensor:
        """x != y"""

    def neg(self, /) -> Tensor:
        """-x"""

    def pow(self, y: Operand, /) -> Tensor:
        """x to the power y"""

    def reciprocal(self, /) -> Tensor:
        """1 / x"""

    def relu(self, /) -> Tensor:
        """max(x, 0); NaN stays"""

    def remainder(self, y: Operand, /) -> Tensor:
        """x - floor(x / y) * y: the sign of y"""

    def round(self, /) -> Tensor:
        """The nearest integer, halves to even"""

    def rsqrt(self, /) -> Tensor:
        """1 / sqrt(x)"""

    def sigmoid(self, /) -> Tensor:
        """1 / (1 + exp(-x))"""

    def sign(self, /) -> Tensor:
        """-1, 0 or 1"""

    def sin(self, /) -> Tensor:
        """The sine of x radians"""

    def sqrt(self, /) -> Tensor:
        """The square root"""

    def square(self, /) -> Tensor:
        """x * x"""

    def sub(self, y: Operand, /) -> Tensor:
        """x - y"""

    def tan(self, /) -> Tensor:
        """The tangent of x radians"""

    def tanh(self, /) -> Tensor:
        """The hyperbolic tangent"""

    def trunc(self, /) -> Tensor:
        """x without its fraction"""

__all__ = [
    "abs",
    "add",
    "atan",
    "atan2",
    "bitwise_and",
    "bitwise_left_shift",
    "bitwise_not",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "ceil",
    "cos",
    "div",
    "eq",
    "erf",
    "exp",
    "expm1",
    "floor",
    "floor_divide",
    "ge",
    "gt",
    "isfinite",
    "isnan",
    "le",
    "log",
    "log1p",
    "logical_and",
    "logical_not",
    "logical_or",
    "lt",
    "maximum",
    "minimum",
    "mul",
    "ne",
    "neg",
    "pow",
    "reciprocal",
    "relu",
    "remainder",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "sin",
    "sqrt",
    "square",
    "sub",
    "tan",
    "tanh",
    "trunc",
    "where",
]
