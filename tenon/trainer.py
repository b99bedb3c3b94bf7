"""Trainer: Keras's verbs over compiled programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from engine.dtypes import DType, f32
from engine.errors import TenonError
from frontend import random
from frontend.nn import Module
from frontend.optim import Optimizer
from tenon import metrics as metric_functions
from tenon.batches import Data, as_data, split
from tenon.callbacks import AnyCallback, Callback, EpochFunction, History
from tenon.compiling import compile
from tenon.executable import Executable
from tenon.modes import mode
from tenon.progress import Progress
from tenon.training import check_parts


class Trainer:
    """A model with what training it takes.

    ``loss(prediction, target)`` gives a scalar, the mean over the batch; ``metrics`` are names (``"accuracy"``,
    ``"mae"``, ``"mse"``) or functions of the same form. Each of fit, evaluate and predict runs one compiled program,
    whatever the size of a batch: for fit the forward pass, loss, metrics, gradients and the optimizer's update.
    """

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer | None = None,
        loss: Callable[..., Any] | None = None,
        metrics: Iterable[str | metric_functions.Metric] = (),
        *,
        level: int = 2,
        target: str = "cpu",
    ):
        check_parts("Trainer", model, optimizer, loss)
        self.model = model
        self.optimizer = optimizer
        self.loss = loss
        self.metrics = metric_functions.named((metrics,) if isinstance(metrics, str) else metrics)
        self.stop_training = False
        self._options: dict[str, Any] = {"level": level, "target": target}
        self._programs: dict[tuple, Executable] = {}

    # --- the verbs -----------------------------------------------------------------------------------------

    def fit(
        self,
        x: Any,
        y: Any,
        epochs: int = 1,
        batch_size: int = 32,
        validation_split: float = 0.0,
        validation_data: tuple[Any, Any] | None = None,
        shuffle: bool = True,
        verbose: int = 1,
        callbacks: Sequence[AnyCallback] = (),
    ) -> History:
        """Train for ``epochs`` passes over the data; returns the loss and metrics of each.

        ``validation_split`` keeps the last share of the samples for validation, ``validation_data`` gives others.
        Samples are shuffled before each epoch, by the generator that ``tn.seed`` seeds. ``verbose``: 0 prints
        nothing, 1 shows progress. A training epoch's numbers are means over its batches while the model changes.
        """
        if self.optimizer is None:
            raise TenonError("fit needs an optimizer: tn.Trainer(model, optimizer=optim.Adam(model.parameters()), ...)")
        _check_counts(epochs, batch_size)
        data = self._data(x, y, "fit")
        if validation_data is not None and validation_split:
            raise TenonError("fit takes validation_split or validation_data, not both")
        held_out = None
        if validation_data is not None:
            held_out = self._data(*_pair(validation_data), "validation_data")
        elif validation_split:
            data, held_out = split(data, validation_split)
        step = self.program("train", data)
        self.stop_training = False
        history = History()
        told = [history, *map(_as_callback, callbacks)]
        for callback in told:
            callback.trainer = self
            callback.on_train_begin()
        for epoch in range(epochs):
            for callback in told:
                callback.on_epoch_begin(epoch)
            order = random.default.generator.permutation(len(data)) if shuffle else None
            with Progress(f"epoch {epoch + 1}/{epochs}", len(data), enabled=bool(verbose)) as progress:
                means = _Means(self._names)
                for index, batch in enumerate(data.batches(batch_size, order)):
                    means.add(step(*batch), len(batch[0]))
                    progress.advance(len(batch[0]), means.logs)
                    for callback in told:
                        callback.on_batch_end(index, means.logs)
                logs = dict(means.logs)
                if held_out is not None:
                    found = self._evaluate(held_out, batch_size)
                    logs |= {f"val_{name}": value for name, value in found.items()}
                progress.finish(logs)
            for callback in told:
                callback.on_epoch_end(epoch, logs)
            if self.stop_training:
                break
        for callback in told:
            callback.on_train_end()
        return history

    def evaluate(self, x: Any, y: Any, batch_size: int = 32) -> dict[str, float]:
        """The loss and each metric over the data, in evaluation mode."""
        _check_counts(1, batch_size)
        return self._evaluate(self._data(x, y, "evaluate"), batch_size)

    def predict(self, x: Any, batch_size: int = 32) -> Any:
        """The model's outputs for every sample, in evaluation mode, nested as the model returns them."""
        _check_counts(1, batch_size)
        data = as_data(x, None, self._floating, "predict")
        run = self.program("predict", data)
        return run.join([run(*batch) for batch in data.batches(batch_size)])

    # --- programs ------------------------------------------------------------------------------------------

    def program(self, kind: str, data: Data) -> Executable:
        """The executable behind ``"train"``, ``"evaluate"`` or ``"predict"`` for such data; compiled at first use."""
        key = (kind, data.specs, self.optimizer, self.loss, tuple(self.metrics.items()))
        if key not in self._programs:
            with mode(self.model, training=kind == "train"):
                self._programs[key] = compile(self._function(kind), *data.specs, **self._options)
        return self._programs[key]

    @property
    def executables(self) -> list[Executable]:
        """Every program compiled so far."""
        return list(self._programs.values())

    def _function(self, kind: str) -> Callable[..., Any]:
        def predict(x: Any) -> Any:
            return self.model(x)

        def evaluate(x: Any, y: Any) -> tuple[Any, ...]:
            prediction = self.model(x)
            assert self.loss is not None
            loss = self.loss(prediction, y)
            return (loss, *(metric(prediction, y) for metric in self.metrics.values()))

        def train(x: Any, y: Any) -> tuple[Any, ...]:
            results = evaluate(x, y)
            assert self.optimizer is not None
            self.optimizer.minimize(results[0])
            return results

        functions: dict[str, Callable[..., Any]] = {"train": train, "evaluate": evaluate, "predict": predict}
        return functions[kind]

    def _evaluate(self, data: Data, batch_size: int) -> dict[str, float]:
        run = self.program("evaluate", data)
        means = _Means(self._names)
        for batch in data.batches(batch_size):
            means.add(run(*batch), len(batch[0]))
        return dict(means.logs)

    @property
    def _names(self) -> tuple[str, ...]:
        return ("loss", *self.metrics)

    @property
    def _floating(self) -> DType:
        """The dtype of the model's parameters, which floating point data is given."""
        return next((p.dtype for p in self.model.parameters() if p.dtype.is_float), f32)

    def _data(self, x: Any, y: Any, what: str) -> Data:
        if self.loss is None:
            raise TenonError(f"{what} needs a loss: tn.Trainer(model, loss=nn.CrossEntropyLoss(), ...)")
        if y is None:
            raise TenonError(f"{what} needs the targets y")
        return as_data(x, y, self._floating, what)


class _Means:
    """Means over samples of what a program returns for each batch."""

    def __init__(self, names: Sequence[str]):
        self.names = names
        self.totals = np.zeros(len(names))
        self.count = 0

    def add(self, values: Sequence[np.ndarray], count: int) -> None:
        self.totals += count * np.array([float(v) for v in values])
        self.count += count

    @property
    def logs(self) -> dict[str, float]:
        return dict(zip(self.names, (self.totals / max(self.count, 1)).tolist(), strict=True))


def _as_callback(given: AnyCallback) -> Callback:
    if isinstance(given, Callback):
        return given
    if callable(given):
        return EpochFunction(given)
    raise TenonError(f"a callback is a tn.Callback or a function of (epoch, logs), not {given!r:.60}")


def _check_counts(epochs: int, batch_size: int) -> None:
    if not isinstance(epochs, int) or epochs < 1:
        raise TenonError(f"epochs is {epochs!r}; a whole number of at least 1 was expected")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise TenonError(f"batch_size is {batch_size!r}; a whole number of at least 1 was expected")


def _pair(given: Any) -> tuple[Any, Any]:
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise TenonError(f"validation_data is a pair (x, y), not {type(given).__name__}")
    return given[0], given[1]
