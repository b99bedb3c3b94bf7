"""Activation functions with parameters, and softmax: PyTorch's names, arguments and meanings."""

from __future__ import annotations

from frontend.dispatch import call
from frontend.tensor import Operand, Tensor, as_tensor

__all__ = ["relu", "softmax", "log_softmax"]


def relu(input: Operand, inplace: bool = False) -> Tensor:
    """max(x, 0); NaN stays. ``inplace`` changes nothing: the compiler reuses memory by itself."""
    return call("relu", input)


def softmax(input: Tensor, dim: int, dtype: object = None) -> Tensor:
    """exp(x) / sum of exp(x) along ``dim``."""
    x = as_tensor(input, dtype)
    return x.softmax(dim)


def log_softmax(input: Tensor, dim: int, dtype: object = None) -> Tensor:
    """x - log of the sum of exp(x) along ``dim``."""
    x = as_tensor(input, dtype)
    return x.log_softmax(dim)
