"""When two arrays of the same computation differ: by more than rounding explains.

How much that is, the computation itself tells: it is run once more on inputs that are moved by one unit in the last
place, and what moves by that may well be rounded otherwise. So a sum that cancels has the tolerance of its terms. Of a
sum that cancels wholly rounding is left alone, and its square (a second moment) is smaller than any of these: below a
sixteenth of epsilon squared nothing counts.

Where a program computes in 16 bits on the way, each of its float32 results is as uncertain as 16 bits are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from engine import dtypes
from engine.dtypes import DType
from engine.records import dataclass

TOLERANCE = {dtypes.f64: 1e-11, dtypes.f32: 2e-5, dtypes.f16: 4e-3, dtypes.bf16: 3e-2}
"""Of a number relative to its magnitude, and an eighth of that relative to the greatest of its array."""

EPSILON = {dtypes.f64: 2.0**-52, dtypes.f32: 2.0**-23}
"""One unit in the last place. 16-bit floats are left alone: kernels compute with more."""

MOVES = 32
"""How many times what one unit in the last place of the inputs changes is still rounding."""


UNIT = {dtypes.f16: 2.0**-11, dtypes.bf16: 2.0**-8}
"""By how much 16-bit floats round at most, relative to a number."""

FEW_MOVES = 8
"""As MOVES, where inputs are moved by the unit of a 16-bit float."""

_narrow: ContextVar[DType | None] = ContextVar("narrow", default=None)


@contextmanager
def computing_in(dtype: DType) -> Iterator[None]:
    """Inside, what is compared is computed in ``dtype``, if that is one of 16 bits."""
    token = _narrow.set(dtype if dtype in UNIT else None)
    try:
        yield
    finally:
        _narrow.reset(token)


@dataclass(frozen=True)
class Worst:
    """The element that is furthest from what it should be, for what is ``allowed`` there."""

    position: tuple[int, ...]
    got: float
    expected: float
    allowed: float
    ulps: float
    count: int
    dtype: DType

    @property
    def error(self) -> float:
        """Relative to what was expected."""
        return abs(self.got - self.expected) / abs(self.expected) if self.expected else math.inf

    def __str__(self) -> str:
        at = f"[{', '.join(map(str, self.position))}]"
        text = f"{at} is {self.got:.9g}, expected {self.expected:.9g}"
        if self.dtype.is_float and math.isfinite(self.got) and math.isfinite(self.expected):
            text += f" (error {abs(self.got - self.expected):.3g}, {self.ulps:.3g} ulp; {self.allowed:.3g} allowed)"
        return f"{text}; {self.count} in all"


def worst(got: np.ndarray, expected: np.ndarray, moved: np.ndarray | None = None) -> Worst | None:
    """The worst of the elements that differ by more than is allowed, or None. ``moved`` is what is expected of inputs
    that are moved a little; integers and bools that change with that may be anything."""
    dtype = dtypes.as_dtype(expected.dtype)
    if got.shape != expected.shape or got.dtype != expected.dtype:
        raise AssertionError(f"{got.dtype}{got.shape} against {expected.dtype}{expected.shape}")
    if not dtype.is_float:
        wrong = got != expected
        if moved is not None:
            wrong &= moved == expected
        if not wrong.any():
            return None
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        return Worst(at, float(got[at]), float(expected[at]), 0.0, 0.0, int(wrong.sum()), dtype)
    with np.errstate(all="ignore"):
        a, b = got.astype(np.float64), expected.astype(np.float64)
        finite = np.isfinite(b)
        scale = np.abs(b[finite]).max(initial=0.0)
        narrow = _narrow.get()
        allowed = TOLERANCE[narrow or dtype] * (np.abs(b) + scale / 8) + EPSILON.get(dtype, 0.0) ** 2 / 16
        if moved is not None:
            shift = np.abs(moved.astype(np.float64) - b)
            allowed = allowed + (FEW_MOVES if narrow else MOVES) * shift[np.isfinite(shift)].max(initial=0.0)
        error = np.abs(a - b)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        excess = np.where(same, 0.0, np.where(np.isfinite(error), error / np.maximum(allowed, 1e-300), np.inf))
        wrong = excess > 1
        if not wrong.any():
            return None
        at = tuple(int(i) for i in np.unravel_index(np.argmax(excess), excess.shape))
        ulp = float(np.spacing(np.abs(expected[at].astype(np.float32 if dtype.itemsize < 8 else np.float64))))
        ulp *= 2 ** {"f16": 13, "bf16": 16}.get(dtype.name, 0)
    return Worst(at, float(a[at]), float(b[at]), float(allowed[at]), float(error[at]) / ulp, int(wrong.sum()), dtype)


def moved(arrays: Mapping[str, np.ndarray], seed: int = 0) -> dict[str, np.ndarray]:
    """``arrays`` with every float of 32 or 64 bits one unit in the last place up or down, or one of the 16-bit floats
    that are computed in."""
    narrow = _narrow.get()
    random = np.random.default_rng(seed)
    found = {}
    for name, array in arrays.items():
        eps = EPSILON.get(dtypes.as_dtype(array.dtype))
        if eps is None:
            found[name] = array
            continue
        if narrow is not None:
            eps = UNIT[narrow]
        sign = random.integers(0, 2, array.shape) * 2 - 1
        with np.errstate(all="ignore"):
            found[name] = array * (1 + eps * sign).astype(array.dtype)
    return found
