"""Written by python -m frontend.stubs from the op records; do not edit."""

from collections.abc import Callable
from typing import Any

from engine.op import Op
from frontend.tensor import Operand, Tensor

FUNCTIONS: dict[str, Callable[..., Any]]

def records() -> dict[str, Op]: ...

def abs(x: Operand, /) -> Tensor:
    """The magnitude"""

def absolute(x: Operand, /) -> Tensor:
    """The magnitude"""

def acos(x: Operand, /) -> Tensor:
    """The inverse cosine, in radians"""

def acosh(x: Operand, /) -> Tensor:
    """The inverse hyperbolic cosine"""

def arccos(x: Operand, /) -> Tensor:
    """The inverse cosine, in radians"""

def arccosh(x: Operand, /) -> Tensor:
    """The inverse hyperbolic cosine"""

def arcsin(x: Operand, /) -> Tensor:
    """The inverse sine, in radians"""

def arcsinh(x: Operand, /) -> Tensor:
    """The inverse hyperbolic sine"""

def arctan(x: Operand, /) -> Tensor:
    """The inverse tangent, in radians"""

def arctan2(y: Operand, x: Operand, /) -> Tensor:
    """The angle of the point (x, y)"""

def arctanh(x: Operand, /) -> Tensor:
    """The inverse hyperbolic tangent"""

def asin(x: Operand, /) -> Tensor:
    """The inverse sine, in radians"""

def asinh(x: Operand, /) -> Tensor:
    """The inverse hyperbolic sine"""

def atan(x: Operand, /) -> Tensor:
    """The inverse tangent, in radians"""

def atan2(y: Operand, x: Operand, /) -> Tensor:
    """The angle of the point (x, y)"""

def atanh(x: Operand, /) -> Tensor:
    """The inverse hyperbolic tangent"""

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

def copysign(x: Operand, y: Operand, /) -> Tensor:
    """The magnitude of x with the sign of y"""

def cos(x: Operand, /) -> Tensor:
    """The cosine of x radians"""

def cosh(x: Operand, /) -> Tensor:
    """The hyperbolic cosine"""

def deg2rad(x: Operand, /) -> Tensor:
    """Degrees as radians"""

def eq(x: Operand, y: Operand, /) -> Tensor:
    """x == y"""

def erf(x: Operand, /) -> Tensor:
    """The error function 2/sqrt(pi) * integral of exp(-t*t) from 0 to x"""

def exp(x: Operand, /) -> Tensor:
    """e to the power x"""

def exp2(x: Operand, /) -> Tensor:
    """2 to the power x"""

def expm1(x: Operand, /) -> Tensor:
    """exp(x) - 1, exact near 0"""

def fix(x: Operand, /) -> Tensor:
    """x without its fraction"""

def floor(x: Operand, /) -> Tensor:
    """The greatest integer <= x"""

def floor_divide(x: Operand, y: Operand, /) -> Tensor:
    """floor(x / y); by zero 0 for integers"""

def fmax(x: Operand, y: Operand, /) -> Tensor:
    """The greater one; a number wins over NaN"""

def fmin(x: Operand, y: Operand, /) -> Tensor:
    """The lesser one; a number wins over NaN"""

def fmod(x: Operand, y: Operand, /) -> Tensor:
    """x - trunc(x / y) * y: the sign of x"""

def frac(x: Operand, /) -> Tensor:
    """The fraction of x, with its sign"""

def ge(x: Operand, y: Operand, /) -> Tensor:
    """x >= y"""

def greater(x: Operand, y: Operand, /) -> Tensor:
    """x > y"""

def greater_equal(x: Operand, y: Operand, /) -> Tensor:
    """x >= y"""

def gt(x: Operand, y: Operand, /) -> Tensor:
    """x > y"""

def hypot(x: Operand, y: Operand, /) -> Tensor:
    """The length of (x, y)"""

def isfinite(x: Operand, /) -> Tensor:
    """It is neither NaN nor infinite"""

def isinf(x: Operand, /) -> Tensor:
    """It is infinite"""

def isnan(x: Operand, /) -> Tensor:
    """It is NaN"""

def le(x: Operand, y: Operand, /) -> Tensor:
    """x <= y"""

