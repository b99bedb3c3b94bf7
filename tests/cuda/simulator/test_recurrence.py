"""Recurrences' kernels beside the reference: every cell, both directions, lengths, projections, outputs left out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cuda_harness import check, simulate
from cuda_recurrence import recurrence

from runtime.cuda import recurrence_tiles
from runtime.cuda.lower import lower
from runtime.cuda.recurrence_walk import RESIDENT
from runtime.cuda.simulator.shared import RaceError

TOLERANCES = {"bf16": 2e-2, "f16": 3e-3, "f32": 6e-6, "f64": 1e-12}
FORWARD = "h c lengths"
BACKWARD = "h c lengths hs cs saved g_hs g_h g_c"


def checked(cell, *shape, dtype="f32", orders=(0, 3), **options):
    case = recurrence(cell, *shape, dtype=dtype, **options)
    return check(replace(case, tolerance=TOLERANCES[dtype]), orders)


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("rnn_tanh", {}),
        ("rnn_relu", {"given": "h lengths", "reverse": True}),
        ("rnn_tanh", {"given": "h lengths", "dtype": "f64"}),
        ("lstm", {"dtype": "bf16"}),
        ("lstm", {"given": FORWARD, "reverse": True, "dtype": "f64"}),
        ("lstm", {"given": "h c projection lengths", "width": 4}),
        ("lstm", {"without": ("hs", "cs", "saved"), "dtype": "f16"}),
        ("gru", {"given": "bias"}),
        ("gru", {"given": "h bias lengths", "without": ("saved", "hs"), "dtype": "f64"}),
    ],
)
def test_forward(cell, options):
    checked(cell, **options)


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("rnn_tanh", {"given": "hs g_hs"}),
        ("rnn_relu", {"given": "h lengths hs g_hs g_h", "reverse": True}),
        ("lstm", {"given": "hs cs saved g_hs", "dtype": "bf16"}),
        ("lstm", {"given": BACKWARD, "reverse": True, "dtype": "f64"}),
        ("lstm", {"given": "h c projection lengths hs cs saved g_hs g_h g_c", "width": 4}),
        ("gru", {"given": "hs saved g_hs", "without": ("dh",)}),
        ("gru", {"given": "h lengths hs saved g_h", "dtype": "f64"}),
    ],
)
def test_backward(cell, options):
    checked(cell, backward=True, **options)


@pytest.fixture
def team(monkeypatch):
    """Lets kernels be planned as larger ones are: two blocks that meet, and what a test asks for beside."""

    def plan(parts, resident):
        def planned(units, columns, depth, size, architecture):
            deep = -(-depth // (16 * parts)) * 16 * parts
            return recurrence_tiles.planned(2, units, columns, deep, parts, size, resident, 48)

        monkeypatch.setattr(recurrence_tiles, "_plan", planned)

    return plan


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "parts", "resident"), [("bf16", 1, True), ("bf16", 4, True), ("bf16", 2, False), ("f32", 1, False)]
)
def test_blocks_that_share_the_units_meet_at_every_step(dtype, parts, resident, team):
    team(parts, resident)
    checked("lstm", 3, 20, 20, dtype=dtype, given=FORWARD, orders=(3,))
    checked("lstm", 3, 20, 20, dtype=dtype, given=BACKWARD, backward=True, orders=(1,))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("goal += 2", "goal += 1"),  # blocks that do not wait for their team
        ("fence_gpu()", "pass"),  # that tell it nothing
        ("(1 - half) * half_size", "half * half_size"),  # states that are overwritten while others read them
        ("cp_async_wait(0)", "pass"),
        ("            cp_async_wait(0)\n                    cuda.syncthreads()", "            cp_async_wait(0)"),
    ],
)
def test_planted_faults_are_found(right, wrong, team):
    team(1, True)
    case = recurrence("rnn_tanh", 3, 4, 16, given="h")
    lowered = lower(case.spec)
    clear, walk = lowered.kernels
    assert right in walk.source
    broken = replace(lowered, kernels=(clear, replace(walk, source=walk.source.replace(right, wrong))))
    for order in range(4):
        arrays = {name: a.copy() for name, a in case.arrays.items()}
        with pytest.raises(RaceError):
            simulate(broken, arrays, case.values, order)


@pytest.mark.parametrize(("hidden", "resident"), [(64, 2), (128, 2), (512, 2), (1024, 1), (3072, 0)])
def test_large_layers_are_planned_within_what_gpus_have(hidden, resident):
    for columns, depth in ((4, hidden), (1, 4 * hidden)):  # of an lstm in bf16, forward and backward
        for number, architecture in enumerate(("sm_90a", "sm_80")):
            plan = recurrence_tiles._plan(hidden // 8, columns, depth, 2, architecture)
            assert plan is not None and plan.resident == (number < resident)
            assert plan.team <= RESIDENT[architecture]
            assert plan.team * plan.warps * 8 >= hidden
