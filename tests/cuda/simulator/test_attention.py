"""Attention's kernels beside the reference: ragged lengths and features, masks, offsets, shared keys, dropout."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cuda_attention import attention
from cuda_harness import check, compare, reference, simulate

from engine.errors import BoundsError
from runtime.cuda.lower import lower

TOLERANCES = {"bf16": 2e-2, "f16": 3e-3, "f32": 2e-6, "f64": 1e-12}
"""By the dtype of the operands, to which weights are rounded too."""


def checked(*shape, dtype="bf16", order=3, tolerance=None, **options):
    case = attention(*shape, dtype=dtype, **options)
    return case, check(replace(case, tolerance=tolerance or TOLERANCES[dtype]), (order,))


def mask(*shape, seed=0):
    return np.random.default_rng(seed).random(shape) < 0.7


BACKWARD = pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])


@pytest.mark.slow
@BACKWARD
@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32", "f64"])
def test_lengths_and_features_may_be_anything(dtype, backward):
    checked(1, 1, 20, 70 if dtype == "bf16" else 30, 20, 10, dtype=dtype, backward=backward)
    checked(1, 1, 10, 20, 7, 9, dtype=dtype, backward=backward)


@pytest.mark.parametrize(
    "shape, dtype",
    [((1, 1, 20, 40, 8, 8), "bf16"), ((1, 1, 3, 40, 8, 8), "f64"), ((1, 1, 1, 300, 8, 8), "bf16")],
    ids=["tiles", "rows", "parts"],
)
def test_a_query_that_sees_nothing_may_give_nan(shape, dtype):
    seen = mask(1, 1, *shape[2:4])
    seen[0, 0, -1] = False
    checked(*shape, dtype=dtype, given="mask", mask=seen, empty=float("nan"))


@pytest.mark.slow
@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_order_of_warps_does_not_matter(order):
    checked(1, 1, 70, 140, order=order)
    checked(1, 1, 20, 70, order=order, backward=True)


@pytest.mark.slow
def test_a_warp_may_have_more_than_16_rows():
    checked(1, 1, 140, 70, 20, 10, causal=True, given="offset", offset=np.array([-30]))


@pytest.mark.slow
@BACKWARD
@pytest.mark.parametrize("dtype", ["bf16", "f64"])
def test_a_query_sees_keys_up_to_its_own_position(dtype, backward):
    checked(2, 1, 20, 35, dtype=dtype, backward=backward, causal=True, given="offset", offset=np.array([15, 3]))
    checked(1, 1, 70 if dtype == "bf16" else 40, 70, 8, 8, dtype=dtype, backward=backward, causal=True)


@pytest.mark.slow
@BACKWARD
@pytest.mark.parametrize("dtype", ["bf16", "f32", "f64"])
def test_heads_share_keys(dtype, backward):
    checked(1, 4, 18, 18, 8, 8, dtype=dtype, backward=backward, ratio=2, by_position=True, causal=True)


@pytest.mark.slow
@BACKWARD
@pytest.mark.parametrize("dtype", ["bf16", "f64"])
def test_masks_hide_keys_or_add_to_scores(dtype, backward):
    seen = mask(1, 2, 20, 30)
    seen[0, 1, 3] = False  # a query that sees nothing
    checked(1, 2, 20, 30, dtype=dtype, backward=backward, given="mask", mask=seen)
    added = np.where(mask(2, 1, 1, 30), 1.5, -np.inf)
    checked(2, 1, 20, 30, dtype=dtype, backward=backward, given="mask", mask=added)


@pytest.mark.slow
@BACKWARD
@pytest.mark.parametrize("dtype", ["bf16", "f64"])
def test_dropout_leaves_out_the_weights_that_its_counter_says(dtype, backward):
    checked(1, 2, 20, 30, 8, 8, dtype=dtype, backward=backward, given="seed step", dropout=0.4)


def test_scores_may_be_scaled_by_nothing_or_less():
    for scale in (0.0, -0.5):
        checked(1, 1, 20, 30, scale=scale)


@BACKWARD
def test_a_key_beyond_all_queries_takes_no_gradient(backward):
    checked(1, 1, 5, 130, causal=True, backward=backward)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bf16", "f32"])
def test_one_query_reads_a_long_cache_in_parts(dtype):
    checked(2, 4, 1, 300, 8, 24, dtype=dtype, ratio=2, causal=True, given="offset", offset=np.array([270, 17]))
    checked(1, 3, 1, 30, dtype=dtype, given="mask", mask=mask(1, 3, 1, 30))
    checked(1, 2, 1, 30, dtype=dtype, given="seed step", dropout=0.4)


@pytest.mark.slow
def test_float32_may_be_multiplied_as_tf32():
    checked(1, 1, 20, 30, dtype="f32", products="high", tolerance=2e-3)
    with pytest.raises(AssertionError):
        checked(1, 1, 20, 30, dtype="f32", products="high")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "features", "backward"), [("bf16", 64, False), ("bf16", 64, True), ("f32", 64, False), ("f32", 16, True)]
)
def test_fragments_meet_in_no_bank(dtype, features, backward):
    """Nor do copies, where a row has the eight chunks that fill all banks."""
    case, counted = checked(1, 1, 20, 20, features, features, dtype=dtype, backward=backward)
    for kernel, conflicts in zip(lower(case.spec).kernels, counted, strict=True):
        lines = kernel.source.splitlines()
        met = [lines[i - 1] for i, cycles in conflicts.extra.items() if cycles]
        assert sum(conflicts.accesses.values()) > 0
        assert all(features < 64 and "cp_async" in line for line in met)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("cp_async_wait(0)\n        cuda.syncthreads()", "cp_async_wait(0)"),  # a barrier
        ("cp_async_wait(0)", "pass"),
        ("cp_async_wait(1)", "pass"),
        ("(1 - stage) * ", "stage * "),
        ("inside = begin + r < limit", "inside = begin + r <= limit"),
        ("inside = first + r < queries", "inside = first + r <= queries"),
        ("other < keys", "other <= keys"),
    ],
)
def test_planted_faults_are_found(right, wrong):
    case = replace(attention(1, 1, 20, 70, 8, 8, dtype="f16"), tolerance=TOLERANCES["f16"])
    lowered = lower(case.spec)
    (kernel,) = lowered.kernels
    assert right in kernel.source
    broken = replace(lowered, kernels=(replace(kernel, source=kernel.source.replace(right, wrong)),))
    expected, arrays = reference(case), {name: a.copy() for name, a in case.arrays.items()}
    with pytest.raises((AssertionError, BoundsError)):
        simulate(broken, arrays, case.values, 2)
        compare(case, arrays, expected)