def lerp(x: Operand, y: Operand, weight: Operand, /) -> Tensor:
    """From x to y, by the share weight of the way"""

def less(x: Operand, y: Operand, /) -> Tensor:
    """x < y"""

def less_equal(x: Operand, y: Operand, /) -> Tensor:
    """x <= y"""

def log(x: Operand, /) -> Tensor:
    """The natural logarithm"""

def log10(x: Operand, /) -> Tensor:
    """The logarithm to base 10"""

def log1p(x: Operand, /) -> Tensor:
    """log(1 + x), exact near 0"""

def log2(x: Operand, /) -> Tensor:
    """The logarithm to base 2"""

def logaddexp(x: Operand, y: Operand, /) -> Tensor:
    """log(exp(x) + exp(y))"""

def logaddexp2(x: Operand, y: Operand, /) -> Tensor:
    """log2(2**x + 2**y)"""

def logical_and(x: Operand, y: Operand, /) -> Tensor:
    """Both are true"""

def logical_not(x: Operand, /) -> Tensor:
    """It is not true"""

def logical_or(x: Operand, y: Operand, /) -> Tensor:
    """Either is true"""

def logical_xor(x: Operand, y: Operand, /) -> Tensor:
    """One is true, and the other is not"""

def logsigmoid(x: Operand, /) -> Tensor:
    """The logarithm of the sigmoid"""

def lt(x: Operand, y: Operand, /) -> Tensor:
    """x < y"""

def maximum(x: Operand, y: Operand, /) -> Tensor:
    """The greater one; NaN wins. Ties share the gradient."""

def minimum(x: Operand, y: Operand, /) -> Tensor:
    """The lesser one; NaN wins. Ties share the gradient."""

def mul(x: Operand, y: Operand, /) -> Tensor:
    """x * y"""

def multiply(x: Operand, y: Operand, /) -> Tensor:
    """x * y"""

def ne(x: Operand, y: Operand, /) -> Tensor:
    """x != y"""

def neg(x: Operand, /) -> Tensor:
    """-x"""

def negative(x: Operand, /) -> Tensor:
    """-x"""

def not_equal(x: Operand, y: Operand, /) -> Tensor:
    """x != y"""

def pow(x: Operand, y: Operand, /) -> Tensor:
    """x to the power y"""

def rad2deg(x: Operand, /) -> Tensor:
    """Radians as degrees"""

def reciprocal(x: Operand, /) -> Tensor:
    """1 / x"""

def relu(x: Operand, /) -> Tensor:
    """max(x, 0); NaN stays"""

def remainder(x: Operand, y: Operand, /) -> Tensor:
    """x - floor(x / y) * y: the sign of y"""

def rsqrt(x: Operand, /) -> Tensor:
    """1 / sqrt(x)"""

def sgn(x: Operand, /) -> Tensor:
    """-1, 0 or 1"""

def sigmoid(x: Operand, /) -> Tensor:
    """1 / (1 + exp(-x))"""

def sign(x: Operand, /) -> Tensor:
    """-1, 0 or 1"""

def signbit(x: Operand, /) -> Tensor:
    """Its sign is minus, as that of -0.0 is"""

def sin(x: Operand, /) -> Tensor:
    """The sine of x radians"""

def sinh(x: Operand, /) -> Tensor:
    """The hyperbolic sine"""

def softsign(x: Operand, /) -> Tensor:
    """x / (1 + |x|)"""

def sqrt(x: Operand, /) -> Tensor:
    """The square root"""

def square(x: Operand, /) -> Tensor:
    """x * x"""

def tan(x: Operand, /) -> Tensor:
    """The tangent of x radians"""

def tanh(x: Operand, /) -> Tensor:
    """The hyperbolic tangent"""

def tanhshrink(x: Operand, /) -> Tensor:
    """x - tanh(x)"""

def trunc(x: Operand, /) -> Tensor:
    """x without its fraction"""

def where(condition: Operand, x: Operand, y: Operand, /) -> Tensor:
    """x where the condition holds, else y"""

def xlogy(x: Operand, y: Operand, /) -> Tensor:
    """x * log(y), 0 where x is 0"""

