"""Linear and bilinear layers as functions."""

from __future__ import annotations

from engine.errors import ShapeError
from frontend import shaping
from frontend.dispatch import call
from frontend.einsum import einsum
from frontend.tensor import Tensor, as_tensor

__all__ = ["bilinear", "linear"]


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``: (..., in) with a weight of shape (out, in) gives (..., out); a weight of shape (in,)
    gives (...).

    PyTorch: torch.nn.functional.linear.
    """
    out = shaping.matmul(input, as_tensor(weight).T)
    return out if bias is None else call("add", out, bias)


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input1 @ weight[o] @ input2 + bias[o]`` for each output o: (..., in1) and (..., in2) with a weight of shape
    (out, in1, in2) give (..., out).

    PyTorch: torch.nn.functional.bilinear.
    """
    a, b, w = as_tensor(input1), as_tensor(input2), as_tensor(weight)
    if w.ndim != 3:
        raise ShapeError(f"bilinear: the weight has 3 axes (out, in1, in2), not shape {tuple(w.shape)}")
    out = einsum("...i,oij,...j->...o", a, w, b)
    return out if bias is None else call("add", out, bias)
