"""What ``Trainer.fit`` tells while it runs, and callbacks that stop, save, slow down and take notes."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from engine.errors import TenonError
from tenon.event_file import EventFile

if TYPE_CHECKING:
    from tenon.trainer import Trainer

Logs = Mapping[str, float]


class Callback:
    """Told of each step of :meth:`Trainer.fit`; override what matters. ``trainer`` is set before training begins.

    ``logs`` holds means so far: the loss and each metric, at the end of an epoch those on validation data
    (``val_loss`` ...) too. Setting ``trainer.stop_training = True`` ends training after the epoch.
    """

    trainer: Trainer

    def on_train_begin(self) -> None: ...

    def on_epoch_begin(self, epoch: int) -> None: ...

    def on_batch_end(self, batch: int, logs: Logs) -> None: ...

    def on_epoch_end(self, epoch: int, logs: Logs) -> None: ...

    def on_train_end(self) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of this callback: numbers, texts, lists and dicts of them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""


class LambdaCallback(Callback):
    """Functions in place of methods: ``LambdaCallback(on_epoch_end=lambda epoch, logs: ...)``."""

    def __init__(self, **functions: Callable[..., object]):
        for name, function in functions.items():
            if not name.startswith("on_") or not hasattr(Callback, name):
                raise TenonError(f"a callback has no method {name!r}")
            setattr(self, name, function)


class EpochFunction(Callback):
    """A plain function ``f(epoch, logs)``, called at the end of each epoch."""

    def __init__(self, function: Callable[[int, Logs], object]):
        self.function = function

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        self.function(epoch, logs)


AnyCallback = Callback | Callable[[int, Logs], object]


class History(Callback):
    """``history.history["val_loss"][i]`` is the value at the end of epoch ``history.epoch[i]``; ``interrupted`` says
    that Ctrl-C ended training."""

    def __init__(self) -> None:
        self.epoch: list[int] = []
        self.history: dict[str, list[float]] = {}
        self.interrupted = False

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "history": self.history}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch = list(state["epoch"])
        self.history = {name: list(values) for name, values in state["history"].items()}

    def plot(self, path: str | Path | None = None) -> Any:
        """A matplotlib figure with a panel for the loss and each metric, training and validation in each; written to
        ``path`` where one is given. Raises TenonError without matplotlib."""
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise TenonError("History.plot needs matplotlib: pip install matplotlib") from None
        names = [name for name in self.history if not name.startswith("val_")]
        figure = Figure(figsize=(4.5 * max(1, len(names)), 3.4), layout="constrained")
        for axes, name in zip(np.atleast_1d(figure.subplots(1, max(1, len(names)))), names, strict=False):
            for label in (name, f"val_{name}"):
                if label in self.history:
                    values = self.history[label]
                    axes.plot([e + 1 for e in self.epoch[-len(values) :]], values, marker=".", label=label)
            axes.set_xlabel("epoch")
            axes.set_title(name)
            axes.legend()
        if path is not None:
            figure.savefig(path, dpi=120)
        return figure

    def __repr__(self) -> str:
        return f"History({len(self.epoch)} epochs: {', '.join(self.history)})"


class _Monitor:
    """Whether a number among the logs has become better."""

    def __init__(self, monitor: str, mode: str = "auto", min_delta: float = 0.0, baseline: float | None = None):
        if mode not in ("auto", "min", "max"):
            raise TenonError(f'mode must be "auto", "min" or "max", not {mode!r}')
        self.monitor = monitor
        rising = any(word in monitor for word in ("acc", "auc", "precision", "recall", "f1", "top"))
        self.sign = -1.0 if mode == "max" or (mode == "auto" and rising) else 1.0
        self.min_delta = abs(min_delta)
        self.best = math.inf if baseline is None else self.sign * baseline

    def value(self, logs: Logs) -> float:
        if self.monitor not in logs:
            raise TenonError(f"there is no {self.monitor!r} to monitor; this training gives {', '.join(logs)}")
        return logs[self.monitor]

    def better(self, logs: Logs) -> bool:
        value = self.sign * self.value(logs)
        if value < self.best - self.min_delta:
            self.best = value
            return True
        return False


class EarlyStopping(Callback):
    """Stops training once ``monitor`` has not become better by more than ``min_delta`` in ``patience`` epochs.

    ``baseline`` must be bettered too; counting starts after ``start_from_epoch`` epochs. With ``restore_best_weights``
    the model ends with the weights of its best epoch.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ):
        self._watch = _Monitor(monitor, mode, min_delta, baseline)
        self.patience = patience
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch
        self.wait = 0
        self.stopped_epoch: int | None = None
        self.best_epoch: int | None = None
        self._weights: dict[str, np.ndarray] | None = None

    @property
    def best(self) -> float:
        """The best value so far."""
        return self._watch.sign * self._watch.best

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        if epoch < self.start_from_epoch:
            return
        if self._watch.better(logs):
            self.wait, self.best_epoch = 0, epoch
            if self.restore_best_weights:
                self._weights = self.trainer.model.state_dict()
            return
        self.wait += 1
        if self.wait >= max(1, self.patience):
            self.stopped_epoch = epoch
            self.trainer.stop_training = True

    def on_train_end(self) -> None:
        if self._weights is not None:
            self.trainer.model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        found = {"wait": self.wait, "best": self._watch.best, "best_epoch": self.best_epoch}
        return found if self._weights is None else {**found, "weights": self._weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.wait, self._watch.best, self.best_epoch = state["wait"], state["best"], state["best_epoch"]
        self._weights = state.get("weights")


class ModelCheckpoint(Callback):
    """Saves everything that training needs to go on, or the weights alone, at the end of each epoch or after every
    ``save_freq`` batches.

    ``filepath`` may hold ``{epoch}`` (counted from 1), ``{batch}`` and the logs: ``"{epoch:02d}-{val_loss:.3f}.st"``.
    With ``save_best_only`` a file is written where ``monitor`` has become better; ``keep`` is how many files stay.
    A file is complete or not there at all: it is written under another name first.
    """

    def __init__(
        self,
        filepath: str | Path,
        monitor: str = "val_loss",
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        keep: int | None = None,
    ):
        if save_freq != "epoch" and (not isinstance(save_freq, int) or save_freq < 1):
            raise TenonError(f'save_freq is "epoch" or a number of batches, not {save_freq!r}')
        self.filepath = str(filepath)
        self._watch = _Monitor(monitor, mode)
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.save_freq = save_freq
        self.keep = keep
        self.files: list[str] = []
        self._batches = 0
        self._epoch = 0

    def on_epoch_begin(self, epoch: int) -> None:
        self._epoch = epoch

    def on_batch_end(self, batch: int, logs: Logs) -> None:
        self._batches += 1
        if self.save_freq != "epoch" and self._batches % int(self.save_freq) == 0:
            self._save(batch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        if self.save_freq == "epoch":
            self._save(0, logs)

    def _save(self, batch: int, logs: Logs) -> None:
        if self.save_best_only and not self._watch.better(logs):
            return
        try:
            path = self.filepath.format(**{**logs, "epoch": self._epoch + 1, "batch": batch})
        except KeyError as error:
            raise TenonError(f"{self.filepath!r} names {error}; there are epoch, batch, {', '.join(logs)}") from None
        self.files = [f for f in self.files if f != path] + [path]
        surplus = self.files[: -self.keep] if self.keep else []
        self.files = self.files[len(surplus) :]
        if self.save_weights_only:
            self.trainer.save_weights(path)
        else:
            self.trainer.save(path)
        for old in surplus:
            Path(old).unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self._batches, "files": self.files, "best": self._watch.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._batches, self.files, self._watch.best = state["batches"], list(state["files"]), state["best"]


class ReduceLROnPlateau(Callback):
    """The learning rate times ``factor`` once ``monitor`` has not become better by more than ``min_delta`` in
    ``patience`` epochs; then ``cooldown`` epochs do not count. Rates stay at or above ``min_lr``."""

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ):
        if not 0 <= factor < 1:
            raise TenonError(f"factor must be at least 0 and below 1, not {factor}")
        self._watch = _Monitor(monitor, mode, min_delta)
        self.factor, self.patience, self.cooldown, self.min_lr = factor, patience, cooldown, min_lr
        self.wait = self._cooling = 0

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        better = self._watch.better(logs)
        if self._cooling:
            self._cooling -= 1
            self.wait = 0
        if better:
            self.wait = 0
        elif not self._cooling:
            self.wait += 1
            if self.wait >= self.patience:
                assert self.trainer.optimizer is not None
                for group in self.trainer.optimizer.param_groups:
                    group["lr"] = max(group["lr"] * self.factor, min(self.min_lr, group["lr"]))
                self._cooling, self.wait = self.cooldown, 0

    def state_dict(self) -> dict[str, Any]:
        return {"wait": self.wait, "cooling": self._cooling, "best": self._watch.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.wait, self._cooling, self._watch.best = state["wait"], state["cooling"], state["best"]


class LearningRateScheduler(Callback):
    """Sets the learning rate to ``schedule(epoch, lr)`` before each epoch."""

    def __init__(self, schedule: Callable[[int, float], float]):
        self.schedule = schedule

    def on_epoch_begin(self, epoch: int) -> None:
        assert self.trainer.optimizer is not None
        for group in self.trainer.optimizer.param_groups:
            group["lr"] = float(self.schedule(epoch, group["lr"]))


class CSVLogger(Callback):
    """A line of a CSV file for each epoch, the logs under their names; ``append`` goes on in a file that is there."""

    def __init__(self, filename: str | Path, separator: str = ",", append: bool = False):
        self.filename, self.separator, self.append = Path(filename), separator, append
        self._file: IO[str] | None = None
        self._keys: list[str] = []

    def on_train_begin(self) -> None:
        more = self.append and self.filename.is_file() and self.filename.stat().st_size > 0
        if more:
            with self.filename.open(newline="", encoding="utf-8") as file:
                self._keys = next(csv.reader(file, delimiter=self.separator))[1:]
        self._file = self.filename.open("a" if self.append else "w", newline="", encoding="utf-8")

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        assert self._file is not None
        writer = csv.writer(self._file, delimiter=self.separator)
        if not self._keys:
            self._keys = list(logs)
            writer.writerow(["epoch", *self._keys])
        writer.writerow([epoch, *(logs.get(key, "") for key in self._keys)])
        self._file.flush()

    def on_train_end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class TensorBoard(Callback):
    """The logs as scalars for TensorBoard in ``log_dir``, one point an epoch: ``loss/train``, ``loss/validation``."""

    def __init__(self, log_dir: str | Path = "logs"):
        self.log_dir = Path(log_dir)
        self._file: EventFile | None = None

    def on_train_begin(self) -> None:
        self._file = EventFile(self.log_dir)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        assert self._file is not None
        kinds = {name: "validation" if name.startswith("val_") else "train" for name in logs}
        self._file.add(epoch, {f"{name.removeprefix('val_')}/{kinds[name]}": logs[name] for name in logs})

    def on_train_end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