class ElementwiseMethods:
    def abs(self, /) -> Tensor:
        """The magnitude"""

    def absolute(self, /) -> Tensor:
        """The magnitude"""

    def acos(self, /) -> Tensor:
        """The inverse cosine, in radians"""

    def acosh(self, /) -> Tensor:
        """The inverse hyperbolic cosine"""

    def arccos(self, /) -> Tensor:
        """The inverse cosine, in radians"""

    def arccosh(self, /) -> Tensor:
        """The inverse hyperbolic cosine"""

    def arcsin(self, /) -> Tensor:
        """The inverse sine, in radians"""

    def arcsinh(self, /) -> Tensor:
        """The inverse hyperbolic sine"""

    def arctan(self, /) -> Tensor:
        """The inverse tangent, in radians"""

    def arctan2(self, x: Operand, /) -> Tensor:
        """The angle of the point (x, y)"""

    def arctanh(self, /) -> Tensor:
        """The inverse hyperbolic tangent"""

    def asin(self, /) -> Tensor:
        """The inverse sine, in radians"""

    def asinh(self, /) -> Tensor:
        """The inverse hyperbolic sine"""

    def atan(self, /) -> Tensor:
        """The inverse tangent, in radians"""

    def atan2(self, x: Operand, /) -> Tensor:
        """The angle of the point (x, y)"""

    def atanh(self, /) -> Tensor:
        """The inverse hyperbolic tangent"""

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

    def copysign(self, y: Operand, /) -> Tensor:
        """The magnitude of x with the sign of y"""

    def cos(self, /) -> Tensor:
        """The cosine of x radians"""

    def cosh(self, /) -> Tensor:
        """The hyperbolic cosine"""

    def deg2rad(self, /) -> Tensor:
        """Degrees as radians"""

    def eq(self, y: Operand, /) -> Tensor:
        """x == y"""

    def erf(self, /) -> Tensor:
        """The error function 2/sqrt(pi) * integral of exp(-t*t) from 0 to x"""

    def exp(self, /) -> Tensor:
        """e to the power x"""

    def exp2(self, /) -> Tensor:
        """2 to the power x"""

    def expm1(self, /) -> Tensor:
        """exp(x) - 1, exact near 0"""

    def fix(self, /) -> Tensor:
        """x without its fraction"""

    def floor(self, /) -> Tensor:
        """The greatest integer <= x"""

    def floor_divide(self, y: Operand, /) -> Tensor:
        """floor(x / y); by zero 0 for integers"""

    def fmax(self, y: Operand, /) -> Tensor:
        """The greater one; a number wins over NaN"""

    def fmin(self, y: Operand, /) -> Tensor:
        """The lesser one; a number wins over NaN"""

    def fmod(self, y: Operand, /) -> Tensor:
        """x - trunc(x / y) * y: the sign of x"""

    def frac(self, /) -> Tensor:
        """The fraction of x, with its sign"""

    def ge(self, y: Operand, /) -> Tensor:
        """x >= y"""

    def greater(self, y: Operand, /) -> Tensor:
        """x > y"""

    def greater_equal(self, y: Operand, /) -> Tensor:
        """x >= y"""

    def gt(self, y: Operand, /) -> Tensor:
        """x > y"""

    def hypot(self, y: Operand, /) -> Tensor:
        """The length of (x, y)"""

    def isfinite(self, /) -> Tensor:
        """It is neither NaN nor infinite"""

    def isinf(self, /) -> Tensor:
        """It is infinite"""

    def isnan(self, /) -> Tensor:
        """It is NaN"""

    def le(self, y: Operand, /) -> Tensor:
        """x <= y"""

    def lerp(self, y: Operand, weight: Operand, /) -> Tensor:
        """From x to y, by the share weight of the way"""

    def less(self, y: Operand, /) -> Tensor:
        """x < y"""

    def less_equal(self, y: Operand, /) -> Tensor:
        """x <= y"""

    def log(self, /) -> Tensor:
        """The natural logarithm"""

    def log10(self, /) -> Tensor:
        """The logarithm to base 10"""

    def log1p(self, /) -> Tensor:
        """log(1 + x), exact near 0"""

    def log2(self, /) -> Tensor:
        """The logarithm to base 2"""

    def logaddexp(self, y: Operand, /) -> Tensor:
        """log(exp(x) + exp(y))"""

    def logaddexp2(self, y: Operand, /) -> Tensor:
        """log2(2**x + 2**y)"""

    def logical_and(self, y: Operand, /) -> Tensor:
        """Both are true"""

    def logical_not(self, /) -> Tensor:
        """It is not true"""

    def logical_or(self, y: Operand, /) -> Tensor:
        """Either is true"""

    def logical_xor(self, y: Operand, /) -> Tensor:
        """One is true, and the other is not"""

    def logsigmoid(self, /) -> Tensor:
        """The logarithm of the sigmoid"""

    def lt(self, y: Operand, /) -> Tensor:
        """x < y"""

    def maximum(self, y: Operand, /) -> Tensor:
        """The greater one; NaN wins. Ties share the gradient."""

    def minimum(self, y: Operand, /) -> Tensor:
        """The lesser one; NaN wins. Ties share the gradient."""

    def mul(self, y: Operand, /) -> Tensor:
        """x * y"""

    def multiply(self, y: Operand, /) -> Tensor:
        """x * y"""

    def ne(self, y: Operand, /) -> Tensor:
        """x != y"""

    def neg(self, /) -> Tensor:
        """-x"""

    def negative(self, /) -> Tensor:
        """-x"""

    def not_equal(self, y: Operand, /) -> Tensor:
        """x != y"""

    def pow(self, y: Operand, /) -> Tensor:
        """x to the power y"""

    def rad2deg(self, /) -> Tensor:
        """Radians as degrees"""

    def reciprocal(self, /) -> Tensor:
        """1 / x"""

    def relu(self, /) -> Tensor:
        """max(x, 0); NaN stays"""

    def remainder(self, y: Operand, /) -> Tensor:
        """x - floor(x / y) * y: the sign of y"""

    def rsqrt(self, /) -> Tensor:
        """1 / sqrt(x)"""

    def sgn(self, /) -> Tensor:
        """-1, 0 or 1"""

    def sigmoid(self, /) -> Tensor:
        """1 / (1 + exp(-x))"""

    def sign(self, /) -> Tensor:
        """-1, 0 or 1"""

    def signbit(self, /) -> Tensor:
        """Its sign is minus, as that of -0.0 is"""

    def sin(self, /) -> Tensor:
        """The sine of x radians"""

    def sinh(self, /) -> Tensor:
        """The hyperbolic sine"""

    def softsign(self, /) -> Tensor:
        """x / (1 + |x|)"""

    def sqrt(self, /) -> Tensor:
        """The square root"""

    def square(self, /) -> Tensor:
        """x * x"""

    def tan(self, /) -> Tensor:
        """The tangent of x radians"""

    def tanh(self, /) -> Tensor:
        """The hyperbolic tangent"""

    def tanhshrink(self, /) -> Tensor:
        """x - tanh(x)"""

    def trunc(self, /) -> Tensor:
        """x without its fraction"""

    def xlogy(self, y: Operand, /) -> Tensor:
        """x * log(y), 0 where x is 0"""

