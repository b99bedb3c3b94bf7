"""Dropout: elements set to zero by chance while training."""

from __future__ import annotations

from engine import dtypes
from engine.errors import TenonError
from frontend import drawing
from frontend.tensor import Tensor, as_tensor

__all__ = ["dropout"]


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Each element zero with probability ``p``, the others divided by 1 - p; nothing when not training.

    The draws depend on the seed, the call and the element's index alone: they are the same at every optimisation
    level and thread count. ``inplace`` changes nothing.
    """
    if not 0 <= p <= 1:
        raise TenonError(f"dropout: p must lie between 0 and 1, not {p}")
    x = as_tensor(input)
    if not training or p == 0:
        return x
    if p == 1:
        return x * 0
    drawn = dtypes.f64 if x.dtype == dtypes.f64 else dtypes.f32
    kept = drawing.rand(x.shape, dtype=drawn) >= p
    return x * (kept.to(x.dtype) * (1 / (1 - p)))
