"""Users' kernels on the GPU: a thread for each part, or one for all."""

from __future__ import annotations

import numpy as np
import pytest

import tenon as tn
from frontend import functional as F


def cubes(x):
    return x**3


def cubes_kernel(x, out, lo, hi):
    for i in range(lo, hi):
        for j in range(x.shape[1]):
            out[i, j] = x[i, j] ** 3


def totals(x, *, scale=1.0):
    return np.cumsum(x * scale).astype(x.dtype)


def totals_kernel(x, out, scale):
    total = 0.0
    for i in range(x.size):
        total += x[i] * scale
        out[i] = total


@pytest.mark.parametrize("rows", [1, 300])
def test_parts_have_a_thread_each(rows):
    op = tn.custom_op("gpu_cubes", cubes, kernel=cubes_kernel)
    exe = tn.compile(lambda x: op(x) + 1, tn.spec("B", 3), target="cuda")
    x = np.random.default_rng(0).standard_normal((rows, 3)).astype("f4")
    np.testing.assert_allclose(exe(x), cubes(x) + 1, rtol=1e-5)


def test_what_has_no_parts_is_run_by_one_thread():
    op = tn.custom_op("gpu_totals", totals, kernel=totals_kernel)
    exe = tn.compile(lambda x: op(x, scale=0.5), tn.spec("N"), target="cuda")
    x = np.arange(9, dtype="f4")
    np.testing.assert_allclose(exe(x), totals(x, scale=0.5), rtol=1e-6)


@pytest.mark.parametrize("labels", [1, 40])
def test_a_team_shares_an_example_of_ctc(labels):
    """Some have more threads than states, and the second example has fewer steps and labels than there are."""
    rng = np.random.default_rng(0)
    steps, batch, classes = 6 + labels, 2, 5
    x = rng.standard_normal((steps, batch, classes)).astype("f4")
    targets = rng.integers(1, classes, (batch, labels))
    lengths = np.array([steps, steps - 2]), np.array([labels, labels - 1])

    def loss(x, targets, inputs, lengths):
        return F.ctc_loss(x.log_softmax(-1), targets, inputs, lengths, reduction="sum")

    specs = [tn.spec(*x.shape), tn.spec(batch, "S", dtype="i64"), *[tn.spec(batch, dtype="i64")] * 2]
    found, expected = (
        tn.compile(tn.value_and_grad(loss), *specs, target=target)(x, targets, *lengths)
        for target in ("cuda", "reference")
    )
    np.testing.assert_allclose(found[0], expected[0], 1e-5)
    np.testing.assert_allclose(found[1], expected[1], 1e-4, 1e-5)
