"""Metrics: functions of a batch's predictions and targets, traced into the programs that the Trainer runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from engine.dims import shape_text
from engine.dtypes import f32
from engine.errors import ShapeError, TenonError
from frontend.tensor import Tensor

Metric = Callable[[Tensor, Tensor], Tensor]
"""``metric(prediction, target)``: the mean over the batch, a scalar."""


def accuracy(prediction: Tensor, target: Tensor) -> Tensor:
    """The share of rows whose highest score (axis 1) is at the target class.

    ``target`` holds classes, or rows of the same shape as ``prediction`` whose highest entry marks the class.
    """
    if prediction.ndim < 2:
        raise ShapeError(
            f"accuracy needs scores by class in axis 1, not predictions of shape {shape_text(tuple(prediction.shape))}"
        )
    classes = target if target.ndim == prediction.ndim - 1 else target.argmax(1)
    return (prediction.argmax(1) == classes).to(f32).mean()


def mean_absolute_error(prediction: Tensor, target: Tensor) -> Tensor:
    """``mean(|prediction - target|)``."""
    return (prediction - target).abs().mean()


def mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """``mean((prediction - target)**2)``."""
    return (prediction - target).square().mean()


_NAMED: dict[str, Metric] = {
    "accuracy": accuracy,
    "mae": mean_absolute_error,
    "mse": mean_squared_error,
}


def named(metrics: Iterable[str | Metric]) -> dict[str, Metric]:
    """Metrics by the names under which they are reported. Raises TenonError for what is neither name nor function."""
    found: dict[str, Metric] = {}
    for metric in metrics:
        if isinstance(metric, str):
            if metric not in _NAMED:
                raise TenonError(f"there is no metric {metric!r}; expected one of {', '.join(_NAMED)}, or a function")
            name, function = metric, _NAMED[metric]
        elif callable(metric):
            name, function = getattr(metric, "__name__", type(metric).__name__), metric
        else:
            raise TenonError(f"a metric is a name or a function of (prediction, target), not {metric!r:.60}")
        if name in found or name == "loss":
            raise TenonError(f"two metrics are called {name!r}")
        found[name] = function
    return found
