"""Autotuning on a GPU: every question has times, and what is chosen computes the same."""

from __future__ import annotations

import numpy as np

import tenon as tn


def test_a_model_is_tuned(tmp_path) -> None:
    tn.seed(0)
    model = tn.nn.Sequential(
        tn.nn.Conv2d(8, 32, 3, padding=1), tn.nn.ReLU(), tn.nn.Flatten(), tn.nn.Linear(32 * 64, 256)
    ).eval()
    x = np.random.default_rng(0).standard_normal((32, 8, 8, 8)).astype(np.float32)
    expected = tn.compile(model, tn.spec("B", 8, 8, 8), target="cuda")(x)
    with tn.config(cache=tmp_path / "cache"):
        exe = tn.compile(model, tn.spec("B", 8, 8, 8), target="cuda", autotune=True)
        first = exe(x)
        again = tn.compile(model, tn.spec("B", 8, 8, 8), target="cuda", autotune=True)
        np.testing.assert_array_equal(again(x), first)
    np.testing.assert_allclose(first, expected, rtol=1e-4, atol=1e-4)
    findings = [finding for tuned in exe.tuning.tuned for finding in tuned.findings]
    assert {f.question for f in findings} >= {"tile"}
    assert all(0 < seconds < 1 for f in findings for seconds in f.seconds if seconds != float("inf"))
    assert again.tuning.measured == 0 and again.tuning.tuned == exe.tuning.tuned
