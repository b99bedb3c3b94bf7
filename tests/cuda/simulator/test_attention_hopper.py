"""Attention by TMA and wgmma in the simulator beside the reference: ragged lengths and features, masks, shared keys,
more work than blocks. And its kernels with faults planted into them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cuda_attention import attention
from hopper_attention import assert_found, checked, lowered, mask

from engine import dims
from runtime.cuda.lower import lower

BACKWARD = pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])


@pytest.mark.slow
@BACKWARD
@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_lengths_and_features_may_be_ragged(dtype, backward):
    checked(1, 1, 70, 140, 64, 64, dtype=dtype, backward=backward)
    checked(1, 1, 65, 90, 24, 40, dtype=dtype, backward=backward)
    checked(1, 1, 65, 130, 128, 72, dtype=dtype, backward=backward)


@pytest.mark.slow
@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_order_of_warps_does_not_matter(order):
    checked(1, 1, 140, 270, 64, 64, order=order)
    checked(1, 2, 70, 140, 16, 16, order=order, backward=True, ratio=2)


@pytest.mark.slow
def test_features_may_be_as_many_as_fit_registers():
    checked(1, 1, 65, 100, 256, 256)


@pytest.mark.slow
@BACKWARD
def test_a_query_sees_keys_up_to_its_own_position(backward):
    checked(2, 1, 70, 140, 16, 16, causal=True, given="offset", offset=np.array([70, 3]), backward=backward)
    checked(1, 1, 150, 170, 16, 16, causal=True, backward=backward)


@pytest.mark.slow
@BACKWARD
def test_queries_that_see_no_key_have_nothing(backward):
    checked(1, 1, 260, 70, 16, 16, causal=True, given="offset", offset=np.array([-150]), backward=backward)
    checked(1, 1, 70, 140, 16, 16, causal=True, given="offset", offset=np.array([-100]), backward=backward)


@pytest.mark.slow
@BACKWARD
def test_heads_share_keys(backward):
    checked(2, 4, 70, 130, 16, 16, ratio=2, by_position=True, causal=True, backward=backward)


@pytest.mark.slow
@BACKWARD
def test_masks_hide_keys_or_add_to_scores(backward):
    seen = mask(1, 2, 70, 80)
    seen[0, 1, 3] = False  # a query that sees nothing
    checked(1, 2, 70, 80, given="mask", mask=seen, backward=backward)
    checked(2, 1, 70, 80, given="mask", mask=np.where(mask(2, 1, 1, 80), 1.5, -np.inf), backward=backward)


@pytest.mark.slow
@BACKWARD
def test_dropout_leaves_out_the_weights_that_its_counter_says(backward):
    checked(1, 2, 70, 70, 16, 16, given="seed step", dropout=0.4, backward=backward)


def test_scores_may_be_scaled_by_nothing_or_less():
    for scale in (0.0, -0.5):
        checked(1, 1, 70, 30, scale=scale)


@BACKWARD
def test_no_thread_waits_for_a_bank(backward):
    for counted in checked(1, 1, 70, 70, backward=backward):
        assert not counted.extra


def test_hopper_is_chosen_where_it_can():
    def kernels(*shape: int, **options: Any) -> list[str]:
        case = attention(*shape, **{"dtype": "bf16", **options})
        return [k.name for k in lower(case.spec, architecture="sm_90a").kernels]

    forward, before = ["attention_hopper_forward_kernel"], ["attention_tiles_kernel"]
    assert kernels(1, 1, 65, 70) == forward
    assert kernels(1, 1, 64, 70) == before
    assert kernels(1, 1, 70, 70, 12, 16) == before  # rows that are not aligned
    assert kernels(1, 1, 70, 70, 128, 128, dtype="f32") == forward
    assert kernels(1, 1, 70, 70, 144, 128, dtype="f32") == before
    assert kernels(1, 1, 70, 70, dtype="f32", products="medium") == before
    assert kernels(1, 1, 70, 70, 256, 256, given="seed step", dropout=0.1) == before
    assert kernels(1, 1, 1, 70) == ["attention_parts_kernel", "attention_together_kernel"]
    backward = ["attention_backward_hopper_by_query_kernel", "attention_backward_hopper_by_key_kernel"]
    assert kernels(1, 1, 70, 70, backward=True) == backward
    assert kernels(1, 1, 70, 70, dtype="f32", backward=True) == backward
    assert "attention_backward_by_key_kernel" in kernels(1, 1, 70, 70, dtype="f32", products="high", backward=True)
    assert "attention_backward_by_key_kernel" in kernels(1, 1, 70, 40, backward=True)
    assert "attention_backward_by_key_dk_kernel" in kernels(1, 1, 70, 70, 256, 256, backward=True)
    n = dims.dim("N")
    case = attention(1, 1, 70, 70)
    symbolic = replace(case.spec, core=replace(case.spec.core, queries=n, keys=n))
    assert [k.name for k in lower(symbolic, architecture="sm_90a").kernels] == forward


FAULTS = [
    ("mbarrier_wait(full_q, own_parity)", "pass"),  # a wait
    ("mbarrier_wait(full_k + 8 * slot, parity)", "pass"),
    ("mbarrier_wait(full_v + 8 * last, last_parity)", "pass"),
    ("mbarrier_wait(empty_q, own_parity)", "pass"),
    ("mbarrier_wait(empty_k + 8 * slot, parity)", "pass"),
    ("mbarrier_wait(empty_v + 8 * slot, parity)", "pass"),
    ("mbarrier_wait(full_k + 8 * slot, parity)", "mbarrier_wait(full_k + 8 * slot, parity ^ 1)"),
    ("wgmma_wait_for(s, 128, 1)", "wgmma_wait_for(s, 128, 2)"),
    ("wgmma_wait_for(result, 16, 0)", "wgmma_wait_for(result, 16, 1)"),
    ("wgmma_fence()", "pass"),
    ("    cuda.syncthreads()", "    pass"),
    ("mbarrier_arrive(empty_q)", "pass"),
    ("mbarrier_arrive(empty_v + 8 * last)", "pass"),
    ("v_tile + last * 16384", "v_tile + slot * 16384"),  # a stage
    ("| k_tile + slot * 16384", "| k_tile + (1 - slot) * 16384"),
    ("begin, group, b, full_k", "begin + 1, group, b, full_k"),  # a place
]
EDGES = [("other < keys", "other <= keys"), ("if own < queries:", "if own <= queries:")]


@pytest.mark.slow
@pytest.mark.parametrize(("right", "wrong", "keys"), [(*f, 270) for f in FAULTS] + [(*e, 20) for e in EDGES])
def test_planted_faults_are_found(right: str, wrong: str, keys: int):
    """In two units of work, one after the other; 270 keys are three tiles."""
    assert_found(lowered(1, 2, 66, keys, 16, 16, dtype="f16"), 0, right, wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "right", "wrong"),
    [
        (0, "mbarrier_wait(full_g, own_parity)", "pass"),
        (0, "mbarrier_wait(full_v + 8 * slot, parity)", "pass"),
        (0, "wgmma_wait_for(s, 128, 1)", "wgmma_wait_for(s, 128, 2)"),
        (0, "wgmma_wait_for(dq, 16, 0)", "wgmma_wait_for(dq, 16, 1)"),
        (0, "mbarrier_wait(empty_q, own_parity)", "pass"),
        (0, "inside = own < queries", "inside = own < queries + 200"),
        (1, "mbarrier_wait(full_k, own_parity)", "pass"),
        (1, "mbarrier_wait(full_g + 8 * slot, parity)", "pass"),
        (1, "wgmma_wait_for(d, 64, 0)", "wgmma_wait_for(d, 64, 1)"),
        (1, "wgmma_wait_for(dv, 16, 0)", "wgmma_wait_for(dv, 16, 1)"),
        (1, "mbarrier_wait(empty_q + 8 * slot, parity)", "pass"),
        (1, "| g_tile + slot * 8192", "| g_tile + (1 - slot) * 8192"),
        (1, "if n * 8 + x < left:", "if n * 8 + x <= left:"),
    ],
)
def test_planted_faults_of_the_gradient_are_found(number: int, right: str, wrong: str):
    """Both kernels have two units of work, and each of these two tiles or more."""
    case = lowered(1, 1, 140, 140, 16, 16, dtype="f16", backward=True, causal=True)
    assert_found(case, number, right, wrong)
