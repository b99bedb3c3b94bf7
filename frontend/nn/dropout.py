"""Dropout as modules."""

from __future__ import annotations

from engine.errors import TenonError
from frontend import functional as F
from frontend.nn.module import Module
from frontend.tensor import Tensor

__all__ = ["Dropout"]


class Dropout(Module):
    """While training each element is zero with probability ``p`` and the others are divided by 1 - p."""

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        if not 0 <= p <= 1:
            raise TenonError(f"Dropout: p must lie between 0 and 1, not {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"
