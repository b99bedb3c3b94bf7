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
    """
    from frontend.tensor import as_tensor

    if min is None and max is None:
        raise TypeError("clamp() needs min, max or both")
    low = as_tensor(input) if min is None else _within("lt", input, min)
    return low if max is None else _within("gt", low, max)


def _within(beyond: str, x: Tensor | np.ndarray, bound: Operand) -> Tensor:
    """``x``, or ``bound`` where ``x`` lies beyond it or ``bound`` is NaN."""
    outside = call(beyond, x, bound)
    if is_tensor(bound):
        outside = call("or_", outside, call("ne", bound, bound))
    return call("where", outside, bound, x)
