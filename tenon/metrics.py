"""Metrics: what programs count in each batch, and the numbers that follow from all counts together.

A metric is a function of a batch's predictions and targets (the mean over the batch, a scalar), or a :class:`Metric`
that counts: precision over an epoch, say, is no mean of the batches' precisions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from engine.dims import shape_text
from engine.dtypes import f32, f64
from engine.errors import ShapeError, TenonError
from frontend import functional as F
from frontend import ordering, shaping
from frontend.sizes import plain_shape
from frontend.tensor import Tensor, as_tensor

Function = Callable[[Tensor, Tensor], Tensor]
"""``metric(prediction, target)``: the mean over the batch, a scalar."""


class Metric:
    """``counts(prediction, target)`` is traced: a vector that adds up over batches. ``result(totals)`` makes a number
    of the sums over all batches."""

    name: str

    def counts(self, prediction: Tensor, target: Tensor) -> Tensor:
        raise NotImplementedError

    def result(self, totals: np.ndarray) -> float:
        raise NotImplementedError


class Mean(Metric):
    """The mean over samples of a function that gives the mean over a batch."""

    def __init__(self, function: Function, name: str | None = None):
        self.name = name or str(getattr(function, "__name__", type(function).__name__))
        self.function = function

    def counts(self, prediction: Tensor, target: Tensor) -> Tensor:
        size = as_tensor(prediction.shape[0], f64) if isinstance(prediction.shape[0], int) else _size(prediction)
        return shaping.stack([self.function(prediction, target).double() * size, size])

    def result(self, totals: np.ndarray) -> float:
        return float(totals[0] / totals[1]) if totals[1] else float("nan")


def _size(prediction: Tensor) -> Tensor:
    return as_tensor(prediction.shape[0]).double()


# --- functions -----------------------------------------------------------------------------------------------------


def _classes(prediction: Tensor, target: Tensor, name: str) -> Tensor:
    """Target classes, which may be given as rows whose highest entry marks the class."""
    if prediction.ndim < 2:
        shape = shape_text(plain_shape(prediction.shape))
        raise ShapeError(f"{name} needs scores by class in axis 1, not predictions of shape {shape}")
    return target if target.ndim == prediction.ndim - 1 else target.argmax(1)


def accuracy(prediction: Tensor, target: Tensor) -> Tensor:
    """The share of rows whose highest score (axis 1) is at the target class.

    ``target`` holds classes, or rows of the same shape as ``prediction`` whose highest entry marks the class.
    """
    return (prediction.argmax(1) == _classes(prediction, target, "accuracy")).to(f32).mean()


def mean_absolute_error(prediction: Tensor, target: Tensor) -> Tensor:
    """``mean(|prediction - target|)``."""
    return (prediction - target).abs().mean()


def mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """``mean((prediction - target)**2)``."""
    return (prediction - target).square().mean()


# --- metrics that count ----------------------------------------------------------------------------------------------


class TopK(Metric):
    """The share of rows whose target class is among the ``k`` highest scores (axis 1)."""

    def __init__(self, k: int = 5, name: str | None = None):
        if k < 1:
            raise TenonError(f"TopK: k must be at least 1, not {k}")
        self.k = k
        self.name = name or f"top{k}"

    def counts(self, prediction: Tensor, target: Tensor) -> Tensor:
        classes = _classes(prediction, target, self.name)
        best = ordering.topk(prediction, self.k, 1).indices
        hits = (best == classes.unsqueeze(1)).any(1).double()
        return shaping.stack([hits.sum(), (hits + 1).sum() - hits.sum()])

    def result(self, totals: np.ndarray) -> float:
        return float(totals[0] / totals[1]) if totals[1] else float("nan")


class BinaryAccuracy(Metric):
    """The share of predictions on the same side of ``threshold`` as their targets of 0 and 1."""

    def __init__(self, threshold: float = 0.5, name: str = "binary_accuracy"):
        self.threshold = threshold
        self.name = name

    def counts(self, prediction: Tensor, target: Tensor) -> Tensor:
        right = ((prediction > self.threshold) == (_like(target, prediction) > 0.5)).double()
        return shaping.stack([right.sum(), (right + 1).sum() - right.sum()])

    def result(self, totals: np.ndarray) -> float:
        return float(totals[0] / totals[1]) if totals[1] else float("nan")


def _like(target: Tensor, prediction: Tensor) -> Tensor:
    """Targets (N) beside predictions (N, 1) and the other way round."""
    return target.reshape(prediction.shape) if target.ndim != prediction.ndim else target


class _Confusion(Metric):
    """True positives, false positives and false negatives: of predictions above ``threshold``, or of ``class_id`` where
    predictions are scores by class (axis 1)."""

    def __init__(self, threshold: float = 0.5, class_id: int | None = None, name: str | None = None):
        self.threshold = threshold
        self.class_id = class_id
        self.name = name or type(self).__name__.lower()

    def counts(self, prediction: Tensor, target: Tensor) -> Tensor:
        if self.class_id is None:
            if prediction.ndim > 1 and prediction.shape[1] != 1 and target.ndim < prediction.ndim:
                raise ShapeError(f"{self.name} of scores by class needs class_id: which class counts as positive")
            found, true = prediction > self.threshold, _like(target, prediction) > 0.5
        else:
            found = prediction.argmax(1) == self.class_id
            true = _classes(prediction, target, self.name) == self.class_id
        both = (found & true).double().sum()
        return shaping.stack([both, found.double().sum() - both, true.double().sum() - both])

    @staticmethod
    def _share(part: float, whole: float) -> float:
        return float(part / whole) if whole else 0.0


class Precision(_Confusion):
    """True positives of all that were found; 0 where nothing was."""

    def result(self, totals: np.ndarray) -> float:
        return self._share(totals[0], totals[0] + totals[1])


class Recall(_Confusion):
    """True positives of all that were there; 0 where none was."""

    def result(self, totals: np.ndarray) -> float:
        return self._share(totals[0], totals[0] + totals[2])


class F1(_Confusion):
    """The harmonic mean of precision and recall."""

    def result(self, totals: np.ndarray) -> float:
        return self._share(2 * totals[0], 2 * totals[0] + totals[1] + totals[2])


class AUC(Metric):
    """The area under the curve of true over false positive rates, by trapezoids between ``num_thresholds`` thresholds
    that are evenly spaced in [0, 1], as in Keras. Predictions are probabilities of targets 0 and 1."""

    def __init__(self, num_thresholds: int = 200, name: str = "auc"):
        if num_thresholds < 3:
            raise TenonError(f"AUC: at least 3 thresholds were expected, not {num_thresholds}")
        inner = np.arange(1, num_thresholds - 1) / (num_thresholds - 1)
        self.thresholds = np.array([-1e-7, *inner, 1 + 1e-7], np.float32)
        self.name = name

    def counts(self, prediction: Tensor, target: Tensor) -> Tensor:
        true = (_like(target, prediction).reshape(-1) > 0.5).unsqueeze(1)
        found = prediction.reshape(-1).unsqueeze(1) > as_tensor(self.thresholds)
        positives = (found & true).double().sum(0)
        return shaping.concat([positives, found.double().sum(0) - positives])

    def result(self, totals: np.ndarray) -> float:
        true, false = np.split(totals, 2)
        if not true[0] or not false[0]:  # every threshold counts them at the first
            return float("nan")
        x, y = false / false[0], true / true[0]
        return float(np.sum((x[:-1] - x[1:]) * (y[:-1] + y[1:]) / 2))


class Perplexity(Metric):
    """exp of the mean cross-entropy of logits (N, C, ...) and classes; those of ``ignore_index`` do not count."""

    def __init__(self, ignore_index: int = -100, name: str = "perplexity"):
        self.ignore_index = ignore_index
        self.name = name

    def counts(self, prediction: Tensor, target: Tensor) -> Tensor:
        total = F.cross_entropy(prediction, target, ignore_index=self.ignore_index, reduction="sum")
        return shaping.stack([total.double(), (target != self.ignore_index).double().sum()])

    def result(self, totals: np.ndarray) -> float:
        return float(np.exp(totals[0] / totals[1])) if totals[1] else float("nan")


_NAMED: dict[str, Callable[[], Metric]] = {
    "accuracy": lambda: Mean(accuracy),
    "binary_accuracy": BinaryAccuracy,
    "top5": TopK,
    "precision": Precision,
    "recall": Recall,
    "f1": F1,
    "auc": AUC,
    "perplexity": Perplexity,
    "mae": lambda: Mean(mean_absolute_error, "mae"),
    "mse": lambda: Mean(mean_squared_error, "mse"),
}


def named(metrics: Iterable[str | Metric | Function]) -> dict[str, Metric]:
    """Metrics by the names under which they are reported. Raises TenonError for what is neither name nor function."""
    found: dict[str, Metric] = {}
    for given in metrics:
        metric: Any = given
        if isinstance(given, str):
            if given not in _NAMED:
                raise TenonError(f"there is no metric {given!r}; expected one of {', '.join(_NAMED)}, or a function")
            metric = _NAMED[given]()
        elif not isinstance(given, Metric):
            if not callable(given):
                raise TenonError(f"a metric is a name or a function of (prediction, target), not {given!r:.60}")
            metric = Mean(given)
        if metric.name in found or metric.name == "loss":
            raise TenonError(f"two metrics are called {metric.name!r}")
        found[metric.name] = metric
    return found
