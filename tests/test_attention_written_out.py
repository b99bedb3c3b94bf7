"""Attention that is written out becomes the op, with the results of what was written; and where it must not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import tenon as tn
from tenon import F, nn

RNG = np.random.default_rng(0)
LENGTH, KEYS = 70, 130
INFINITY = float("inf")


def drawn(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def heads(*lead: int, keys: int = KEYS) -> tuple[np.ndarray, ...]:
    return drawn(*lead, LENGTH, 16), drawn(*lead, keys, 16), drawn(*lead, keys, 24)


def below(q, k):
    return tn.tril(tn.ones(q.shape[-2], k.shape[-2])) != 0


def plain(q, k, v):
    return F.softmax(q @ k.transpose(-2, -1) / 4, -1) @ v


def scaled_before(q, k, v):
    return F.softmax((q * 0.25) @ k.mT, dim=-1) @ v


def masked(q, k, v, hidden, fill=-INFINITY):
    return F.softmax((q @ k.mT * 0.25).masked_fill(hidden, fill), -1) @ v


def added(q, k, v, bias):
    return F.softmax(q @ k.mT * 0.25 + bias, -1) @ v


def causal(q, k, v, fill=-INFINITY):
    return masked(q, k, v, ~below(q, k), fill)


def causal_added(q, k, v):
    return added(q, k, v, tn.triu(tn.full((q.shape[-2], k.shape[-2]), -INFINITY), 1))


def causal_and_padded(q, k, v, hidden):
    return F.softmax(tn.where(below(q, k) & ~hidden, q @ k.mT * 0.25, -1e9), -1) @ v


HIDDEN = RNG.random((2, 3, LENGTH, KEYS)) < 0.3
HIDDEN[0, 1, 5] = True  # a query that sees nothing
PADDING = np.arange(KEYS) >= np.array([130, 61])[:, None, None, None]

CASES: dict[str, tuple[Callable, tuple[np.ndarray, ...], str]] = {
    "plain": (plain, heads(2, 3), "scale=0.25"),
    "three axes": (plain, heads(2), "scale=0.25"),
    "matrices": (plain, heads(), "scale=0.25"),
    "scaled before": (scaled_before, heads(2, 3), "scale=1.0"),
    "minus infinity": (masked, (*heads(2, 3), HIDDEN), 'given="mask"'),
    "a finite fill": (lambda *x: masked(*x, fill=-1e9), (*heads(2, 3), HIDDEN), 'given="mask"'),
    "padding": (masked, (*heads(2, 3), PADDING), 'given="mask"'),
    "added": (added, (*heads(2, 3), drawn(LENGTH, KEYS)), 'given="mask"'),
    "causal": (causal, heads(2, 3), "causal=True"),
    "causal by a finite fill": (lambda *x: causal(*x, fill=-1e9), heads(3), "causal=True"),
    "causal, added": (causal_added, heads(2, 3), "causal=True"),
    "causal and padded": (causal_and_padded, (*heads(2, 3), PADDING), "causal=True"),
}

QUICK = {"plain", "padding", "causal"}
"""Of the others the slow tests look at results."""

SEEN: dict[str, Callable] = {
    "a triangle of ones": lambda n: tn.tril(tn.ones(n, n)) != 0,
    "a triangle of bools": lambda n: tn.tril(tn.ones(n, n, dtype="bool")),
    "not what is above": lambda n: ~tn.triu(tn.ones(n, n, dtype="bool"), 1),
    "a view with more axes": lambda n: tn.tril(tn.ones(n, n)).view(1, 1, n, n) == 1,
    "positions": lambda n: tn.arange(n)[:, None] >= tn.arange(n),
    "positions the other way": lambda n: tn.arange(n) - tn.arange(n).view(1, 1, n, 1) < 1,
}
NOT_CAUSAL: dict[str, Callable] = {
    "without itself": lambda n: tn.tril(tn.ones(n, n), -1) != 0,
    "one more": lambda n: tn.arange(n)[:, None] >= tn.arange(n) - 1,
    "later keys": lambda n: tn.arange(n)[:, None] <= tn.arange(n),
    "twice as far": lambda n: tn.arange(n)[:, None] * 2 >= tn.arange(n),
    "a band": lambda n: tn.tril(tn.triu(tn.ones(n, n), -4)) != 0,
    "other axes": lambda n: (tn.tril(tn.ones(n, n)) != 0).view(n, 1, n, 1)[0],
    "sums that turn over": lambda n: tn.arange(n, dtype="i8")[:, None] - tn.arange(n, dtype="i8") >= 0,
}


def specs(arrays):
    return [tn.spec(*a.shape, dtype=str(a.dtype)) for a in arrays]


def nodes(exe) -> list[str]:
    """The lines of the simplified graph that call the op."""
    return [line for line in str(dict(exe.stages)["simplify"]).splitlines() if " = attention(" in line]


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in CASES])
def test_written_out_it_is_the_op_with_the_same_results_and_gradients(name):
    function, arrays, told = CASES[name]

    def slopes(*x):
        return tn.grad(lambda q, k, v: (function(q, k, v, *x[3:]) ** 2).nansum(), argnums=(0, 1, 2))(*x[:3])

    exe = tn.compile(function, *specs(arrays))
    (line,) = nodes(exe)
    assert told in line and ("given" in line) == ("given" in told or len(arrays) > 3)
    np.testing.assert_allclose(
        exe(*arrays), tn.compile(function, *specs(arrays), level=0)(*arrays), rtol=1e-4, atol=2e-6
    )
    if name != "minus infinity":  # where a row is NaN
        trained = tn.compile(slopes, *specs(arrays))
        assert len(nodes(trained)) == 1
        for found, expected in zip(trained(*arrays), tn.compile(slopes, *specs(arrays), level=0)(*arrays), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("name", [*SEEN, *NOT_CAUSAL])
def test_a_causal_mask_is_known_at_any_length(name):
    seen = (SEEN | NOT_CAUSAL)[name]

    def attend(q, k, v):
        return F.softmax((q @ k.mT * 0.25).masked_fill(~seen(q.shape[-2]), -INFINITY), -1) @ v

    qkv = [tn.spec("B", 2, "T", 16)] * 3
    exe = tn.compile(attend, *qkv)
    (line,) = nodes(exe)
    assert ("causal=True" in line, "given" in line) == ((True, False) if name in SEEN else (False, True))
    q, k, v = (drawn(1, 2, 130, 16) for _ in range(3))
    np.testing.assert_allclose(exe(q, k, v), tn.compile(attend, *qkv, level=0)(q, k, v), rtol=1e-4, atol=2e-6)


def test_a_query_that_sees_nothing_gives_what_was_written():
    q, k, v = heads(2, 3)
    assert np.isnan(tn.compile(masked, *specs((q, k, v, HIDDEN)))(q, k, v, HIDDEN)[0, 1, 5]).all()
    finite = tn.compile(lambda *x: masked(*x, fill=-1e9), *specs((q, k, v, HIDDEN)))(q, k, v, HIDDEN)
    np.testing.assert_allclose(finite[0, 1, 5], v[0, 1].mean(0), rtol=1e-4, atol=1e-6)


def test_a_layer_whose_weights_nobody_reads_makes_no_matrix_of_them():
    layer = nn.MultiheadAttention(32, 4, batch_first=True)
    x, hidden = tn.spec("B", "L", 32), tn.spec("B", "L", dtype="bool")
    dropped = tn.compile(lambda x, hidden: layer(x, x, x, key_padding_mask=hidden)[0], x, hidden)
    kept = tn.compile(lambda x, hidden: layer(x, x, x, key_padding_mask=hidden), x, hidden)
    assert len(nodes(dropped)) == 1 and not nodes(kept)
    values, padding = drawn(2, 9, 32), np.zeros((2, 9), bool)
    padding[0, 4:] = True
    np.testing.assert_allclose(dropped(values, padding), kept(values, padding)[0], rtol=1e-4, atol=1e-6)
    assert dropped.memory(B=4, L=1024).arena < kept.memory(B=4, L=1024).arena / 4


def test_under_mixed_precision_it_is_found_before_anything_is_rounded():
    exe = tn.compile(causal, *specs(heads(2, 3)), precision="bf16")
    assert len(nodes(exe)) == 1 and "bf16[2, 3, 130, 16] = cast(k" in str(dict(exe.stages)["precision"])


def two_weights(q, k, v):
    weights = F.softmax(q @ k.mT, -1)
    return weights @ v, weights


def scores_as_well(q, k, v):
    scores = q @ k.mT
    return F.softmax(scores, -1) @ v, scores


LEFT: dict[str, tuple[Callable, tuple[np.ndarray, ...]]] = {
    "the weights are read": (two_weights, heads(2, 3)),
    "the scores are read": (scores_as_well, heads(2, 3)),
    "few keys": (plain, heads(2, 3, keys=20)),
    "another axis": (lambda q, k, v: F.softmax(q @ k.mT, -2) @ v, heads(2, 3)),
    "a fill that is a score": (lambda *x: masked(*x, fill=-5.0), (*heads(2, 3), HIDDEN)),
    "a fill over infinity": (lambda q, k, v, m: F.softmax((q @ k.mT + tn.where(m, 0.0, -INFINITY))
                             .masked_fill(m, -1e9), -1) @ v, (*heads(2, 3), HIDDEN)),
    "a shared head": (plain, (*heads(2, 3)[:2], drawn(KEYS, 24))),
    "an exponential": (lambda q, k, v: F.softmax((q @ k.mT).tanh(), -1) @ v, heads(2, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT)
def test_what_is_no_attention_or_is_read_besides_is_left(name):
    function, arrays = LEFT[name]
    assert not nodes(tn.compile(function, *specs(arrays)))


def test_gradients_want_more_keys_before_the_matrix_is_left_out():
    arrays = heads(2, 3, keys=64)
    assert nodes(tn.compile(plain, *specs(arrays)))
    assert not nodes(tn.compile(tn.grad(lambda *x: plain(*x).sum()), *specs(arrays)))


def test_a_bias_that_is_trained_is_left_for_its_gradient_is_a_matrix():
    arrays = (*heads(2, 3), drawn(LENGTH, KEYS))
    assert not nodes(tn.compile(tn.grad(lambda *x: added(*x).sum(), argnums=3), *specs(arrays)))
