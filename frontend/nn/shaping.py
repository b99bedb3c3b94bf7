"""Modules that rearrange their input."""

from __future__ import annotations

from frontend import functional as F
from frontend.nn.module import Module
from frontend.tensor import Tensor

__all__ = ["Flatten"]


class Flatten(Module):
    """The axes ``start_dim`` to ``end_dim`` as one; the first, the batch, stays by default."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        return F.flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
