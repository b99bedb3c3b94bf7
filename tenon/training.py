"""What every way to train takes: a model, an optimizer and a loss, checked where they are given."""

from __future__ import annotations

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
