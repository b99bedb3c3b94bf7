"""Trainer: Keras's verbs over compiled programs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.dtypes import DType, f32
from engine.errors import TenonError
from frontend.nn import Module
from frontend.optim import GradScaler, Optimizer
from frontend.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from frontend.trace import active
from tenon import checkpoints
from tenon import metrics as metric_functions
from tenon.batches import ArraySource, LoaderSource, Source, as_data, class_weights, is_loader, split
from tenon.callbacks import AnyCallback, Callback, EpochFunction, History, ModelCheckpoint
from tenon.compiling import compile
from tenon.executable import Executable
from tenon.modes import mode
from tenon.options import checked_autotune, checked_precision
from tenon.position import Position, Totals, load_training, save_training
from tenon.progress import Progress, text_of
from tenon.training import check_parts, weighted_loss


class Trainer:
    """A model with what training it takes.

    ``loss(prediction, target)`` gives a scalar, the mean over the batch; ``metrics`` are names (``"accuracy"``,
    ``"f1"`` ...), :class:`tn.metrics.Metric` objects or functions of the same form as the loss. ``scheduler`` takes a
    step after each epoch, or with ``schedule_every="batch"`` inside the program of each batch. Each of fit, evaluate
    and predict runs one compiled program, whatever the size of a batch: for fit the forward pass, loss, metrics,
    gradients and the optimizer's update. ``memory_limit`` is for that of fit, and as in ``tn.compile``; the dim of the
    batch is called B: ``memory_limit="1 GB", memory_at={"B": 64}``.

    ``precision`` is that of all three, as in ``tn.compile``. With ``"fp16"`` the loss is scaled, by ``scaler`` or by a
    ``GradScaler()`` of its own: steps whose gradients overflow are skipped. ``autotune`` is that of all three, too:
    each is tuned at its first batch.
    """

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer | None = None,
        loss: Callable[..., Any] | None = None,
        metrics: Iterable[str | metric_functions.Metric | metric_functions.Function] = (),
        *,
        scheduler: LRScheduler | None = None,
        schedule_every: str = "epoch",
        level: int | None = None,
        target: str = "cpu",
        memory_limit: int | str | None = None,
        memory_at: Mapping[str, int] | None = None,
        precision: str = "fp32",
        autotune: bool | None = None,
        scaler: GradScaler | None = None,
    ):
        check_parts("Trainer", model, optimizer, loss)
        checked_precision(precision)
        checked_autotune(autotune, target)
        if schedule_every not in ("epoch", "batch"):
            raise TenonError(f'schedule_every must be "epoch" or "batch", not {schedule_every!r}')
        if scheduler is not None and scheduler.optimizer is not optimizer:
            raise TenonError("the scheduler is of another optimizer than the Trainer's")
        self.model = model
        self.optimizer = optimizer
        self.loss = loss
        self.metrics = metric_functions.named((metrics,) if isinstance(metrics, str) else metrics)
        self.scheduler = scheduler
        self.schedule_every = schedule_every
        self.stop_training = False
        self.position = Position()
        self._interrupted = False
        self._told: list[Callback] = []
        self.scaler = GradScaler() if scaler is None and precision == "fp16" else scaler
        self._options: dict[str, Any] = {
            "level": level,
            "target": target,
            "precision": precision,
            "autotune": autotune,
        }
        self._limit: dict[str, Any] = {"memory_limit": memory_limit, "memory_at": memory_at}
        self._programs: dict[tuple, Executable] = {}

    # --- the verbs -----------------------------------------------------------------------------------------

    def fit(
        self,
        x: Any,
        y: Any = None,
        epochs: int = 1,
        batch_size: int = 32,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        verbose: int = 1,
        callbacks: Sequence[AnyCallback] = (),
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        resume: str | Path | None = None,
    ) -> History:
        """Train until ``epochs`` passes over the data are done; returns the loss and metrics of each.

        ``x`` is an array, a tuple or dict of arrays (the model's inputs), or something that gives batches ``(x, y)`` or
        ``(x, ..., y)`` by itself, such as a :class:`tn.data.Loader`; then ``y`` and ``batch_size`` are not used.
        ``validation_split`` keeps the last share of the samples for validation, ``validation_data`` gives others: a
        pair ``(x, y)`` or a loader. Samples are shuffled before each epoch, by the generator that ``tn.seed`` seeds.

        With ``class_weight`` or ``sample_weight`` each sample's loss is multiplied by its weight before the mean, as in
        Keras. ``resume`` goes on from a file that :meth:`save` or ModelCheckpoint wrote, in the middle of an epoch too:
        the result is that of a run that never stopped, bit for bit.

        ``verbose``: 0 prints nothing, 1 shows progress on a terminal, 2 prints a line an epoch. A training epoch's
        numbers are over its batches while the model changes. Ctrl-C ends training after the batch that is running; the
        history then says ``interrupted``.
        """
        if self.optimizer is None:
            raise TenonError("fit needs an optimizer: tn.Trainer(model, optimizer=optim.Adam(model.parameters()), ...)")
        _check_counts(epochs, batch_size)
        weights = self._weights(x, y, class_weight, sample_weight)
        source, held_out = self._sources(x, y, batch_size, validation_split, validation_data, shuffle, weights)
        step = self.program("train", source, weighted=weights is not None)
        history = History()
        self._told = _ordered([history, *map(_as_callback, callbacks)])
        self.position = Position()
        totals = None
        if resume is not None:
            totals = load_training(self, resume, self._told)
        self.stop_training = self._interrupted = False
        for callback in self._told:
            callback.trainer = self
            callback.on_train_begin()
        with self._interruptible():
            while self.position.epoch < epochs and not self.stop_training:
                totals = self._epoch(step, source, held_out, epochs, verbose, totals)
                if totals is not None:
                    break
        history.interrupted = self._interrupted
        for callback in self._told:
            callback.on_train_end()
        return history

    def evaluate(self, x: Any, y: Any = None, batch_size: int = 32) -> dict[str, float]:
        """The loss and each metric over the data, in evaluation mode."""
        _check_counts(1, batch_size)
        return self._evaluate(self._source(x, y, batch_size, "evaluate"))

    def predict(self, x: Any, batch_size: int = 32) -> Any:
        """The model's outputs for every sample, in evaluation mode, nested as the model returns them."""
        _check_counts(1, batch_size)
        source: Source
        if is_loader(x):
            source = LoaderSource(x, self._floating, "predict", targets=False)
        else:
            source = ArraySource(as_data(x, None, self._floating, "predict"), batch_size)
        run = self.program("predict", source)
        return run.join([found for _, found in run.over(source.epoch(0, 0))])

    # --- files ---------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write everything that training needs to go on to a safetensors file: the model, the optimizer's state, random
        numbers, the position in the data, history and callbacks. The file is complete or not there at all."""
        save_training(self, path, self._told)

    def load(self, path: str | Path) -> None:
        """Take over model, optimizer and random numbers from a file that :meth:`save` wrote. Raises StateError for a
        file that is damaged or does not fit; then nothing has changed."""
        load_training(self, path, [])

    def save_weights(self, path: str | Path) -> None:
        """Write the model's ``state_dict`` to a safetensors file."""
        checkpoints.save(self.model.state_dict(), path)

    def load_weights(self, path: str | Path) -> None:
        """Read the model's ``state_dict`` from a safetensors file. Raises StateError where it does not fit."""
        self.model.load_state_dict(checkpoints.load(path))

    # --- an epoch ------------------------------------------------------------------------------------------

    def _epoch(
        self, step: Executable, source: Source, held_out: Source | None, epochs: int, verbose: int, begun: Totals | None
    ) -> Totals | None:
        """One epoch, or the rest of one that has ``begun``. Gives its numbers where Ctrl-C broke it off."""
        epoch, skip = self.position.epoch, self.position.batch
        if begun is None:
            for callback in self._told:
                callback.on_epoch_begin(epoch)
        totals = begun or Totals(self.metrics)
        self.position.begin()
        with Progress(f"epoch {epoch + 1}/{epochs}", source.samples, enabled=verbose == 1) as progress:
            for index, (batch, found) in enumerate(step.over(source.epoch(epoch, skip)), start=skip):
                totals.add(found, len(batch[0]))
                self.position.batch = index + 1
                self.position.totals = totals
                if progress.shown:
                    progress.advance(len(batch[0]), totals.logs)
                if len(self._told) > 1:
                    for callback in self._told:
                        callback.on_batch_end(index, totals.logs)
                if self._interrupted:
                    return totals
            if not totals.samples:
                raise TenonError(f"the loader gave no batch in epoch {epoch + 1}")
            logs = totals.logs
            if held_out is not None:
                logs |= {f"val_{name}": value for name, value in self._evaluate(held_out).items()}
            progress.finish(logs)
        if verbose == 2:
            print(f"epoch {epoch + 1}/{epochs}: {text_of(logs)}", flush=True)
        if self.scheduler is not None and self.schedule_every == "epoch":
            self._step_scheduler(logs.get("val_loss", logs["loss"]))
        self.position.advance()
        for callback in self._told:
            callback.on_epoch_end(epoch, logs)
        return None

    def _step_scheduler(self, loss: Any) -> None:
        assert self.scheduler is not None
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(loss)
        else:
            self.scheduler.step()

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """The first Ctrl-C asks to stop after the running batch, the second stops at once. Only the main thread may say
        what Ctrl-C does."""
        import signal

        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: Any) -> None:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True

        before = signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _evaluate(self, source: Source) -> dict[str, float]:
        run = self.program("evaluate", source)
        totals = Totals(self.metrics)
        for batch, found in run.over(source.epoch(0, 0)):
            totals.add(found, len(batch[0]))
        return totals.logs

    # --- programs ------------------------------------------------------------------------------------------

    def program(self, kind: str, source: Source, weighted: bool = False) -> Executable:
        """The executable behind ``"train"``, ``"evaluate"`` or ``"predict"`` for such data; compiled at first use."""
        key = (kind, source.specs, weighted, self.optimizer, self.loss, self.scheduler, tuple(self.metrics.values()))
        if key not in self._programs:
            with mode(self.model, training=kind == "train"):
                limit = self._limit if kind == "train" else {}
                self._programs[key] = compile(self._function(kind, weighted), *source.specs, **self._options, **limit)
        return self._programs[key]

    @property
    def executables(self) -> list[Executable]:
        """Every program compiled so far."""
        return list(self._programs.values())

    def _function(self, kind: str, weighted: bool) -> Callable[..., Any]:
        def predict(*x: Any) -> Any:
            return self.model(*x)

        def evaluate(*arrays: Any) -> tuple[Any, ...]:
            assert self.loss is not None
            *inputs, y = arrays[:-1] if weighted else arrays
            prediction = self.model(*inputs)
            loss = weighted_loss(self.loss, prediction, y, arrays[-1]) if weighted else self.loss(prediction, y)
            return (loss, *(metric.counts(prediction, y) for metric in self.metrics.values()))

        def train(*arrays: Any) -> tuple[Any, ...]:
            results = evaluate(*arrays)
            assert self.optimizer is not None and active() is not None
            self.optimizer.minimize(results[0], scaler=self.scaler)
            if self.scheduler is not None and self.schedule_every == "batch":
                self._step_scheduler(results[0])
            return results

        functions: dict[str, Callable[..., Any]] = {"train": train, "evaluate": evaluate, "predict": predict}
        return functions[kind]

    @property
    def _floating(self) -> DType:
        """The dtype of the model's parameters, which floating point data is given."""
        return next((p.dtype for p in self.model.parameters() if p.dtype.is_float), f32)

    # --- data ----------------------------------------------------------------------------------------------

    def _weights(self, x: Any, y: Any, by_class: Mapping[int, float] | None, by_sample: Any) -> Any:
        if by_class is None:
            return by_sample
        if is_loader(x):
            raise TenonError("class_weight needs arrays x and y; a loader can give the weights through its own dataset")
        found = class_weights(as_data(x, y, self._floating, "fit").y, by_class)  # type: ignore[arg-type]
        return found if by_sample is None else found * by_sample

    def _sources(
        self, x: Any, y: Any, batch_size: int, share: float, given: Any, shuffle: bool, weights: Any
    ) -> tuple[Source, Source | None]:
        """What to train on, and what to validate on."""
        if given is not None and share:
            raise TenonError("fit takes validation_split or validation_data, not both")
        if share and is_loader(x):
            raise TenonError("validation_split needs arrays x and y; give validation_data beside a loader")
        if is_loader(x) or not share:
            train = self._source(x, y, batch_size, "fit", shuffle, weights)
            held_out = None
            if given is not None:
                xv, yv = (given, None) if is_loader(given) else _pair(given)
                held_out = self._source(xv, yv, batch_size, "validation_data")
            return train, held_out
        self._need_targets(y, "fit")
        first, last = split(as_data(x, y, self._floating, "fit", weights), share)
        unweighted = type(last)(last.x, last.y)
        return ArraySource(first, batch_size, shuffle), ArraySource(unweighted, batch_size)

    def _source(self, x: Any, y: Any, batch_size: int, what: str, shuffle: bool = False, weights: Any = None) -> Source:
        if is_loader(x):
            self._need_targets(x, what)
            return LoaderSource(x, self._floating, what, targets=True)
        self._need_targets(y, what)
        return ArraySource(as_data(x, y, self._floating, what, weights), batch_size, shuffle)

    def _need_targets(self, y: Any, what: str) -> None:
        if self.loss is None:
            raise TenonError(f"{what} needs a loss: tn.Trainer(model, loss=nn.CrossEntropyLoss(), ...)")
        if y is None:
            raise TenonError(f"{what} needs the targets y")


def _ordered(told: list[Callback]) -> list[Callback]:
    """Checkpoints last, so that what they save is what the other callbacks have become."""
    return sorted(told, key=lambda callback: isinstance(callback, ModelCheckpoint))


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
