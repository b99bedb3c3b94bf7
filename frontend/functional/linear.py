"""Linear layers as functions."""

from __future__ import annotations

from frontend import shaping
from frontend.tensor import Tensor, as_tensor

__all__ = ["linear"]


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``: (..., in) with a weight of shape (out, in) gives (..., out)."""
    out = shaping.matmul(input, as_tensor(weight).T)
    return out if bias is None else out + bias
