"""NaN and infinity pass through models as in NumPy and PyTorch: nothing hides them, and other rows do not see them."""

from __future__ import annotations

import numpy as np
import oracle_cases
import pytest

import tenon as tn
from tenon import F, nn, optim

IMAGE = tn.spec("B", 1, 28, 28)
SPOILT = {3: np.nan, 5: np.inf, 6: -np.inf}
"""The rows of the batch that hold one such pixel."""


def spoilt_images() -> np.ndarray:
    x, _ = oracle_cases.batches("cnn")
    images = x[0].copy()
    for row, value in SPOILT.items():
        images[row, 0, 11, 12 + row] = value
    return images


def cnn() -> nn.Module:
    model = oracle_cases.cnn(nn)
    model.load_state_dict(oracle_cases.weights("cnn"))
    return model


@pytest.fixture(scope="module")
def logits() -> np.ndarray:
    return tn.compile(cnn().eval(), IMAGE)(spoilt_images())


@pytest.mark.slow
def test_the_cnn_on_the_reference_agrees(logits):
    expected = tn.compile(cnn().eval(), IMAGE, target="reference")(spoilt_images())
    assert_alike(logits, expected)


@pytest.mark.slow
def test_the_cnn_in_pytorch_agrees(logits):
    torch = pytest.importorskip("torch")
    import pytorch_oracle

    with torch.no_grad():
        expected = pytorch_oracle.model("cnn").eval()(torch.from_numpy(spoilt_images())).numpy()
    assert_alike(logits, expected)


def assert_alike(found: np.ndarray, expected: np.ndarray) -> None:
    """Non-finite where the other is, and close elsewhere."""
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert not np.isfinite(found[list(SPOILT)]).any()
    assert np.isfinite(np.delete(found, list(SPOILT), axis=0)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_training_on_it_spoils_the_weights_as_in_pytorch(value):
    torch = pytest.importorskip("torch")

    def small(nn):
        return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))

    theirs, ours = small(torch.nn), small(nn)
    ours.load_state_dict(theirs.state_dict())
    specs = [tn.spec("B", 4), tn.spec("B", dtype="i64")]
    step = tn.train_step(ours, F.cross_entropy, optim.SGD(ours.parameters(), lr=0.1), specs)
    x, y = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32), np.arange(5) % 3
    x[2, 1] = value
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    loss = torch.nn.functional.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(y))
    loss.backward()
    optimizer.step()
    np.testing.assert_allclose(step(x, y), loss.item(), rtol=1e-5)
    for name, tensor in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name], tensor.numpy(), rtol=1e-5, atol=1e-6)


VALUES = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 3e38, -3e38, 1e-40, 1.0], np.float32)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (F.relu, lambda x: np.maximum(x, 0)),
        (lambda x: F.maximum(x, 0.5), lambda x: np.maximum(x, np.float32(0.5))),
        (F.sigmoid, lambda x: 1 / (1 + np.exp(-x.astype(np.float64)))),
        (F.tanh, np.tanh),
        (F.exp, np.exp),
        (F.log, np.log),
        (F.sqrt, np.sqrt),
        (lambda x: x * 0, lambda x: x * np.float32(0)),
        (lambda x: x - x, lambda x: x - x),
        (lambda x: x / x, lambda x: x / x),
        (lambda x: x + x, lambda x: x + x),
        (lambda x: x == x, lambda x: x == x),
        (lambda x: x > 0, lambda x: x > 0),
    ],
    ids=["relu", "maximum", "sigmoid", "tanh", "exp", "log", "sqrt", "* 0", "-", "/", "+", "==", ">"],
)
def test_elementwise_as_in_numpy(function, expected):
    found = tn.compile(function, tn.spec("N"))(VALUES)
    with np.errstate(all="ignore"):
        wanted = expected(VALUES)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-45)


def test_reductions_and_softmax_as_in_numpy():
    rows = np.stack([np.roll(VALUES, i) for i in range(len(VALUES))])
    rows[0] = 1
    rows[1, rows[1] != rows[1]] = 0  # infinities alone
    exe = tn.compile(lambda x: (x.sum(1), x.amax(1), x.amin(1), x.mean(1), F.softmax(x, 1)), tn.spec("N", len(VALUES)))
    total, high, low, mean, soft = exe(rows)
    with np.errstate(all="ignore"):
        shifted = np.exp(rows - rows.max(1, keepdims=True))
        expected = rows.sum(1), rows.max(1), rows.min(1), rows.mean(1), shifted / shifted.sum(1, keepdims=True)
    for found, wanted in zip((total, high, low, mean, soft), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
