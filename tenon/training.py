"""What every way to train takes: a model, an optimizer and a loss, checked where they are given."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from engine.errors import TenonError
from frontend.nn import Module
from frontend.optim import Optimizer


def check_parts(who: str, model: object, optimizer: object, loss: object) -> None:
    """Raise TenonError, naming ``who`` was given it, for what is no model, optimizer or loss. None passes for the last
    two."""
    if not isinstance(model, Module):
        raise TenonError(f"{who} takes a Module, not {type(model).__name__} {model!r:.60}")
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise TenonError(
            f"{who} was given the optimizer {optimizer!r:.60}; one with parameters was expected, such as "
            "optim.Adam(model.parameters())"
        )
    if loss is not None and (not callable(loss) or isinstance(loss, type)):
        raise TenonError(
            f"{who} was given the loss {loss!r:.60}; a function of prediction and target was expected, such as "
            "nn.CrossEntropyLoss() or F.cross_entropy"
        )


def weighted_loss(loss: Callable[..., Any], prediction: Any, target: Any, weights: Any) -> Any:
    """The mean over the batch of each sample's loss times its weight (``weights``: one number a sample), as Keras has
    it. Raises TenonError for a loss that cannot tell samples apart."""
    if hasattr(loss, "reduction"):
        kept, loss.reduction = loss.reduction, "none"
        try:
            each = loss(prediction, target)
        finally:
            loss.reduction = kept
    elif "reduction" in inspect.signature(loss).parameters:
        each = loss(prediction, target, reduction="none")
    else:
        raise TenonError(
            "weights need each sample's loss: a loss module such as nn.CrossEntropyLoss(), or a function that takes "
            'reduction="none"'
        )
    if each.ndim == 0:
        raise TenonError('the loss gave one number with reduction="none"; one a sample was expected')
    per_sample = each.mean(tuple(range(1, each.ndim))) if each.ndim > 1 else each
    return (per_sample * weights).mean()
