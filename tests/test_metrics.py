"""Metrics over batches of different sizes against scikit-learn on all samples at once."""

from __future__ import annotations

import numpy as np
import pytest

import tenon as tn
from tenon import metrics, nn

RNG = np.random.default_rng(0)
N = 70


def evaluate(metric: object, prediction: np.ndarray, target: np.ndarray) -> float:
    """The metric over batches of 16, through evaluate."""
    loss = nn.CrossEntropyLoss() if prediction.ndim > 1 and target.ndim == 1 else nn.MSELoss()
    trainer = tn.Trainer(nn.Identity(), loss=loss, metrics=[metric], target="reference")
    found = trainer.evaluate(prediction, target, batch_size=16)
    return next(value for name, value in found.items() if name != "loss")


def probabilities() -> tuple[np.ndarray, np.ndarray]:
    target = RNG.integers(0, 2, N)
    return np.clip(target * 0.3 + RNG.uniform(0, 0.7, N), 0, 1).astype(np.float32), target.astype(np.float32)


@pytest.mark.parametrize("name", ["precision", "recall", "f1"])
def test_binary(name: str) -> None:
    oracle = getattr(pytest.importorskip("sklearn.metrics"), f"{name}_score")
    p, y = probabilities()
    assert np.isclose(evaluate(name, p, y), oracle(y, p > 0.5))
    assert np.isclose(evaluate(name, p[:, None], y[:, None]), oracle(y, p > 0.5))
    other = {"precision": metrics.Precision, "recall": metrics.Recall, "f1": metrics.F1}[name](threshold=0.3)
    assert np.isclose(evaluate(other, p, y), oracle(y, p > 0.3))


def test_by_class() -> None:
    scores = RNG.normal(size=(N, 4)).astype(np.float32)
    y = RNG.integers(0, 4, N)
    oracle = pytest.importorskip("sklearn.metrics")
    found = oracle.precision_score(y, scores.argmax(1), labels=[2], average=None)[0]
    assert np.isclose(evaluate(metrics.Precision(class_id=2), scores, y), found)
    assert np.isclose(evaluate(metrics.TopK(2), scores, y), oracle.top_k_accuracy_score(y, scores, k=2))
    assert np.isclose(evaluate("accuracy", scores, y), (scores.argmax(1) == y).mean())
    with pytest.raises(tn.ShapeError, match="needs class_id"):
        evaluate("precision", scores, y)


def test_area_under_the_curve() -> None:
    oracle = pytest.importorskip("sklearn.metrics").roc_auc_score
    p, y = probabilities()
    assert np.isclose(evaluate("auc", p, y), oracle(y, p), atol=5e-3)
    assert np.isclose(evaluate(metrics.AUC(5000), p, y), oracle(y, p), atol=1e-4)
    assert np.isnan(evaluate("auc", p, np.zeros_like(y)))


def test_perplexity_and_means() -> None:
    logits, y = RNG.normal(size=(N, 5)).astype(np.float32), RNG.integers(0, 5, N)
    y[::7] = -100
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    kept = y >= 0
    expected = np.exp(-logs[kept, y[kept]].mean())
    assert np.isclose(evaluate("perplexity", logits, y), expected, rtol=1e-5)
    p, t = probabilities()
    assert np.isclose(evaluate("mae", p, t), np.abs(p - t).mean(), rtol=1e-5)
    assert np.isclose(evaluate("mse", p, t), np.square(p - t).mean(), rtol=1e-5)
    assert np.isclose(evaluate("binary_accuracy", p, t), ((p > 0.5) == t).mean())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: metrics.TopK(0), "k must be at least 1, not 0"),
        (lambda: metrics.AUC(2), "at least 3 thresholds"),
        (lambda: metrics.named([3]), "a metric is a name or a function"),
        (lambda: metrics.named(["auc", metrics.AUC(9)]), "two metrics are called 'auc'"),
    ],
)
def test_messages(make, words: str) -> None:
    with pytest.raises(tn.TenonError, match=words):
        make()
