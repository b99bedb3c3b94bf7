"""Callbacks of fit, weights of samples, and schedulers in the Trainer."""

from __future__ import annotations

import csv
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tenon as tn
from tenon import F, callbacks, event_file, nn, optim

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(24, 3)).astype(np.float32), RNG.integers(0, 2, 24)


def make(lr: float = 0.1, **options: Any) -> tn.Trainer:
    tn.seed(0)
    model = nn.Linear(3, 2)
    optimizer = optim.SGD(model.parameters(), lr=lr)
    if "scheduler" in options:
        options["scheduler"] = options["scheduler"](optimizer)
    return tn.Trainer(model, optimizer, options.pop("loss", nn.CrossEntropyLoss()), target="reference", **options)


class Fake(callbacks.Callback):
    """Puts numbers of its own in the place of the logs, before the callbacks after it look."""

    def __init__(self, values: list[float]):
        self.values = values

    def on_epoch_end(self, epoch: int, logs: Any) -> None:
        logs["val_loss"] = self.values[epoch]


def test_early_stopping() -> None:
    trainer = make()
    stop = callbacks.EarlyStopping(patience=2, min_delta=0.05, restore_best_weights=True)
    weights: list[np.ndarray] = []
    note = callbacks.LambdaCallback(on_epoch_end=lambda e, logs: weights.append(trainer.model.state_dict()["weight"]))
    history = trainer.fit(X, Y, epochs=9, callbacks=[note, Fake([3, 2, 1.99, 1.97, 5, 0, 0, 0, 0]), stop])
    assert (len(history.epoch), stop.stopped_epoch, stop.best, stop.best_epoch) == (4, 3, 2, 1)
    np.testing.assert_array_equal(trainer.model.state_dict()["weight"], weights[1])
    with pytest.raises(tn.TenonError, match="no 'val_auc' to monitor; this training gives loss"):
        trainer.fit(X, Y, callbacks=[callbacks.EarlyStopping("val_auc")])


def test_reducing_the_rate_on_a_plateau() -> None:
    trainer = make(lr=1.0)
    rates: list[float] = []
    reduce = callbacks.ReduceLROnPlateau(factor=0.5, patience=2, cooldown=1, min_lr=0.2)
    note = callbacks.LambdaCallback(on_epoch_end=lambda e, logs: rates.append(trainer.optimizer.lr))
    trainer.fit(X, Y, epochs=9, callbacks=[Fake([1.0] * 9), reduce, note])
    assert rates == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2]


def test_rates_by_epoch_and_csv(tmp_path: Path) -> None:
    trainer = make(lr=1.0, metrics=["accuracy"])
    file = tmp_path / "log.csv"
    halve = callbacks.LearningRateScheduler(lambda epoch, lr: lr / 2)
    trainer.fit(X, Y, epochs=3, callbacks=[halve, callbacks.CSVLogger(file)])
    assert trainer.optimizer is not None and trainer.optimizer.lr == 0.125
    trainer.fit(X, Y, epochs=1, callbacks=[callbacks.CSVLogger(file, append=True)])
    rows = list(csv.reader(file.open()))
    assert rows[0] == ["epoch", "loss", "accuracy"] and [r[0] for r in rows[1:]] == ["0", "1", "2", "0"]


def test_tensorboard_reads_the_numbers(tmp_path: Path) -> None:
    """The records are those that TensorBoard's own protocol buffers write, byte for byte."""
    history = make().fit(X, Y, epochs=2, validation_split=0.25, callbacks=[callbacks.TensorBoard(tmp_path / "run")])
    (file,) = (tmp_path / "run").iterdir()
    assert file.name.startswith("events.out.tfevents.")
    records, data = [], file.read_bytes()
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        records.append(data[12 : 12 + size])
        data = data[16 + size :]
    assert records[0][9:] == b"\x1a\x0dbrain.Event:2" and len(records) == 3
    loss, val = (struct.pack("<f", history.history[name][1]) for name in ("loss", "val_loss"))
    values = [b"\x0a\x0aloss/train\x15" + loss, b"\x0a\x0floss/validation\x15" + val]
    summary = b"".join(b"\x0a" + bytes([len(v)]) + v for v in values)
    assert records[2][9:] == b"\x10\x01\x2a" + bytes([len(summary)]) + summary


def test_checksums_of_event_files() -> None:
    """CRC-32C of "123456789" is 0xe3069283, a published check value; masked as TFRecord does."""
    crc = 0xE3069283
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
    assert event_file._checksum(b"123456789") == struct.pack("<I", masked)


