"""Trainer: fit, evaluate, predict, and what they say about bad data."""

from __future__ import annotations

import re

import numpy as np
import pytest

import tenon as tn
from tenon import F, nn, optim


def blobs(count: int = 50, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three clusters of points in the plane, as float64, and their numbers."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, count)
    return 4 * np.stack([np.cos(2 * y), np.sin(2 * y)], axis=1) + rng.normal(size=(count, 2)), y


def make(target: str = "reference", **options) -> tn.Trainer:
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
    options = {"loss": nn.CrossEntropyLoss(), "metrics": ["accuracy"], **options}
    return tn.Trainer(model, optimizer=optim.Adam(model.parameters(), lr=0.02), target=target, **options)


@pytest.mark.parametrize("target", ("reference", "cpu"))
def test_fit_learns_with_one_program_for_all_batches(target):
    trainer = make(target)
    x, y = blobs(50)
    history = trainer.fit(x, y, epochs=20, batch_size=16, verbose=0)  # the last batch has 2 samples
    assert history.epoch == list(range(20))
    assert history.history["accuracy"][-1] > 0.95 > history.history["accuracy"][0]
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert [e.name for e in trainer.executables] == ["train"]
    assert trainer.executables[0].compile_count == 1


def test_evaluate_and_predict_agree_whatever_the_batch():
    trainer = make()
    x, y = blobs(23)
    scores = trainer.predict(x, batch_size=5)
    assert scores.shape == (23, 3)
    np.testing.assert_allclose(scores, trainer.predict(x, batch_size=23), rtol=1e-5, atol=1e-6)
    found = trainer.evaluate(x, y, batch_size=5)
    assert found.keys() == {"loss", "accuracy"}
    assert found["accuracy"] == pytest.approx((scores.argmax(1) == y).mean())
    rows = np.exp(scores - scores.max(1, keepdims=True))
    nll = -np.log((rows / rows.sum(1, keepdims=True))[np.arange(23), y])
    assert found["loss"] == pytest.approx(nll.mean(), rel=1e-5)


def test_predict_keeps_the_models_nest():
    class Two(nn.Module):
        def forward(self, x):
            return {"twice": 2 * x, "sum": x.sum(1)}

    found = tn.Trainer(Two(), target="reference").predict(np.ones((5, 2)), batch_size=2)
    assert found["twice"].shape == (5, 2) and found["sum"].tolist() == [2] * 5


def test_the_seed_decides_order_and_results():
    x, y = blobs(40)

    def losses(seed: int) -> list[float]:
        tn.seed(seed)
        return make().fit(x, y, epochs=2, batch_size=8, verbose=0).history["loss"]

    assert losses(1) == losses(1) != losses(2)


def test_without_shuffling_batches_come_in_order():
    trainer = make(metrics=[])
    x, y = blobs(12)
    seen = []

    class Record(tn.Callback):
        def on_batch_end(self, batch, logs):
            seen.append((batch, self.trainer is trainer, logs["loss"]))

    before = trainer.evaluate(x[:4], y[:4])["loss"]
    trainer.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[Record()])
    assert [(b, t) for b, t, _ in seen] == [(0, True), (1, True), (2, True)]
    assert seen[0][2] == pytest.approx(before, rel=1e-5)


def test_validation_is_the_last_share_or_given():
    x, y = blobs(20)
    trainer = make()
    split = trainer.fit(x, y, batch_size=8, validation_split=0.25, verbose=0)
    after = trainer.evaluate(x[15:], y[15:])
    assert split.history["val_loss"] == [pytest.approx(after["loss"], rel=1e-6)]
    assert split.history["val_accuracy"] == [pytest.approx(after["accuracy"])]
    given = trainer.fit(x, y, batch_size=8, validation_data=(x[:3], y[:3]), verbose=0)
    assert given.history["val_loss"] == [pytest.approx(trainer.evaluate(x[:3], y[:3])["loss"], rel=1e-6)]


def test_callbacks_can_stop_training():
    trainer = make()
    calls = []

    def stop(epoch, logs):
        calls.append((epoch, sorted(logs)))
        trainer.stop_training = epoch == 1

    history = trainer.fit(*blobs(), epochs=9, verbose=0, callbacks=[stop])
    assert calls == [(0, ["accuracy", "loss"]), (1, ["accuracy", "loss"])]
    assert history.epoch == [0, 1]


def test_modes_are_traced_as_they_should_be_and_restored():
    model = nn.Sequential(nn.Dropout(0.9), nn.Linear(2, 1))
    trainer = tn.Trainer(model, optim.SGD(model.parameters(), lr=0.0), F.mse_loss, target="reference")
    x, y = np.ones((8, 2), np.float32), np.zeros((8, 1), np.float32)
    model[0].eval()
    losses = trainer.fit(x, y, epochs=4, verbose=0).history["loss"]
    assert [m.training for m in model.modules()] == [True, False, True]
    assert len(set(losses)) > 1  # dropout is on
    expected = float((model[1].weight.numpy().sum() + model[1].bias.numpy()[0]) ** 2)
    assert trainer.evaluate(x, y)["loss"] == pytest.approx(expected, rel=1e-4)  # and off


