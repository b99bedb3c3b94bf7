"""What ``Trainer.fit`` tells while it runs, and the record that it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

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


class EpochFunction(Callback):
    """A plain function ``f(epoch, logs)``, called at the end of each epoch."""

    def __init__(self, function: Callable[[int, Logs], object]):
        self.function = function

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        self.function(epoch, logs)


AnyCallback = Callback | Callable[[int, Logs], object]


class History(Callback):
    """``history.history["val_loss"][i]`` is the value at the end of epoch ``history.epoch[i]``."""

    def __init__(self) -> None:
        self.epoch: list[int] = []
        self.history: dict[str, list[float]] = {}

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)

    def __repr__(self) -> str:
        return f"History({len(self.epoch)} epochs: {', '.join(self.history)})"
