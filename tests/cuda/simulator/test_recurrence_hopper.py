"""Recurrences by wgmma in the simulator beside the reference: cells, edges, teams that meet; what a fault does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cuda_harness import Case, compare, reference, simulate
from cuda_recurrence import recurrence

from engine.errors import TenonError
from engine.program import Lowered
from runtime.cuda import recurrence as lowering
from runtime.cuda import recurrence_hopper
from runtime.cuda.lower import lower

FORWARD = "h c lengths"
BACKWARD = "h c lengths hs cs saved g_hs g_h g_c"
TOLERANCES = {"bf16": 2e-2, "f16": 3e-3}


def on_hopper(monkeypatch: pytest.MonkeyPatch, case: Case, groups: int, examples: int, parts: int) -> Lowered:
    """The case lowered for Hopper with so many warpgroups a block, examples a team, and parts of these."""
    monkeypatch.setattr(
        recurrence_hopper, "best_plan", lambda core: recurrence_hopper.planned(core, groups, examples, parts)
    )
    monkeypatch.setattr(lowering, "tiles_of", lambda *given: None)
    lowered = lower(case.spec, (), "sm_90a")
    assert "_hopper" in lowered.kernels[-1].name
    return lowered


def check(case: Case, lowered: Lowered, order: int) -> None:
    arrays = {name: a.copy() for name, a in case.arrays.items()}
    conflicts = simulate(lowered, arrays, case.values, order)
    compare(case, arrays, reference(case))
    assert sum(conflicts[-1].extra.values()) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "sizes", "options", "plan", "blocks", "order"),
    [
        ("lstm", (3, 11, 20), {"given": FORWARD, "reverse": True}, (1, 8, 1), 2, 3),
        ("lstm", (3, 5, 20), {"dtype": "f16"}, (2, 16, 1), 1, 0),
        ("lstm", (2, 17, 40), {"given": "h c"}, (1, 32, 2), 3, 1),
        ("gru", (2, 9, 20), {"given": "h bias lengths"}, (1, 16, 1), 2, 2),
        ("gru", (2, 40, 14), {"given": "bias"}, (1, 64, 1), 1, 0),
        ("rnn_tanh", (3, 7, 70), {"given": "h"}, (1, 8, 2), 2, 1),
        ("lstm", (3, 11, 18), {"given": BACKWARD, "backward": True}, (1, 8, 2), 1, 3),
        ("lstm", (2, 5, 66), {"given": "hs cs saved g_hs", "backward": True}, (1, 16, 1), 2, 2),
        ("gru", (3, 5, 20), {"given": "h lengths hs saved g_h", "backward": True, "dtype": "f16"}, (1, 8, 1), 1, 0),
    ],
)
def test_it_does_what_its_spec_says(cell, sizes, options, plan, blocks, order, monkeypatch):
    case = recurrence(cell, *sizes, **{"dtype": "bf16", **options})
    case = replace(case, tolerance=TOLERANCES[options.get("dtype", "bf16")])
    lowered = on_hopper(monkeypatch, case, *plan)
    assert len(lowered.calls) == 1 + (blocks > 1)
    check(case, lowered, order)


def kernels(cell: str, hidden: int, batch: int = 64, dtype: str = "bf16", **options: object) -> list[str]:
    spec = recurrence(cell, 2, batch, hidden, dtype=dtype, **options).spec
    return [kernel.name.removesuffix("_kernel") for kernel in lower(spec, (), "sm_90a").kernels]


def test_it_is_chosen_where_weights_fit_and_steps_are_shorter():
    given = "hs cs saved g_hs"
    assert kernels("lstm", 128) == ["lstm_hopper"]  # one block: nobody to meet
    assert kernels("lstm", 128, given=given, backward=True) == ["lstm_hopper"]
    for hidden in (256, 512, 1024):
        assert kernels("lstm", hidden) == ["recurrence_clear", "lstm_hopper"]
    assert kernels("lstm", 256, given=given, backward=True) == ["recurrence_clear", "lstm_hopper"]
    assert kernels("lstm", 512, given=given, backward=True) == ["recurrence_clear", "lstm_tiles"]
    assert kernels("lstm", 128, dtype="f32") == ["recurrence_clear", "lstm_tiles"]
    assert kernels("lstm", 8, 4) == ["lstm_tiles"]
    assert kernels("lstm", 128, given="h c projection", width=64) == ["lstm_plain"]


FAULTS = {
    "copies are not waited for": ("cp_async_wait(0)", "pass"),
    "what was written is not seen by wgmma": ("fence_proxy_async()", "pass"),
    "threads do not meet before they multiply": (
        "fence_proxy_async()\n{indent}cuda.syncthreads()", "fence_proxy_async()"
    ),
    "registers are not fenced": ("wgmma_fence()", "pass"),
    "sums are not waited for": ("wgmma_wait_for(acc, 8, 0)", "pass"),
    "a slab too far": ("part * 1 + slab", "part * 1 + slab + 1"),
    "the wrong swizzle": ("(q & 7) ^ (r & 7)", "(q & 7)"),
    "gates of another unit": ("here, there), 4)", "here, there), 8)"),
    "gates of another example": ("select(odd, there, here)", "select(odd, here, there)"),
    "blocks that do not wait for their team": ("goal += 2", "goal += 1"),
    "states that are overwritten while others read them": ("(1 - half) * half_size", "half * half_size"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(fault, monkeypatch):
    case = replace(recurrence("lstm", 3, 5, 20, given="h c", dtype="bf16"), tolerance=2e-2)
    lowered = on_hopper(monkeypatch, case, 1, 8, 1)
    right, wrong = FAULTS[fault]
    clear, walk = lowered.kernels
    indent = next(line for line in walk.source.splitlines() if "fence_proxy_async()" in line).split("fence")[0]
    right = right.format(indent=indent)
    assert right in walk.source
    broken = replace(lowered, kernels=(clear, replace(walk, source=walk.source.replace(right, wrong))))
    found = []
    for order in (1, 3, 0, 2):
        try:
            check(case, broken, order)
        except (TenonError, AssertionError) as error:
            found.append(error)
            break
    assert found
