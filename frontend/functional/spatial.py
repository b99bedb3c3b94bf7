"""What functions on signals, images and volumes share: the axis of examples, and one number for each axis of space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.dims import shape_text
from engine.errors import ShapeError
from frontend.dispatch import call
from frontend.sizes import plain_shape
from frontend.tensor import Tensor, as_tensor

Numbers = int | Sequence[int]
"""An integer for all axes, or one for each."""

AXES = {1: "L", 2: "H, W", 3: "D, H, W"}

_A = -0.75
TAPS = {
    "linear": (np.array([0.0, 1.0]), np.array([[-1.0, 1.0], [1.0, 0.0]])),
    "cubic": (
        np.array([-1.0, 0.0, 1.0, 2.0]),
        np.array([[_A, _A + 2, -_A - 2, -_A], [-2 * _A, -_A - 3, 2 * _A + 3, _A], [_A, 0, -_A, 0], [0, 1, 0, 0]]),
    ),
}
"""Interpolation between elements: which ones from the last before the place on, and for each the coefficients, highest
power first, of the polynomial in the rest of the way that is its weight. The cubic one: Keys (1981)."""


def batched(op: str, x: Tensor, rank: int) -> tuple[Tensor, bool]:
    """``x`` as (N, C, ...) with ``rank`` axes of space, and whether it came without N. Raises ShapeError."""
    x = as_tensor(x)
    if x.ndim not in (rank + 1, rank + 2):
        taken = f"(N, C, {AXES[rank]}) or (C, {AXES[rank]})"
        raise ShapeError(f"{op} takes {taken}, not shape {shape_text(plain_shape(x.shape))}")
    return (x.unsqueeze(0), True) if x.ndim == rank + 1 else (x, False)


def numbers(value: Numbers, rank: int, what: str) -> tuple[int, ...]:
    """``value`` for each of ``rank`` axes: an integer stands for all. Raises ShapeError that names the argument."""
    given = (value,) if isinstance(value, int) else tuple(value)
    each = given * rank if len(given) == 1 else given
    if len(each) != rank or not all(isinstance(v, int) for v in each):
        wanted = "an integer" if rank == 1 else f"an integer or {rank} of them"
        raise ShapeError(f"{what} must be {wanted}, not {value!r}")
    return each


def padded(x: Tensor, low: Sequence[int], high: Sequence[int], value: float = 0) -> Tensor:
    """``x`` with ``value`` before and after its last axes, as many as ``low`` and ``high`` have numbers."""
    if not any((*low, *high)):
        return x
    none = (0,) * (x.ndim - len(low))
    return call("pad", x, low=(*none, *low), high=(*none, *high), step=(1,) * x.ndim, value=value)