__all__ = [
    "abs",
    "absolute",
    "acos",
    "acosh",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "bitwise_and",
    "bitwise_left_shift",
    "bitwise_not",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "ceil",
    "copysign",
    "cos",
    "cosh",
    "deg2rad",
    "eq",
    "erf",
    "exp",
    "exp2",
    "expm1",
    "fix",
    "floor",
    "floor_divide",
    "fmax",
    "fmin",
    "fmod",
    "frac",
    "ge",
    "greater",
    "greater_equal",
    "gt",
    "hypot",
    "isfinite",
    "isinf",
    "isnan",
    "le",
    "lerp",
    "less",
    "less_equal",
    "log",
    "log10",
    "log1p",
    "log2",
    "logaddexp",
    "logaddexp2",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logsigmoid",
    "lt",
    "maximum",
    "minimum",
    "mul",
    "multiply",
    "ne",
    "neg",
    "negative",
    "not_equal",
    "pow",
    "rad2deg",
    "reciprocal",
    "relu",
    "remainder",
    "rsqrt",
    "sgn",
    "sigmoid",
    "sign",
    "signbit",
    "sin",
    "sinh",
    "softsign",
    "sqrt",
    "square",
    "tan",
    "tanh",
    "tanhshrink",
    "trunc",
    "where",
    "xlogy",
]
