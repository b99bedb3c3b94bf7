"""Weights of windows lie tap by tap in memory, and nobody can tell but by the time that it takes."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from kernel_harness import elements, run

import tenon as tn
from engine import dims, dtypes
from engine.graph import Graph
from engine.schedule import Access, Bundle, ConvWeightGrad, KernelSpec, Schedule, Stmt
from engine.state import Cell, place_together
from frontend.nn.convolution import TAPS_OUTSIDE
from runtime.cpu.idle import factors_of_nothing
from runtime.cpu.lower import lower
from tenon import F, nn, optim

F32 = dtypes.f32
B = dims.dim("B")


def test_weights_of_windows_lie_tap_by_tap():
    tn.seed(0)
    weight = nn.Conv2d(16, 32, 3).weight
    array = weight.numpy()
    assert array.shape == (32, 16, 3, 3) and array.transpose(TAPS_OUTSIDE).flags.c_contiguous
    tn.seed(0)
    flat = nn.init.kaiming_uniform_(nn.Parameter(np.empty((32, 16, 3, 3), np.float32)), a=5**0.5)
    np.testing.assert_array_equal(array, flat.numpy())


@pytest.mark.parametrize("layer", [
    lambda: nn.Conv2d(16, 32, 1), lambda: nn.Conv2d(3, 32, 3), lambda: nn.Conv2d(32, 32, 3, groups=2),
    lambda: nn.Conv1d(16, 16, 3), lambda: nn.ConvTranspose2d(16, 16, 3),
])  # fmt: skip
def test_other_weights_lie_as_they_are_counted(layer):
    assert layer().weight.cell.order is None


def test_the_order_stays_with_a_weight():
    layer = nn.Conv2d(16, 16, 3)
    before = layer.weight.numpy().copy()
    for made in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer).to("f64")):
        assert made.weight.cell.order == TAPS_OUTSIDE
        np.testing.assert_array_equal(made.weight.numpy(), before)
    layer.load_state_dict({"weight": 2 * before, "bias": np.zeros(16, np.float32)})
    np.testing.assert_array_equal(layer.weight.numpy(), 2 * before)
    moments = optim.Adam(layer.parameters())
    step(layer, moments, 4, "reference")
    assert {b.cell.order for b in moments.state[layer.weight].values() if b.shape == before.shape} == {TAPS_OUTSIDE}


def test_cells_side_by_side_keep_their_order():
    value = np.arange(24.0, dtype=np.float32).reshape(2, 3, 2, 2)
    cells = [Cell.empty(value.shape, F32, order) for order in (TAPS_OUTSIDE, None)]
    cells[0].fill(lambda array: np.copyto(array.reshape(-1), value.reshape(-1)))
    place_together(cells)
    np.testing.assert_array_equal(cells[0].array, value)
    cells[0].fill(lambda array: np.copyto(array.reshape(-1), 2 * value.reshape(-1)))
    np.testing.assert_array_equal(cells[0].array, 2 * value)


def test_a_program_says_how_its_state_lies():
    layer = nn.Conv2d(16, 16, 3)
    program = tn.compile(layer, tn.spec("B", 16, 4, 4))
    assert {p.name: p.order for p in program.program.state} == {"weight": TAPS_OUTSIDE, "bias": None}
    traced = program.stages["trace"]
    assert isinstance(traced, Graph)
    assert list(traced.layouts.values()) == [TAPS_OUTSIDE]


@pytest.mark.slow
def test_gradients_that_wait_lie_as_their_weights():
    layer = nn.Conv2d(16, 16, 3, padding=1)
    program = step(layer, optim.Adam(layer.parameters(), clip_norm=1.0), 4)
    plan = program.stages["schedule"]
    assert isinstance(plan, Schedule)
    specs = [s for item in plan.specs for s in (item.parts if isinstance(item, Bundle) else (item,))]
    (update,) = [s for s in specs if "state.weight" in {w.buffer for w in s.writes}]
    assert update.axes == (3, 3, 16, 16) and update.core is None
    whole = {a.strides for a in (*update.reads, *update.writes) if any(a.strides)}
    assert whole == {(768, 256, 16, 1)}


def test_bisecting_knows_how_state_lies():
    layer = nn.Conv2d(16, 16, 3, padding=1)
    program = step(layer, optim.SGD(layer.parameters(), lr=0.1), 1)
    assert tn.bisect(program, np.ones((8, 16, 1, 1), np.float32), np.zeros((8, 16), np.float32)) is None


def step(layer: nn.Module, optimizer: object, size: int, target: str = "cpu", level: int = 2) -> object:
    def train(x, y):
        loss = F.mse_loss(layer(x).sum((2, 3)), y)
        optimizer.minimize(loss)  # type: ignore[attr-defined]
        return loss

    channels = 16
    specs = tn.spec("B", channels, size, size), tn.spec("B", channels)
    return tn.compile(train, *specs, target=target, level=level)


RULES = {
    "sgd": lambda p: optim.SGD(p, lr=0.01),
    "sgd with momentum and decay": lambda p: optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.1),
    "adam": lambda p: optim.Adam(p, lr=0.01),
}


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("rule", RULES)
def test_training_is_what_the_reference_makes_of_it(rule, size):
    trained = {}
    for target in ("reference", "cpu"):
        tn.seed(1)
        layer = nn.Conv2d(16, 16, 3, padding=1)
        program = step(layer, RULES[rule](layer.parameters()), size, target)
        rng = np.random.default_rng(0)
        for _ in range(2):
            program(*(rng.standard_normal(s).astype(np.float32) for s in ((8, 16, size, size), (8, 16))))
        trained[target] = layer.weight.numpy()
    np.testing.assert_allclose(trained["cpu"], trained["reference"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rate", [0.01, np.inf])
def test_taps_that_meet_only_padding_are_left_alone_unless_the_rate_is_no_number(rate):
    layer = nn.Conv2d(16, 16, 3, padding=1)
    before = layer.weight.numpy().copy()
    optimizer = optim.SGD(layer.parameters(), lr=rate)
    program = step(layer, optimizer, 1)
    assert "whole" in "".join(k.source for k in program.program.kernels)
    program(np.ones((8, 16, 1, 1), np.float32), np.zeros((8, 16), np.float32))
    after = layer.weight.numpy()
    idle = np.ones((3, 3), bool)
    idle[1, 1] = False
    assert (after[:, :, 1, 1] != before[:, :, 1, 1]).all()
    if np.isinf(rate):
        assert np.isnan(after[:, :, idle]).all()
    else:
        np.testing.assert_array_equal(after[:, :, idle], before[:, :, idle])


def weight_gradient(shape: tuple[int, ...], size: int, strides: tuple[int, ...]) -> KernelSpec:
    """``w -= rate * gradient`` for weights of that shape, over images of ``size`` x ``size`` pixels."""
    outputs, inputs, kh, kw = shape
    oc, ic, h, w = strides
    images = [Access(n, F32, (size * size * c, size * c, c, 1)) for n, c in (("x", inputs), ("dy", outputs))]
    core = ConvWeightGrad(*images, B, (size, size), (size, size), inputs, outputs, (kh, kw), padding=(1, 1))
    weights, rate = Access("w", F32, (0, h, w, ic, oc)), Access("rate", F32, (0,) * 5)
    body = (
        Stmt("g", "core", (0,), F32), Stmt("rate", "load", (0,), F32), Stmt("step", "mul", ("rate", "g"), F32),
        Stmt("old", "load", (1,), F32), Stmt("new", "sub", ("old", "step"), F32), Stmt("s", "store", (0, "new"), F32),
    )  # fmt: skip
    return KernelSpec("update", (1, kh, kw, inputs, outputs), (rate, weights), (weights,), body, core)


@pytest.mark.parametrize(("channels", "size", "batch"), [
    ((8, 48), 1, 9), pytest.param((8, 24), 2, 5, marks=pytest.mark.slow),
    pytest.param((32, 40), 20, 2, marks=pytest.mark.slow),
])  # fmt: skip
def test_both_orders_give_the_same_bits(channels, size, batch):
    inputs, outputs = channels
    shape = (outputs, inputs, 3, 3)
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((batch, size, size, c)).astype(np.float32) for c in channels)
    start = rng.standard_normal(shape).astype(np.float32)
    found = []
    for order in (None, TAPS_OUTSIDE):
        cell = Cell(start, F32, order)
        memory = cell.array if order is None else cell.array.transpose(order)
        strides = [s // 4 for s in cell.array.strides]
        assert order is not None or tuple(strides) == elements(shape)
        arrays = {"x": x, "dy": dy, "w": memory, "rate": np.full(1, 0.5, np.float32)}
        run(lower(weight_gradient(shape, size, tuple(strides))), arrays, {"B": batch}, splits=2)
        found.append(cell.array)
    assert (found[0] != start).any()
    np.testing.assert_array_equal(*found)


def test_which_bodies_change_nothing_at_zero():
    spec = weight_gradient((8, 8, 3, 3), 1, (1, 8, 192, 64))
    assert factors_of_nothing(spec) == ["rate"]
    rate, weights = spec.reads
    moved = KernelSpec(
        "update", spec.axes, (rate, weights), (Access("other", F32, weights.strides),), spec.body, spec.core
    )
    assert factors_of_nothing(moved) is None, "it must be written elsewhere"
    decay = Stmt("decayed", "mul", ("rate", "old"), F32)
    body = (*spec.body[:4], decay, Stmt("new", "sub", ("decayed", "step"), F32), spec.body[-1])
    decayed = KernelSpec("update", spec.axes, spec.reads, spec.writes, body, spec.core)
    assert factors_of_nothing(decayed) is None, "weights decay without a gradient"
    uneven = Access("rate", F32, weights.strides)
    per_weight = KernelSpec("update", spec.axes, (uneven, weights), spec.writes, spec.body, spec.core)
    assert factors_of_nothing(per_weight) is None, "each weight's own rate may be no number"
