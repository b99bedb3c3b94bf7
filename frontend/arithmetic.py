"""Elementwise functions with PyTorch's options, made of the ops of the table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from engine import dtypes
from engine.errors import DTypeError, TenonError
from frontend.dispatch import call

if TYPE_CHECKING:
    from frontend.tensor import Operand, Tensor


def add(input: Operand, other: Operand, *, alpha: float = 1) -> Tensor:
    """``input + alpha * other``.

    PyTorch: torch.add.
    """
    return call("add", input, _times(other, alpha))


def sub(input: Operand, other: Operand, *, alpha: float = 1) -> Tensor:
    """``input - alpha * other``.

    PyTorch: torch.sub.
    """
    return call("sub", input, _times(other, alpha))


def div(input: Operand, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
    """``input / other``, in floating point; with ``rounding_mode`` "floor" or "trunc" rounded that way, and integers
    stay integers.

    PyTorch: torch.div. Differs: the quotient of integers is f64.
    """
    if rounding_mode not in (None, "floor", "trunc"):
        raise TenonError(f'div: rounding_mode must be None, "floor" or "trunc", not {rounding_mode!r}')
    if rounding_mode == "floor":
        return call("floordiv", input, other)
    if rounding_mode is None:
        return call("div", input, other)
    whole = call("floordiv", input, other)
    if whole.dtype.is_float:
        return call("trunc", call("div", input, other))
    rest = call("sub", input, call("mul", whole, other))
    return call("where", call("and_", whole < 0, rest != 0), whole + 1, whole)


def round(input: Operand, *, decimals: int = 0) -> Tensor:
    """The nearest integer, or multiple of ``10**-decimals``; halves to even.

    PyTorch: torch.round.
    """
    from frontend.tensor import as_tensor

    x = as_tensor(input)
    if decimals == 0:
        return call("round", x)
    if not x.dtype.is_float:
        raise DTypeError(f"round with decimals takes floating point tensors, not {x.dtype}")
    factor = 10.0 ** abs(decimals)
    return call("round", x * factor) / factor if decimals > 0 else call("round", x / factor) * factor


def logit(input: Operand, eps: float | None = None) -> Tensor:
    """log(x / (1 - x)), the inverse of the sigmoid; with ``eps`` x is kept between eps and 1 - eps.

    PyTorch: torch.logit.
    """
    from frontend.bounds import clamp

    x = input if eps is None else clamp(input, eps, 1 - eps)  # type: ignore[arg-type]
    return call("log", x) - call("log1p", -x)


def addcmul(input: Operand, tensor1: Operand, tensor2: Operand, *, value: float = 1) -> Tensor:
    """``input + value * tensor1 * tensor2``.

    PyTorch: torch.addcmul.
    """
    return call("add", input, _times(call("mul", tensor1, tensor2), value))


def addcdiv(input: Operand, tensor1: Operand, tensor2: Operand, *, value: float = 1) -> Tensor:
    """``input + value * tensor1 / tensor2``.

    PyTorch: torch.addcdiv.
    """
    return call("add", input, _times(call("div", tensor1, tensor2), value))


def heaviside(input: Operand, values: Operand) -> Tensor:
    """0 below 0, 1 above, and ``values`` at 0; NaN stays.

    PyTorch: torch.heaviside.
    """
    from frontend.tensor import as_tensor

    x = as_tensor(input)
    return call("where", x == 0, values, call("where", x < 0, 0, call("where", x > 0, 1, x))).to(x.dtype)


def float_power(input: Operand, exponent: Operand) -> Tensor:
    """``input`` to the power ``exponent``, in f64.

    PyTorch: torch.float_power.
    """
    from frontend.tensor import as_tensor

    return call("pow", as_tensor(input, dtypes.f64), as_tensor(exponent, dtypes.f64))


def sinc(input: Operand) -> Tensor:
    """sin(pi * x) / (pi * x), 1 where x is 0.

    PyTorch: torch.sinc.
    """
    from frontend.tensor import as_tensor

    angle = as_tensor(input) * math.pi
    nothing = angle == 0
    return call("where", nothing, 1, call("sin", angle) / call("where", nothing, 1, angle)).to(angle.dtype)


def isposinf(input: Operand) -> Tensor:
    """It is infinity.

    PyTorch: torch.isposinf.
    """
    return call("eq", input, math.inf)


def isneginf(input: Operand) -> Tensor:
    """It is minus infinity.

    PyTorch: torch.isneginf.
    """
    return call("eq", input, -math.inf)


def positive(input: Tensor) -> Tensor:
    """x itself.

    PyTorch: torch.positive.
    """
    return +input


def _times(x: Operand, factor: float) -> Operand:
    return x if factor == 1 else call("mul", x, factor)


subtract, divide, true_divide = sub, div, div
