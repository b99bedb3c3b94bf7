"""Dropout as modules: it acts while they are in training mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.errors import TenonError
from frontend import functional as F
from frontend.nn.module import Module
from frontend.tensor import Tensor

__all__ = ["AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"]


class _Dropout(Module):
    function: Callable[..., Any]

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        if not 0 <= p <= 1:
            raise TenonError(f"{type(self).__name__}: p must lie between 0 and 1, not {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return type(self).function(input, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """While training each element is zero with probability ``p`` and the others are divided by 1 - p.

    PyTorch: torch.nn.Dropout.
    """

    function = staticmethod(F.dropout)


class Dropout1d(_Dropout):
    """Dropout of whole channels of (N, C, L).

    PyTorch: torch.nn.Dropout1d.
    """

    function = staticmethod(F.dropout1d)


class Dropout2d(_Dropout):
    """Dropout of whole channels of (N, C, H, W).

    PyTorch: torch.nn.Dropout2d.
    """

    function = staticmethod(F.dropout2d)


class Dropout3d(_Dropout):
    """Dropout of whole channels of (N, C, D, H, W).

    PyTorch: torch.nn.Dropout3d.
    """

    function = staticmethod(F.dropout3d)


class AlphaDropout(_Dropout):
    """Dropout that keeps mean and variance of what SELU gives.

    PyTorch: torch.nn.AlphaDropout.
    """

    function = staticmethod(F.alpha_dropout)


class FeatureAlphaDropout(_Dropout):
    """AlphaDropout of whole channels.

    PyTorch: torch.nn.FeatureAlphaDropout.
    """

    function = staticmethod(F.feature_alpha_dropout)
