"""Large results lie in memory that is taken again, but never while anyone can see what lies there."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import tenon as tn
from engine.state import address
from runtime.results import LEAST_BYTES

pytestmark = pytest.mark.skipif(sys.implementation.name != "cpython", reason="objects are not counted")
WIDTH = 1024


@pytest.fixture(scope="module")
def twice():
    return tn.compile(lambda x: 2 * x, tn.spec("B", WIDTH))


def given(value: float, nbytes: int = LEAST_BYTES) -> np.ndarray:
    return np.full((nbytes // WIDTH // 4, WIDTH), value, np.float32)


def test_memory_that_nobody_holds_is_taken_again(twice):
    places = {address(twice(given(i))) for i in range(10)}
    assert len(places) == 1


@pytest.mark.parametrize(
    "holder",
    [
        lambda y: y,
        lambda y: y[3:, ::2],
        lambda y: y.T.reshape(WIDTH, 4, -1)[0],
        lambda y: np.asarray(memoryview(y)),
        lambda y: np.frombuffer(y, np.float32),
        lambda y: [y[i] for i in range(2)][1],
    ],
    ids=["itself", "slice", "views of views", "memoryview", "buffer", "row"],
)
def test_what_is_held_stays(twice, holder):
    held = [holder(twice(given(i))) for i in range(8)]
    for i, kept in enumerate(held):
        np.testing.assert_array_equal(kept, 2 * i)


def test_a_result_may_be_the_next_input(twice):
    x = given(1)
    for _ in range(5):
        x = twice(x)
    np.testing.assert_array_equal(x, 32)


def test_sizes_do_not_mix(twice):
    for rows in (300, 900, 300, 600, 900):
        np.testing.assert_array_equal(twice(np.full((rows, WIDTH), rows, np.float32)), 2 * rows)


def test_tensors_of_other_libraries_hold_it(twice):
    torch = pytest.importorskip("torch")
    held = [torch.from_numpy(twice(given(i))) for i in range(4)]
    assert [t.max().item() for t in held] == [0, 2, 4, 6]
