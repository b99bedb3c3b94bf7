"""Recurrences' kernels compile without a stack and without spilled registers, their products on tensor cores."""

from __future__ import annotations

import pytest
from cuda_harness import compiled
from cuda_recurrence import recurrence

from runtime.cuda import recurrence as lowering
from runtime.cuda import recurrence_hopper
from runtime.cuda.assembler import SHARED_LIMIT, disassemble, instructions
from runtime.cuda.lower import lower

FORWARD = "h c lengths"
BACKWARD = "h c lengths hs cs saved g_hs g_h g_c"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "hidden", "dtype", "given", "architecture"),
    [
        ("lstm", 128, "bf16", FORWARD, "sm_90a"),
        ("lstm", 128, "f32", BACKWARD, "sm_80"),
        ("lstm", 512, "bf16", BACKWARD, "sm_90a"),
        ("lstm", 1024, "bf16", FORWARD, "sm_80"),
        ("gru", 256, "f32", "h bias", "sm_80"),
        ("lstm", 64, "f64", FORWARD, "sm_80"),
        ("lstm", 64, "f32", "h c projection lengths hs cs saved g_hs g_h g_c", "sm_90a"),
    ],
)
def test_kernels_fit_registers(cell, hidden, dtype, given, architecture):
    case = recurrence(cell, 5, 64, hidden, dtype=dtype, given=given, backward="g_hs" in given)
    kernel = lower(case.spec).kernels[-1]
    assert kernel.shared <= SHARED_LIMIT[architecture]
    cubin = compiled(kernel, architecture)
    found, names = cubin.resources, instructions(disassemble(cubin.code))
    print(f"{kernel.name} {dtype} {hidden} {architecture}: {found.registers} registers, {kernel.shared} bytes")
    assert (found.stack, found.spill_stores, found.spill_loads) == (0, 0, 0)
    assert names["LDL"] == names["STL"] == 0
    assert (names["HMMA"] > 0) == ("tiles" in kernel.name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "hidden", "dtype", "given", "plan"),
    [
        ("lstm", 1024, "bf16", FORWARD, (1, 64, 4)),
        ("lstm", 192, "f16", FORWARD, (4, 32, 1)),
        ("lstm", 128, "bf16", FORWARD, (8, 8, 1)),
        ("gru", 512, "bf16", "h bias lengths", (2, 64, 2)),
        ("lstm", 128, "bf16", BACKWARD, (2, 16, 1)),
        ("gru", 512, "bf16", "h lengths hs saved g_hs g_h", (1, 16, 8)),
    ],
)
def test_kernels_by_wgmma_fit_registers(cell, hidden, dtype, given, plan, monkeypatch):
    """The most that a thread is given, for each number of warpgroups."""
    monkeypatch.setattr(recurrence_hopper, "best_plan", lambda core: recurrence_hopper.planned(core, *plan))
    monkeypatch.setattr(lowering, "tiles_of", lambda *given: None)
    case = recurrence(cell, 5, 64, hidden, dtype=dtype, given=given, backward="g_hs" in given)
    kernel = lower(case.spec, (), "sm_90a").kernels[-1]
    found = instructions(disassemble(compiled(kernel, "sm_90a").code))
    assert "hopper" in kernel.name and found["HGMMA"] >= 4 and found["HMMA"] == 0
