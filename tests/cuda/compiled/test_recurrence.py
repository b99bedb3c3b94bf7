"""Recurrences' kernels compile, without a stack and without spilled registers."""

from __future__ import annotations

import pytest
from cuda_harness import compiled
from cuda_recurrence import recurrence

from runtime.cuda.lower import lower


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "dtype", "given", "architecture"),
    [
        ("lstm", "f64", "h c lengths", "sm_80"),
        ("lstm", "f32", "h c projection lengths hs cs saved g_hs g_h g_c", "sm_90a"),
    ],
)
def test_kernels_fit_registers(cell, dtype, given, architecture):
    case = recurrence(cell, hidden=64, dtype=dtype, given=given, backward="g_hs" in given)
    for kernel in lower(case.spec).kernels:
        found = compiled(kernel, architecture).resources
        print(f"{kernel.name} {dtype} {architecture}: {found.registers} registers, {kernel.shared} bytes")
        assert (found.stack, found.spill_stores, found.spill_loads) == (0, 0, 0)