def test_history_as_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    history = make(metrics=["accuracy"]).fit(X, Y, epochs=3, validation_split=0.25)
    figure = history.plot(tmp_path / "h.png")
    assert len(figure.axes) == 2 and (tmp_path / "h.png").read_bytes()[:4] == b"\x89PNG"
    assert [line.get_label() for line in figure.axes[1].lines] == ["accuracy", "val_accuracy"]


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), F.cross_entropy], ids=["module", "function"])
def test_weights_of_samples_and_classes(loss: Any) -> None:
    weights = RNG.uniform(0, 2, 24).astype(np.float32)
    trainer = make(loss=loss)
    logits = X.astype(np.float64) @ trainer.model.weight.numpy().T + trainer.model.bias.numpy()
    each = np.log(np.exp(logits).sum(1)) - logits[np.arange(24), Y]
    history = trainer.fit(X, Y, batch_size=24, sample_weight=weights)
    assert np.isclose(history.history["loss"][0], (each * weights).mean(), rtol=1e-5)
    by_class = make(loss=loss).fit(X, Y, batch_size=24, class_weight={1: 3.0})
    assert np.isclose(by_class.history["loss"][0], (each * np.where(Y == 1, 3, 1)).mean(), rtol=1e-5)
    with pytest.raises(tn.TenonError, match='takes reduction="none"'):
        make(loss=lambda p, y: F.cross_entropy(p, y)).fit(X, Y, sample_weight=weights)
    with pytest.raises(tn.ShapeError, match="one number a sample"):
        make().fit(X, Y, sample_weight=np.ones((24, 2)))


def test_schedulers() -> None:
    by_epoch = make(lr=1.0, scheduler=lambda o: optim.lr_scheduler.ExponentialLR(o, 0.5))
    by_epoch.fit(X, Y, epochs=3, batch_size=8)
    assert by_epoch.optimizer is not None and by_epoch.optimizer.lr == 0.125
    by_batch = make(lr=1.0, scheduler=lambda o: optim.lr_scheduler.ExponentialLR(o, 0.5), schedule_every="batch")
    by_batch.fit(X, Y, epochs=1, batch_size=8)
    assert by_batch.optimizer is not None and by_batch.optimizer.lr == 0.125
    plateau = make(lr=1.0, scheduler=lambda o: optim.lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=9))
    plateau.fit(X, Y, epochs=3)
    assert plateau.optimizer is not None and np.isclose(plateau.optimizer.lr, 0.001)


def test_batch_gradient_descent_and_batches_from_elsewhere() -> None:
    """The whole set as one batch; and the same from anything that gives batches."""

    class Batches:
        def __iter__(self) -> Any:
            return iter([(X[:10], Y[:10]), (X[10:], Y[10:])])

    whole = make().fit(X, Y, epochs=2, batch_size=len(X), shuffle=False)
    assert len(whole.epoch) == 2
    given = make()
    other = make()
    a = given.fit(Batches(), epochs=2, validation_data=Batches())
    for _ in range(2):
        b = [other.fit(X[s], Y[s], batch_size=24, shuffle=False).history["loss"][0] for s in (slice(10), slice(10, 24))]
    assert np.isclose(a.history["loss"][1], (10 * b[0] + 14 * b[1]) / 24)
    assert np.isclose(a.history["val_loss"][1], given.evaluate(X, Y)["loss"], rtol=1e-5)
    np.testing.assert_allclose(given.predict(Batches_of_inputs()), given.predict(X), rtol=1e-6)


def test_a_loader_that_has_run_dry() -> None:
    class Once:
        walks = 2  # the first is to see what the batches are like

        def __iter__(self) -> Any:
            self.walks -= 1
            return iter([(X, Y)] if self.walks >= 0 else [])

    with pytest.raises(tn.TenonError, match="no batch in epoch 2"):
        make().fit(Once(), epochs=3)


class Batches_of_inputs:
    def __iter__(self) -> Any:
        return iter([X[:10], X[10:]])


def test_several_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, a: tn.Tensor, b: tn.Tensor) -> tn.Tensor:
            return self.layer(a) + b

    model = Two()
    trainer = tn.Trainer(model, optim.SGD(model.parameters()), nn.CrossEntropyLoss(), target="reference")
    extra = np.zeros((24, 2), np.float32)
    trainer.fit((X, extra), Y, epochs=2)
    assert trainer.predict({"a": X, "b": extra}).shape == (24, 2)
