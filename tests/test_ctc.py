"""ctc_loss: what cannot be right is an error before anything runs over memory, and dims may be symbolic."""

from __future__ import annotations

import numpy as np
import pytest

import tenon as tn
from engine.errors import DTypeError, IndexRangeError, ShapeError
from tenon import F

X = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
TARGETS, INPUTS, LENGTHS = np.array([[1, 2], [2, 0]]), np.array([4, 3]), np.array([2, 1])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((X, TARGETS + 2, INPUTS, LENGTHS), IndexRangeError, "index 3 is out of range: expected 0 <= index < 3"),
        ((X, TARGETS - 2, INPUTS, LENGTHS), IndexRangeError, "index -1 is out of range"),
        ((X, TARGETS, INPUTS + 1, LENGTHS), IndexRangeError, "index 5 is out of range: expected 0 <= index < 5"),
        ((X, TARGETS, INPUTS, LENGTHS + 1), IndexRangeError, "index 3 is out of range: expected 0 <= index < 3"),
        ((X, TARGETS * 1.0, INPUTS, LENGTHS), DTypeError, "integer class indices"),
        ((X[0, 0], TARGETS, INPUTS, LENGTHS), ShapeError, r"log_probs \(T, N, C\) or \(T, C\), not shape \(3,\)"),
        ((X, TARGETS[None], INPUTS, LENGTHS), ShapeError, r"targets \(N, S\) or all in one axis"),
        ((X, TARGETS, INPUTS[:1], LENGTHS), ShapeError, "input_lengths for 1 examples, log_probs of 2"),
        ((X, TARGETS, INPUTS[None], LENGTHS), ShapeError, r"input_lengths \(N\), one for each of 2 examples"),
    ],
)
def test_what_does_not_fit_is_named(arguments, error, words):
    with pytest.raises(error, match=words):
        F.ctc_loss(*map(tn.tensor, arguments))


@pytest.mark.slow
def test_sizes_may_be_symbolic_and_a_bad_call_changes_nothing():
    model = tn.nn.Linear(3, 3)
    optimizer = tn.optim.SGD(model.parameters(), lr=0.1)

    @tn.function(specs=[tn.spec("T", "N", 3), *(tn.spec(*s, dtype="i64") for s in (("N", "S"), ("N",), ("N",)))])
    def step(x, targets, input_lengths, target_lengths):
        loss = F.ctc_loss(model(x).log_softmax(-1), targets, input_lengths, target_lengths)
        optimizer.minimize(loss)
        return loss

    before = model.weight.numpy().copy()
    with pytest.raises(IndexRangeError):
        step(X, TARGETS, INPUTS, LENGTHS + 9)
    np.testing.assert_array_equal(model.weight.numpy(), before)
    losses = [float(step(X, TARGETS, INPUTS, LENGTHS)) for _ in range(20)]
    assert losses[-1] < losses[0]
    assert np.isfinite(step(X[:3, :1], TARGETS[:1, :1], INPUTS[1:], LENGTHS[1:]))
