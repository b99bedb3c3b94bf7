"""`tn.flops` and `tn.memory`, and the counts that the ops' records give."""

from __future__ import annotations

import numpy as np
import pytest

import tenon as tn
from tenon import F, nn


def test_a_model_a_function_and_a_program_count_alike():
    model = nn.Linear(12, 5)
    expected = 2 * 7 * 12 * 5 + 7 * 5
    assert tn.flops(model, tn.spec("B", 12), B=7) == tn.flops(model, tn.spec(7, 12)) == expected
    assert tn.flops(lambda x: model(x), tn.spec("B", 12), B=7) == expected
    assert tn.flops(tn.compile(model, tn.spec("B", 12), target="reference"), B=7) == expected
    assert tn.flops(tn.function(lambda x: model(x), specs=[tn.spec("B", 12)], target="reference"), B=7) == expected


def test_gradients_count_too():
    def loss(x, w):
        return F.tanh(x @ w).sum()

    specs = tn.spec(4, 6), tn.spec(6, 8)
    product = 2 * 4 * 6 * 8
    forward = product + 2 * 4 * 8
    assert tn.flops(loss, *specs) == forward
    assert tn.flops(tn.grad(loss, argnums=(0, 1)), *specs) >= 3 * product  # one for each gradient, and the forward


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (lambda: nn.Conv2d(4, 8, 3, padding=1, groups=2, bias=False), (2, 4, 5, 5), 2 * 2 * 8 * 25 * 2 * 9),
        (lambda: nn.MaxPool2d(2), (2, 3, 4, 4), 2 * 3 * 4 * 4),
        (lambda: nn.LSTM(3, 4, bias=False), (6, 2, 3), None),
    ],
)
def test_layers(layer, shape, expected):
    found = tn.flops(layer(), tn.spec(*shape))
    if (
        expected is None
    ):  # the products of input and state with the four gates, and elementwise ops less than half as many
        products = 2 * 6 * 2 * (3 + 4) * 4 * 4
        assert products <= found < 1.5 * products
    else:
        assert found == expected


def test_attention_and_loops():
    def attend(q, k, v):
        return F.scaled_dot_product_attention(q, k, v)

    q = tn.spec(2, 3, 5, 8)
    assert tn.flops(attend, q, q, q) == 2 * 2 * 3 * 5 * 5 * (8 + 8)

    def total(xs):
        return F.scan(lambda h, x: (h + x, h), tn.zeros(3), xs)[0]

    assert tn.flops(total, tn.spec("T", 3), T=9) == 9 * 3


def test_what_is_asked_wrongly():
    model = nn.Linear(3, 2)
    exe = tn.compile(model, tn.spec("B", 3), target="reference")
    with pytest.raises(tn.ShapeError, match=r"needs the size of B: flops\(B=64\)"):
        tn.flops(exe)
    with pytest.raises(tn.ShapeError, match="has no dim 'N'; its dims are: B"):
        tn.flops(model, tn.spec("B", 3), N=2)
    with pytest.raises(tn.TenonError, match="is compiled: its specs are known, and 1 were given"):
        tn.flops(exe, tn.spec("B", 3), B=2)
    with pytest.raises(tn.TenonError, match="was expected, not int"):
        tn.flops(3)
    with pytest.raises(tn.UnsupportedError):
        tn.memory(exe, B=2)


def test_memory_of_a_model_is_that_of_its_program():
    model = nn.Linear(12, 5)
    exe = tn.compile(model, tn.spec("B", 12))
    assert tn.memory(model, tn.spec("B", 12), B=7) == tn.memory(exe, B=7) == exe.memory(B=7)
    assert exe(np.ones((7, 12), np.float32)).nbytes == exe.memory(B=7).outputs
