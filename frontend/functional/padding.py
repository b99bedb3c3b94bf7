"""Padding."""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import ShapeError, TenonError
from frontend.dispatch import call
from frontend.tensor import Tensor, as_tensor

__all__ = ["pad"]


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """``input`` with ``value`` (0) around it. ``pad`` counts from the last axis: (left, right, top, bottom, ...);
    a negative number crops."""
    x = as_tensor(input)
    if mode != "constant":
        raise TenonError(f"pad: the mode must be 'constant', not {mode!r}")
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ShapeError(f"pad: two numbers an axis are needed for at most {x.ndim} axes, not {tuple(pad)}")
    low, high = [0] * x.ndim, [0] * x.ndim
    for i in range(len(pad) // 2):
        low[-1 - i], high[-1 - i] = pad[2 * i], pad[2 * i + 1]
    if any(n < 0 for n in (*low, *high)):
        x = x[tuple(slice(max(0, -a), size - max(0, -b)) for a, b, size in zip(low, high, x.shape, strict=True))]
    grown = {"low": tuple(max(0, n) for n in low), "high": tuple(max(0, n) for n in high)}
    return call("pad", x, **grown, step=(1,) * x.ndim, value=0 if value is None else value)
