"""Loops, reductions and bundles in the simulator, under several orders of threads, against NumPy."""

from __future__ import annotations

import pytest
from cuda_harness import check
from loop_cases import bundles, elementwise, reductions, shared, turned, updates

from runtime.cuda.lower import lower


@pytest.mark.parametrize("case", [*elementwise(), *reductions(), *bundles()], ids=lambda c: c.name)
def test_it_does_what_its_spec_says(case):
    check(case, orders=(0, 1))


@pytest.mark.parametrize("case", turned(), ids=lambda c: c.name)
def test_turned_tiles_meet_in_no_bank(case):
    (conflicts,) = check(case)
    assert sum(conflicts.accesses.values()) > 0
    assert sum(conflicts.extra.values()) == 0


@pytest.mark.parametrize("case", shared(), ids=lambda c: c.name)
def test_blocks_share_what_is_long(case):
    assert len(lower(case.spec).calls) > 1
    check(case, orders=(1,))


def test_a_bundle_is_one_launch_however_many_its_parts():
    """A part takes some six slots, and a launch has room for 512."""
    few, many = (lower(updates([8, 8, 8] * count).spec) for count in (1, 100))
    (call,) = many.calls
    assert len(many.kernels) == 1 and many.kernels[0].source.count("\n") == few.kernels[0].source.count("\n")
    assert len(call.args) == 2
    check(updates([1, 2, 3] * 6), orders=(1,))
