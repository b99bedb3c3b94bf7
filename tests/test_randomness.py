"""Random numbers of compiled programs: the same at every level, on every target and with any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

import tenon as tn
from tenon import F, nn, optim

RUNS = [("reference", 2), ("cpu", 0), ("cpu", 1), ("cpu", 2), ("cpu", 3)]


def masks(x):
    """Dropout in two places and of two shapes, whose masks nothing else may change."""
    first = F.dropout(x, 0.25)
    return first, F.dropout(x.tanh().T, 0.5), tn.rand(x.shape[0], 3)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.4), nn.Linear(16, 4))


@pytest.fixture
def threads(monkeypatch):
    """Sets how many threads programs made from then on use."""
    return lambda count: monkeypatch.setenv("TENON_THREADS", str(count))


def test_masks_are_the_same_everywhere(threads):
    x = np.random.default_rng(0).normal(size=(301, 7)).astype(np.float32)
    found = {}
    for count in (1, 2):
        threads(count)
        for target, level in RUNS:
            tn.seed(5)
            exe = tn.compile(masks, tn.spec("B", 7), level=level, target=target)
            found[target, level, count] = [tuple(a != 0 for a in exe(x)[:2]) + exe(x)[2:] for _ in range(2)]
    (first, second), *others = found.values()
    assert any((a != b).any() for a, b in zip(first, second, strict=True))
    for other in others:
        for expected, got in zip((first, second), other, strict=True):
            for a, b in zip(expected, got, strict=True):
                assert np.array_equal(a, b)


def test_values_of_kept_elements_are_scaled(threads):
    exe = tn.compile(lambda x: F.dropout(x, 0.2), tn.spec("B", 50))
    x = np.random.default_rng(0).normal(size=(400, 50)).astype(np.float32)
    y = exe(x)
    kept = y != 0
    np.testing.assert_allclose(y[kept], x[kept] / np.float32(0.8), rtol=1e-6)
    assert abs(kept.mean() - 0.8) < 5 * np.sqrt(0.8 * 0.2 / x.size)
    assert abs(y.mean(dtype=np.float64) - x.mean(dtype=np.float64)) < 0.02


def test_rows_do_not_depend_on_the_batch():
    """The counter is the element's index: the first rows of a large batch draw what a small one does."""
    exe = tn.compile(lambda x: F.dropout(x, 0.5), tn.spec("B", 9))
    tn.seed(1)
    large = exe(np.ones((1000, 9), np.float32))
    tn.seed(1)
    assert np.array_equal(exe(np.ones((7, 9), np.float32)), large[:7])


def test_each_call_draws_anew_and_a_seed_repeats_them():
    exe = tn.compile(lambda x: F.dropout(x, 0.5), tn.spec(64))
    x = np.ones(64, np.float32)

    def draws(seed):
        tn.seed(seed)
        return [exe(x).tobytes() for _ in range(20)]

    first = draws(3)
    assert len(set(first)) == 20
    assert draws(3) == first
    assert not set(draws(4)) & set(first)


def test_two_dropouts_draw_from_streams_of_their_own():
    exe = tn.compile(lambda x: (F.dropout(x), F.dropout(x)), tn.spec(200))
    a, b = exe(np.ones(200, np.float32))
    assert 50 < (a != b).sum() < 150


def test_evaluation_draws_nothing():
    model = net().eval()
    exe = tn.compile(model, tn.spec("B", 8))
    x = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    w1, b1, w2, b2 = (p.numpy() for p in model.parameters())
    np.testing.assert_allclose(exe(x), np.maximum(x @ w1.T + b1, 0) @ w2.T + b2, rtol=1e-5, atol=1e-6)
    assert exe(x).tobytes() == exe(x).tobytes()
    assert not any(name.startswith("rng") for name in exe.cells)


def test_backward_sees_the_mask_of_the_forward_pass():
    """The gradient of sum(dropout(x)) is the mask itself."""

    def both(x):
        return tn.value_and_grad(lambda x: (F.dropout(x, 0.3) * 2).sum())(x), tn.rand(3)

    exe = tn.compile(both, tn.spec(500))
    (value, gradient), _ = exe(np.ones(500, np.float32))
    assert set(np.unique(gradient)) == {0, np.float32(2) * np.float32(1 / 0.7)}
    np.testing.assert_allclose(value, gradient.sum(), rtol=1e-5)


def test_training_with_dropout_is_the_same_on_any_number_of_threads(threads):
    x, y = np.random.default_rng(0).normal(size=(65, 8)).astype(np.float32), np.arange(65) % 4
    found = []
    for count in (1, 2, 3):
        threads(count)
        tn.seed(9)
        model = net()
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        step = tn.train_step(model, F.cross_entropy, optimizer, [tn.spec("B", 8), tn.spec("B", dtype="i64")])
        losses = [step(x, y).tobytes() for _ in range(5)]
        found.append((losses, [p.numpy().tobytes() for p in model.parameters()]))
    assert found[0] == found[1] == found[2]
    assert len(set(found[0][0])) == 5


@pytest.mark.slow
def test_training_with_dropout_agrees_with_the_reference_at_every_level():
    """The same random numbers at each level, so results differ by rounding alone: 1e-5 over ten steps."""
    x, y = np.random.default_rng(0).normal(size=(65, 8)).astype(np.float32), np.arange(65) % 4
    found = []
    for target, level in RUNS:
        tn.seed(9)
        model = net()
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        specs = [tn.spec("B", 8), tn.spec("B", dtype="i64")]
        step = tn.train_step(model, F.cross_entropy, optimizer, specs, target=target, level=level)
        found.append([float(step(x, y)) for _ in range(10)])
    for losses in found[1:]:
        np.testing.assert_allclose(losses, found[0], rtol=1e-5)
