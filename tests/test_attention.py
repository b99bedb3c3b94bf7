"""Attention as one op: rows that see nothing, dropout that repeats, memory, and what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

import tenon as tn
from engine.errors import DTypeError, ShapeError, TenonError
from tenon import F, nn

RNG = np.random.default_rng(0)
Q, K, V = (RNG.normal(size=(2, 4, 9, 8)).astype(np.float32) for _ in range(3))
HEADS = tn.spec("B", 4, "L", 8)


def gradients(loss):
    return tn.grad(loss, argnums=(0, 1, 2))


def test_a_query_that_sees_nothing_gives_zeros_and_takes_no_gradient():
    seen = np.ones((9, 9), bool)
    seen[3] = False

    def loss(q, k, v):
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=tn.tensor(seen))
        return (found * found).sum(), found

    exe = tn.compile(lambda q, k, v: loss(q, k, v)[1], HEADS, HEADS, HEADS)
    slopes = tn.compile(gradients(lambda q, k, v: loss(q, k, v)[0]), HEADS, HEADS, HEADS)
    out = exe(Q, K, V)
    assert not out[:, :, 3].any() and np.isfinite(out).all() and out[:, :, 4].all()
    dq, dk, dv = slopes(Q, K, V)
    assert not dq[:, :, 3].any() and all(np.isfinite(g).all() for g in (dq, dk, dv))


def test_the_gradient_drops_what_the_result_drops(monkeypatch):
    """With values of one, the result is how much a query keeps; its gradient by the values says from which keys."""

    def kept(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, dropout_p=0.4, is_causal=True)

    def step(q, k, v):
        return gradients(lambda *x: kept(*x).sum())(q, k, v)[2]

    found = []
    for threads in ("1", "2"):
        monkeypatch.setenv("TENON_THREADS", threads)
        for target, level in (("reference", 2), ("cpu", 0), ("cpu", 2), ("cpu", 3)):
            tn.seed(3)
            exe = tn.compile(step, HEADS, HEADS, HEADS, level=level, target=target)
            forward = tn.compile(kept, HEADS, HEADS, HEADS, level=level, target=target)
            dv = exe(Q, K, V)
            tn.seed(3)
            found.append((forward(Q, K, np.ones_like(V)), dv))
    for out, dv in found:
        np.testing.assert_allclose(out, found[0][0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(dv, found[0][1], rtol=1e-5, atol=1e-6)
        # What all queries keep is what all keys give.
        np.testing.assert_allclose(out[..., 0].sum(-1), dv[..., 0].sum(-1), rtol=1e-4)
    assert (np.abs(found[0][0] - 1) > 0.01).any()


def test_memory_grows_with_the_length_not_with_its_square():
    long = tn.spec(1, 8, "L", 64)
    exe = tn.compile(gradients(lambda q, k, v: F.scaled_dot_product_attention(q, k, v).sum()), long, long, long)
    short, double = (exe.memory(L=n) for n in (2048, 4096))
    assert double.arena <= 2.1 * short.arena and double.arena < 4096 * 4096 * 4
    assert double.scratch == short.scratch


def test_a_cache_is_read_as_far_as_it_is_filled():
    """With an offset, what lies behind the last query does not matter, NaN or not."""

    def attend(q, k, v, at):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, offset=at)

    cache = tn.spec(2, 4, 9, 8)
    exe = tn.compile(attend, tn.spec(2, 4, "L", 8), cache, cache, tn.spec(2, dtype="i64"))
    whole = tn.compile(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), cache, cache, cache)
    expected = whole(Q, K, V)
    k, v = K.copy(), V.copy()
    k[:, :, 6:] = v[:, :, 6:] = np.nan
    for first, last in ((5, 6), (2, 5)):
        found = exe(Q[:, :, first:last], k, v, np.array([first, first]))
        np.testing.assert_allclose(found, expected[:, :, first:last], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("error", "call", "words"),
    [
        (ShapeError, lambda: F.scaled_dot_product_attention(Q, K[..., :7], V), "differ in features"),
        (ShapeError, lambda: F.scaled_dot_product_attention(Q, K, V[:, :, :5]), "differ in length"),
        (ShapeError, lambda: F.scaled_dot_product_attention(Q, K[:, :3], V[:, :3], enable_gqa=True), "4 query heads"),
        (ShapeError, lambda: F.scaled_dot_product_attention(Q, K, V, np.ones((5, 9), bool)), "does not broadcast"),
        (DTypeError, lambda: F.scaled_dot_product_attention(Q, K, V, np.ones((9, 9), np.int64)), "a mask of bool"),
        (DTypeError, lambda: F.scaled_dot_product_attention(Q, K.astype(np.float64), V), "one dtype"),
        (TenonError, lambda: F.scaled_dot_product_attention(Q, K, V, dropout_p=1.5), "between 0 and 1, not 1.5"),
        (
            ShapeError,
            lambda: nn.MultiheadAttention(8, 2)(Q[0], Q[0], Q[0], attn_mask=np.ones((4, 3), bool)),
            "is .4, 4.",
        ),
        (TenonError, lambda: nn.MultiheadAttention(10, 4), "10 does not divide into 4 heads"),
    ],
)
def test_what_does_not_fit_is_said(error, call, words):
    with pytest.raises(error, match=words) as caught:
        call()
    assert "test_attention.py" in str(caught.value)
