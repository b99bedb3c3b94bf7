"""Losses as modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.ops.losses import check_reduction
from frontend import functional as F
from frontend.nn.module import Module
from frontend.tensor import Tensor

__all__ = ["CrossEntropyLoss", "L1Loss", "MSELoss", "NLLLoss"]


class _Loss(Module):
    function: Callable[..., Any]

    def __init__(self, reduction: str = "mean"):
        super().__init__()
        check_reduction(reduction, type(self).__name__)
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return type(self).function(input, target, self.reduction)


class CrossEntropyLoss(_Loss):
    """-log softmax(logits)[class]."""

    function = staticmethod(F.cross_entropy)


class NLLLoss(_Loss):
    """-log_probabilities[class]."""

    function = staticmethod(F.nll_loss)


class MSELoss(_Loss):
    """The squared difference."""

    function = staticmethod(F.mse_loss)


class L1Loss(_Loss):
    """The absolute difference."""

    function = staticmethod(F.l1_loss)
