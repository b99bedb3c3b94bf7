"""Layers that tell a sequence its positions."""

from __future__ import annotations

from engine.errors import ShapeError
from frontend import functional as F
from frontend.nn import init
from frontend.nn.init_parameters import new_parameter
from frontend.nn.module import Module
from frontend.tensor import Tensor

__all__ = ["LearnedPositionalEmbedding", "SinusoidalPositionalEncoding"]


class SinusoidalPositionalEncoding(Module):
    """``x`` and the waves of its positions, then dropout: (N, L, d_model), or (L, N, d_model) without ``batch_first``.

    See :func:`F.sinusoidal_positions`; any length will do.
    """

    def __init__(self, d_model: int, dropout: float = 0.0, batch_first: bool = True):
        super().__init__()
        self.d_model, self.p, self.batch_first = d_model, dropout, batch_first

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[-2] if self.batch_first else x.shape[0]
        waves = F.sinusoidal_positions(length, self.d_model).to(x.dtype)
        waves = waves if self.batch_first or x.ndim == 2 else waves.unsqueeze(1)
        return F.dropout(x + waves, self.p, self.training)

    def extra_repr(self) -> str:
        return f"d_model={self.d_model}, dropout={self.p}, batch_first={self.batch_first}"


class LearnedPositionalEmbedding(Module):
    """``x`` (N, L, d_model) or (L, d_model) and a learned row for each position. Raises ShapeError for more than
    ``max_len`` positions where their number is known; else the call fails."""

    def __init__(self, max_len: int, d_model: int, dtype: object = None):
        super().__init__()
        self.max_len, self.d_model = max_len, d_model
        self.weight = new_parameter((max_len, d_model), dtype)
        init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[-2]
        if isinstance(length, int) and length > self.max_len:
            raise ShapeError(f"LearnedPositionalEmbedding has {self.max_len} positions, and the input {length}")
        return x + self.weight[:length]

    def extra_repr(self) -> str:
        return f"max_len={self.max_len}, d_model={self.d_model}"
