"""Initial weights are drawn when somebody asks for them, and are the same as if they had been drawn at once."""

from __future__ import annotations

import threading

import numpy as np

import tenon as tn
from engine.dtypes import f32, i64, u8
from engine.state import Cell, place_together
from frontend import random
from tenon import nn


def test_draws_are_those_of_numpy_in_order() -> None:
    tn.seed(3)
    first, second = nn.Parameter(np.empty((40, 500), np.float32)), nn.Parameter(np.empty(7, np.float32))
    nn.init.uniform_(first, -1, 1)
    nn.init.uniform_(second)
    nn.init.normal_(second)
    nn.init.uniform_(second, 2, 3)
    rng = np.random.default_rng(3)
    np.testing.assert_array_equal(first.numpy(), rng.uniform(-1, 1, (40, 500)).astype(np.float32))
    rng.uniform(size=7), rng.normal(size=7)
    np.testing.assert_array_equal(second.numpy(), rng.uniform(2, 3, 7).astype(np.float32))


def test_order_of_asking_does_not_count() -> None:
    def weights(forwards: bool) -> list[np.ndarray]:
        tn.seed(5)
        layers = [nn.Linear(130, 140), nn.Linear(3, 4)]
        found = [np.array(layer.weight.numpy()) for layer in (layers if forwards else layers[::-1])]
        return found if forwards else found[::-1]

    for a, b in zip(weights(True), weights(False), strict=True):
        np.testing.assert_array_equal(a, b)


def test_half_a_step_that_the_generator_keeps_is_kept() -> None:
    tn.seed(1)
    rng = np.random.default_rng(1)
    small = random.default.generator.integers(0, 100, 1, np.int32), rng.integers(0, 100, 1, np.int32)
    random.default.uniform(0, 1, 9)
    rng.uniform(size=9)
    for _ in range(3):
        assert random.default.generator.integers(0, 100, 1, np.int32) == rng.integers(0, 100, 1, np.int32)
    assert small[0] == small[1]


def test_what_is_loaded_is_not_drawn() -> None:
    layer = nn.Linear(4, 4)
    drawn: list[int] = []
    layer.weight.cell.fill(lambda array: drawn.append(array.size))
    layer.load_state_dict({"weight": np.eye(4, dtype=np.float32), "bias": np.zeros(4, np.float32)})
    assert (layer.weight.numpy() == np.eye(4)).all() and not drawn


def test_what_a_program_holds_is_filled_at_once() -> None:
    layer = nn.Linear(2, 2, bias=False)
    exe = tn.compile(layer, tn.spec("B", 2))
    held, version = layer.weight.cell.array, layer.weight.cell.version
    nn.init.ones_(layer.weight)
    assert layer.weight.cell.array is held and (held == 1).all() and layer.weight.cell.version == version + 1
    assert (exe(np.ones((1, 2), np.float32)) == 2).all()


def test_cells_are_filled_once_when_threads_ask_together() -> None:
    calls: list[int] = []
    cell = Cell.empty((1000,), f32)

    def fill(array: np.ndarray) -> None:
        calls.append(1)
        array[:] = 7

    cell.fill(fill)
    threads = [threading.Thread(target=lambda: cell.array) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(calls) == 1 and (cell.array == 7).all()


def test_cells_side_by_side_do_not_overlap() -> None:
    shapes = [(3, 5), (), (0, 2), (100,)]
    cells = [Cell.empty(shape, dtype) for shape, dtype in zip(shapes, (f32, i64, f32, u8), strict=True)]
    place_together([*cells, cells[0]])
    assert [c.array.shape for c in cells] == [c.shape for c in cells] == shapes and not any(
        c.array.any() for c in cells
    )
    for i, cell in enumerate(cells):
        assert cell.array.ctypes.data % 64 == 0 and cell.array.flags.c_contiguous
        cell.array[...] = i + 1
    assert all((c.array == i + 1).all() for i, c in enumerate(cells))
