"""Several programs over one model: each sees at once what another, or the user, has changed."""

from __future__ import annotations

import numpy as np
import pytest
from oracle_cases import small_cnn

import tenon as tn
from tenon import F, nn, optim

IMAGE, LABEL = tn.spec("B", 2, 10, 6), tn.spec("B", dtype="i64")


def batch(seed: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(seed).normal(size=(5, 2, 10, 6)).astype(np.float32)
    return x, np.arange(5) % 3


def test_weights_changed_from_anywhere_are_those_that_run():
    """Programs keep packed copies of weights; none may outlive the weights that it was made from."""
    model = small_cnn(nn)
    predict, reference = (tn.compile(model, IMAGE, target=target) for target in ("cpu", "reference"))
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    step = tn.train_step(model, F.cross_entropy, optimizer, [IMAGE, LABEL])
    other = tn.train_step(model, F.cross_entropy, optim.SGD(model.parameters(), lr=0.5), [IMAGE, LABEL])

    def assign():
        model[0].weight.data = 0.1 + model[0].weight.numpy()

    changes = [
        lambda: step(*batch(1)),
        lambda: model.load_state_dict({name: 2 * array for name, array in model.state_dict().items()}),
        lambda: step(*batch(2)),
        lambda: other(*batch(3)),
        lambda: step(*batch(4)),
        assign,
        lambda: nn.init.uniform_(model[4].weight, -1, 1),
        lambda: other(*batch(5)),
    ]
    x, y = batch(0)
    seen = [predict(x)]
    for change in changes:
        change()
        seen.append(predict(x))
        np.testing.assert_allclose(seen[-1], reference(x), rtol=1e-5, atol=1e-6)
        assert np.abs(seen[-1] - seen[-2]).max() > 1e-4
    logits = predict(x).astype(np.float64)
    expected = (np.log(np.exp(logits).sum(1)) - logits[np.arange(5), y]).mean()
    assert step(x, y) == pytest.approx(expected, rel=1e-5)
    assert {p.executable.compile_count for p in (step, other)} == {predict.compile_count} == {1}


def test_a_new_learning_rate_needs_no_new_program():
    model = small_cnn(nn)
    optimizer = optim.SGD(model.parameters(), lr=0.0)
    step = tn.train_step(model, F.cross_entropy, optimizer, [IMAGE, LABEL])
    x, y = batch(0)
    first = step(x, y)
    assert step(x, y) == first, "a rate of 0 changes nothing"
    optimizer.lr = 0.1
    step(x, y)
    assert step(x, y) < first
    assert step.executable.compile_count == 1


def test_training_resumes_bit_for_bit():
    def make():
        model = small_cnn(nn)
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        return model, optimizer, tn.train_step(model, F.cross_entropy, optimizer, [IMAGE, LABEL])

    model, optimizer, step = make()
    for seed in range(3):
        step(*batch(seed))
    resumed, other, second = make()
    resumed.load_state_dict(model.state_dict())
    other.load_state_dict(optimizer.state_dict())
    for seed in range(3, 6):
        assert step(*batch(seed)).tobytes() == second(*batch(seed)).tobytes()
    for a, b in zip(model.parameters(), resumed.parameters(), strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()
