"""Users' kernels on the GPU: a thread for each part, or one for all."""

from __future__ import annotations

import numpy as np
import pytest

import tenon as tn


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
