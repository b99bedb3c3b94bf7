"""Keeping elements between bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from frontend.dispatch import call, is_tensor

if TYPE_CHECKING:
    from frontend.tensor import Operand, Tensor


def clamp(input: Tensor | np.ndarray, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """At least ``min`` and at most ``max``, which wins where they contradict; NaN stays, and a NaN bound is taken.

    At a bound the gradient is that of the element, as in PyTorch; maximum and minimum would share it out.

    PyTorch: torch.clamp.
    """
    from frontend.tensor import as_tensor

    if min is None and max is None:
        raise TypeError("clamp() needs min, max or both")
    low = as_tensor(input) if min is None else _within("lt", input, min)
    return low if max is None else _within("gt", low, max)


def clamp_min(input: Tensor | np.ndarray, min: Operand) -> Tensor:
    """At least ``min``.

    PyTorch: torch.clamp_min.
    """
    return clamp(input, min=min)


def clamp_max(input: Tensor | np.ndarray, max: Operand) -> Tensor:
    """At most ``max``.

    PyTorch: torch.clamp_max.
    """
    return clamp(input, max=max)


def _within(beyond: str, x: Tensor | np.ndarray, bound: Operand) -> Tensor:
    """``x``, or ``bound`` where ``x`` lies beyond it or ``bound`` is NaN."""
    outside = call(beyond, x, bound)
    if is_tensor(bound):
        outside = call("or_", outside, call("ne", bound, bound))
    return call("where", outside, bound, x)


def nan_to_num(
    input: Tensor | np.ndarray, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """Numbers in place of NaN and infinities: the greatest and least of the dtype unless given.

    PyTorch: torch.nan_to_num.
    """
    from frontend.tensor import as_tensor

    x = as_tensor(input)
    if not x.dtype.is_float:
        return x
    limits = np.finfo(x.dtype.numpy) if x.dtype.itemsize > 2 else np.finfo(np.float16)
    high = float(limits.max) if posinf is None else posinf
    low = float(limits.min) if neginf is None else neginf
    finite = call("where", call("isnan", x), nan, call("where", x == float("inf"), high, x))
    return call("where", x == -float("inf"), low, finite)


def isclose(input: Tensor, other: Operand, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """``|input - other| <= atol + rtol * |other|``; infinities are close to themselves.

    PyTorch: torch.isclose.
    """
    near = call("abs", call("sub", input, other)) <= atol + rtol * call("abs", other)
    found = call("or_", call("and_", near, call("isfinite", other)), call("eq", input, other))
    if equal_nan:
        found = call("or_", found, call("and_", call("isnan", input), call("isnan", other)))
    return found


def equal(input: Tensor, other: Tensor) -> Tensor:
    """Whether shapes and all elements are equal, a bool scalar.

    PyTorch: torch.equal. Differs: it gives a tensor.
    """
    from frontend.tensor import as_tensor

    a, b = as_tensor(input), as_tensor(other)
    return call("eq", a, b).all() if tuple(a.shape) == tuple(b.shape) else as_tensor(False)


def allclose(input: Tensor, other: Operand, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Whether all elements are close, a bool scalar.

    PyTorch: torch.allclose. Differs: it gives a tensor.
    """
    return isclose(input, other, rtol, atol, equal_nan).all()