def test_another_loss_means_another_program():
    trainer = make()
    x, y = blobs(8)
    one = trainer.evaluate(x, y)["loss"]
    trainer.loss = lambda prediction, target: 2 * F.cross_entropy(prediction, target)
    assert trainer.evaluate(x, y)["loss"] == pytest.approx(2 * one, rel=1e-5)
    assert len(trainer.executables) == 2


def test_metrics_are_names_or_functions():
    def bias(prediction, target):
        return (prediction - target).mean()

    model = nn.Linear(2, 1)
    trainer = tn.Trainer(model, loss=F.mse_loss, metrics=["mae", "mse", bias], target="reference")
    x, y = np.ones((4, 2)), np.zeros((4, 1))
    found = trainer.evaluate(x, y)
    error = model(np.ones((4, 2), np.float32)).numpy()
    assert found["mae"] == pytest.approx(abs(error).mean(), rel=1e-5)
    assert found["mse"] == pytest.approx((error**2).mean(), rel=1e-5) == found["loss"]
    assert found["bias"] == pytest.approx(error.mean(), rel=1e-5)


def test_accuracy_takes_one_hot_targets():
    trainer = make(loss=F.mse_loss)
    x, y = blobs(9)
    hot = np.eye(3)[y]
    assert trainer.evaluate(x, hot)["accuracy"] == pytest.approx((trainer.predict(x).argmax(1) == y).mean())


def test_progress_on_a_terminal(capfd, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    make().fit(*blobs(20), epochs=2, batch_size=10)
    shown = capfd.readouterr().err
    assert "0/20 [" in shown and "left, " in shown and "samples/s" in shown
    for epoch in (1, 2):
        assert re.search(rf"epoch {epoch}/2: loss \d.\d+, accuracy \d.\d+ \([\d.]+ s, [\d,]+ samples/s\)", shown)


def test_nothing_is_printed_into_a_pipe_unless_a_line_an_epoch_is_wanted(capfd):
    make().fit(*blobs(20), epochs=2, batch_size=10)
    assert capfd.readouterr() == ("", "")
    make().fit(*blobs(20), epochs=2, batch_size=10, verbose=2)
    lines = capfd.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"] and "accuracy" in lines[1]


X, Y = blobs(10)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda t: t.fit(X, Y[:9]), "fit got 10 samples x and 9 targets y"),
        (lambda t: t.fit(X[:0], Y[:0]), r"fit got no samples: x has shape \(0, 2\)"),
        (lambda t: t.fit(X, None), "fit needs the targets y"),
        (lambda t: t.fit(np.array(["a"] * 10), Y), "the x of fit has dtype <U1; numbers were expected"),
        (lambda t: t.fit(3.0, Y), "the x of fit is a scalar"),
        (lambda t: t.fit(X, Y, epochs=0), "epochs is 0"),
        (lambda t: t.fit(X, Y, batch_size=1.5), "batch_size is 1.5"),
        (lambda t: t.fit(X, Y, validation_split=1.0), "validation_split=1.0 of 10 samples leaves 0 for training"),
        (lambda t: t.fit(X, Y, validation_split=0.5, validation_data=(X, Y)), "not both"),
        (lambda t: t.fit(X, Y, validation_data=X), r"a pair \(x, y\), not ndarray"),
        (lambda t: t.fit(X, Y, validation_data=(X, Y[:1])), "validation_data got 10 samples x and 1 targets"),
        (lambda t: t.fit(X, Y, callbacks=[3]), "a callback is"),
        (lambda t: t.evaluate(X[:0], Y[:0]), "evaluate got no samples"),
        (lambda t: t.predict(X[:0]), "predict got no samples"),
        (lambda t: t.fit(b for b in [(X, Y)]), "fit got a generator, which is over after one walk"),
        (lambda t: make(metrics=["kappa"]), "no metric 'kappa'; expected one of accuracy"),
        (lambda t: make(metrics=["mae", "mae"]), "two metrics are called 'mae'"),
        (lambda t: make(metrics=[3]), "a metric is a name or a function"),
        (lambda t: tn.Trainer(F.relu), "Trainer takes a Module, not function"),
        (lambda t: tn.Trainer(t.model).fit(X, Y), "fit needs an optimizer"),
        (lambda t: tn.Trainer(t.model).evaluate(X, Y), "evaluate needs a loss"),
    ],
)
def test_misuse_is_explained(use, message):
    with pytest.raises(tn.TenonError, match=message):
        use(make())


def test_a_label_out_of_range_is_explained():
    with pytest.raises(tn.IndexRangeError, match="7"):
        make().fit(X, np.full(10, 7), verbose=0)
