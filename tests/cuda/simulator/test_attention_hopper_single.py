"""Attention of float32 by TMA and wgmma in the simulator beside the reference: as exact as float32 or as tf32; what is
turned over and split; and with faults planted."""

from __future__ import annotations

import numpy as np
import pytest
from hopper_attention import assert_found, checked, lowered, mask

PRODUCTS = pytest.mark.parametrize("products", ["highest", "high"])
BOTH_WAYS = pytest.mark.parametrize(
    ("products", "backward"),
    [("highest", False), ("high", False), ("highest", True)],
    ids=["exact", "tf32", "backward"],
)


@pytest.mark.slow
@PRODUCTS
@pytest.mark.parametrize(("features", "width"), [(32, 32), (64, 64), (24, 40), (128, 72)])
def test_lengths_and_features_may_be_ragged(features, width, products):
    checked(1, 1, 70, 140, features, width, dtype="f32", products=products, scale=features**-0.5)


@pytest.mark.slow
@pytest.mark.parametrize(("features", "width"), [(16, 40), (64, 64), (128, 72)])
def test_gradients_of_ragged_lengths_and_features(features, width):
    """Of few features there are two tiles under way, of many one, and keys and values have kernels of their own."""
    sizes = (1, 1, 66, 70, features, width)
    checked(*sizes, dtype="f32", scale=features**-0.5, backward=True)


@pytest.mark.slow
@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_order_of_warps_does_not_matter(order):
    checked(1, 1, 66, 140, 40, 16, dtype="f32", order=order, scale=0.15)
    checked(1, 1, 66, 40, 72, 16, dtype="f32", order=order, scale=0.09)
    checked(1, 1, 66, 70, 16, 16, dtype="f32", order=order, backward=True)


@pytest.mark.slow
@BOTH_WAYS
def test_what_a_query_sees(products, backward):
    options = {"dtype": "f32", "products": products, "backward": backward}
    checked(2, 1, 70, 140, causal=True, given="offset", offset=np.array([70, 3]), **options)
    checked(1, 1, 70, 140, causal=True, given="offset", offset=np.array([-100]), **options)
    checked(1, 2, 70, 130, ratio=2, by_position=True, causal=True, **options)
    seen = mask(1, 2, 70, 80)
    seen[0, 1, 3] = False  # a query that sees nothing
    checked(1, 2, 70, 80, given="mask", mask=seen, **options)
    checked(2, 1, 70, 80, given="mask", mask=np.where(mask(2, 1, 1, 80), 1.5, -np.inf), **options)
    checked(1, 2, 70, 70, given="seed step", dropout=0.4, **options)


@pytest.mark.slow
@BOTH_WAYS
def test_no_thread_waits_for_a_bank(products, backward):
    for counted in checked(1, 1, 66, 70, 16, 40, dtype="f32", products=products, backward=backward):
        assert counted.extra and not sum(counted.extra.values())


FAULTS = [
    ("mbarrier_wait(full_q, own_parity)", "pass"),  # a wait
    ("mbarrier_wait(full_k + 8 * slot, parity)\n                        came", "came"),
    ("mbarrier_wait(full_v + 8 * slot, parity)\n                        came", "came"),
    ("mbarrier_wait(ready_k + 8 * slot, parity)", "pass"),
    ("mbarrier_wait(ready_v + 8 * slot, parity)", "pass"),
    ("mbarrier_wait(empty_q, own_parity)", "pass"),
    ("mbarrier_wait(empty_k + 8 * slot, parity)", "pass"),
    ("mbarrier_wait(empty_v + 8 * slot, parity)", "pass"),
    ("mbarrier_wait(ready_k + 8 * slot, parity)", "mbarrier_wait(ready_k + 8 * slot, parity ^ 1)"),
    ("wgmma_wait_for(s, 64, 1)", "wgmma_wait_for(s, 64, 2)"),
    ("wgmma_wait_for(result, 16, 0)", "wgmma_wait_for(result, 16, 1)"),
    ("wgmma_fence()", "pass"),
    ("fence_proxy_async()", "pass"),
    ("cuda.syncwarp()\n                        if lane == 0", "if lane == 0"),
    ("cuda.syncwarp()\n                            target", "target"),  # a box is written before it has been read
    ("mbarrier_init(ready_k + 8 * i, 3)", "mbarrier_init(ready_k + 8 * i, 2)"),
    ("(across ^ odd) * 16", "across * 16"),  # a place
    ("2 * eight + odd ^ 4 * (across & 1)", "2 * eight + odd"),
    ("target ^ 16 * i", "target ^ 0 * i"),
    ("lower[e] = ", "lower[e] = 0 * "),  # a lower part
    ("q_low[4 * k + 1] = ", "q_low[4 * k + 1] = 0 * "),
    ("words_low[4 * n + 2] = ", "words_low[4 * n + 2] = 0 * "),
    ("words[4 * n + 1] = upper", "words[4 * n + 2] = upper"),
    ("left, right + 512, 1)", "left, right + 510, 1)"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("right", "wrong"), FAULTS)
def test_planted_faults_are_found(right: str, wrong: str):
    """In two units of work, one after the other, of three tiles of keys each."""
    assert_found(lowered(1, 2, 66, 140, 16, 16, dtype="f32"), 0, right, wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong"),
    [("q_row ^ (k & 3) * 32", "q_row ^ (k & 1) * 32"), ("= upper", "= 0 * upper")],
)
def test_planted_faults_in_wide_rows_are_found(right: str, wrong: str):
    """Whose parts registers hold for a few steps alone."""
    assert_found(lowered(1, 1, 66, 40, 96, 16, dtype="f32", scale=0.1), 0, right, wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "right", "wrong"),
    [
        (0, "mbarrier_wait(ready_k + 8 * slot, parity)", "pass"),
        (0, "mbarrier_wait(ready_v + 8 * slot, parity)", "pass"),
        (0, "fence_proxy_async()", "pass"),
        (0, "wgmma_wait_for(dq, 16, 0)", "wgmma_wait_for(dq, 16, 1)"),
        (0, "target = box + 8192", "target = box + 4096"),
        (1, "mbarrier_wait(ready_q + 8 * slot, parity)", "pass"),
        (1, "mbarrier_wait(ready_g + 8 * slot, parity)", "pass"),
        (1, "mbarrier_wait(empty_q + 8 * slot, parity)", "pass"),
        (1, "slopes_low[4 * n + 1] = ", "slopes_low[4 * n + 1] = 0 * "),
        (1, "words_low[4 * n + 1] = ", "words_low[4 * n + 1] = 0 * "),
    ],
)
def test_planted_faults_of_the_gradient_are_found(number: int, right: str, wrong: str):
    """Both kernels have three tiles or more."""
    assert_found(lowered(1, 1, 66, 70, 16, 16, dtype="f32", backward=True), number, right, wrong)
