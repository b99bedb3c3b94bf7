"""Loops, reductions and bundles in the simulator, under several orders of threads, against NumPy."""

from __future__ import annotations

import pytest
from cuda_harness import check
from loop_cases import bundles, elementwise, reductions, turned


@pytest.mark.parametrize("case", [*elementwise(), *reductions(), *bundles()], ids=lambda c: c.name)
def test_it_does_what_its_spec_says(case):
    check(case, orders=(0, 1))


@pytest.mark.parametrize("case", turned(), ids=lambda c: c.name)
def test_turned_tiles_meet_in_no_bank(case):
    (conflicts,) = check(case)
    assert sum(conflicts.accesses.values()) > 0
    assert sum(conflicts.extra.values()) == 0
