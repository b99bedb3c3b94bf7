"""Where training stands, and files from which it goes on as if it had never stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import StateError
from frontend import random
from tenon import checkpoints
from tenon.callbacks import Callback
from tenon.metrics import Metric

if TYPE_CHECKING:
    from tenon.trainer import Trainer

FORMAT = 1


class Totals:
    """What programs returned for the batches of an epoch, added up: losses by samples, and each metric's counts."""

    def __init__(self, metrics: Mapping[str, Metric]):
        self.metrics = metrics
        self.loss = 0.0
        self.samples = 0
        self.counts: dict[str, np.ndarray] = {}

    def add(self, results: Sequence[np.ndarray], samples: int) -> None:
        """The results of one batch: the loss, then the counts of each metric."""
        self.loss += samples * float(results[0])
        self.samples += samples
        for name, counts in zip(self.metrics, results[1:], strict=True):
            known = self.counts.get(name)
            self.counts[name] = counts.astype(np.float64) if known is None else known + counts

    @property
    def logs(self) -> dict[str, float]:
        """The loss and each metric over all batches so far."""
        found = {"loss": self.loss / max(self.samples, 1)}
        found |= {name: self.metrics[name].result(counts) for name, counts in self.counts.items()}
        return found


class Position:
    """``batch`` batches of epoch ``epoch`` are done. ``generator`` is the state, at the epoch's beginning, of the
    generator that shuffles."""

    def __init__(self, epoch: int = 0, batch: int = 0):
        self.epoch = epoch
        self.batch = batch
        self.generator: dict[str, Any] | None = None
        self.totals: Totals | None = None

    def begin(self) -> None:
        self.generator = dict(random.default.generator.bit_generator.state)

    def advance(self) -> None:
        """The epoch is done."""
        self.epoch, self.batch, self.generator, self.totals = self.epoch + 1, 0, None, None


def save_training(trainer: Trainer, path: str | Path, told: Sequence[Callback]) -> None:
    """Write ``trainer`` and the state of its callbacks to ``path``."""
    arrays = {f"model.{k}": v for k, v in trainer.model.state_dict().items()}
    if trainer.optimizer is not None:
        arrays |= {f"optimizer.{k}": v for k, v in trainer.optimizer.state_dict().items()}
    arrays |= {"rng.seed": random.default.seed.array, "rng.step": random.default.step.array}
    position = trainer.position
    scaler = trainer.scaler
    facts: dict[str, Any] = {
        "format": FORMAT,
        "epoch": position.epoch,
        "batch": position.batch,
        "generator": position.generator or random.default.generator.bit_generator.state,
        "callbacks": [],
        "scaler": scaler.state_dict() if scaler is not None else {},
    }
    if position.totals is not None and position.batch:
        facts["loss"], facts["samples"] = position.totals.loss, position.totals.samples
        arrays |= {f"totals.{k}": v for k, v in position.totals.counts.items()}
    for i, callback in enumerate(told):
        plain = {}
        for key, value in callback.state_dict().items():
            if isinstance(value, dict) and value and all(isinstance(v, np.ndarray) for v in value.values()):
                arrays |= {f"callback.{i}.{key}.{k}": v for k, v in value.items()}
            else:
                plain[key] = value
        facts["callbacks"].append([type(callback).__name__, plain])
    checkpoints.save(arrays, path, facts)


def load_training(trainer: Trainer, path: str | Path, told: Sequence[Callback]) -> Totals | None:
    """Take over what :func:`save_training` wrote; gives the numbers of the epoch that was begun. Raises StateError for
    a file that is damaged, of another kind or does not fit; then nothing has changed."""
    arrays, facts = checkpoints.load_with_facts(path)
    if facts is None or facts.get("format") != FORMAT:
        raise StateError(f"{path} holds arrays but no state of training: it was not written by Trainer.save")
    names = [type(callback).__name__ for callback in told]
    saved = [name for name, _ in facts["callbacks"]]
    if told and names != saved:
        raise StateError(f"{path} was written with the callbacks {saved}, and training goes on with {names}")
    scales = facts.get("scaler", {})
    if bool(scales) != (trainer.scaler is not None and trainer.scaler.is_enabled()):
        raise StateError(
            f"{path} was written by training {'with' if scales else 'without'} loss scaling, and this Trainer trains "
            f"{'without' if scales else 'with'} it"
        )
    before = trainer.model.state_dict()
    trainer.model.load_state_dict(_under(arrays, "model."))
    try:
        if trainer.optimizer is not None:
            trainer.optimizer.load_state_dict(_under(arrays, "optimizer."))
        if trainer.scaler is not None:
            trainer.scaler.load_state_dict(scales)
    except StateError:
        trainer.model.load_state_dict(before)
        raise
    random.default.seed.write(arrays["rng.seed"])
    random.default.step.write(arrays["rng.step"])
    generator = np.random.default_rng()
    generator.bit_generator.state = facts["generator"]
    random.default.generator = generator
    for i, (callback, (_, plain)) in enumerate(zip(told, facts["callbacks"], strict=False)):
        state = dict(plain)
        for key, value in _under(arrays, f"callback.{i}.").items():
            group, _, name = key.partition(".")
            state.setdefault(group, {})[name] = value
        callback.load_state_dict(state)
    trainer.position = Position(facts["epoch"], facts["batch"])
    if not facts["batch"]:
        return None
    totals = Totals(trainer.metrics)
    totals.loss, totals.samples, totals.counts = facts["loss"], facts["samples"], _under(arrays, "totals.")
    return totals


def _under(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
