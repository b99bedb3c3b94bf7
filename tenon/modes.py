"""Tracing a module in training or in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from frontend.nn import Module


@contextmanager
def mode(model: Module, training: bool) -> Iterator[None]:
    """Put ``model`` in training or evaluation mode; afterwards each module in it has its own mode back."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, was_training in before:
            module.training = was_training
