"""Modules that rearrange their input."""

from __future__ import annotations

from collections.abc import Sequence

from frontend import functional as F
from frontend import shaping
from frontend.nn.module import Module
from frontend.sizes import SizeLike
from frontend.tensor import Tensor

__all__ = ["Flatten", "Unflatten"]


class Flatten(Module):
    """The axes ``start_dim`` to ``end_dim`` as one; the first, the batch, stays by default.

    PyTorch: torch.nn.Flatten.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        return F.flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Axis ``dim`` split into axes of the sizes ``unflattened_size``, one of which may be -1.

    PyTorch: torch.nn.Unflatten.
    """

    def __init__(self, dim: int, unflattened_size: Sequence[SizeLike]):
        super().__init__()
        self.dim = dim
        self.unflattened_size = tuple(unflattened_size)

    def forward(self, input: Tensor) -> Tensor:
        return shaping.unflatten(input, self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
