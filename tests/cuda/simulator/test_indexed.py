"""Pools, scatters, scans and sorts in the simulator, under several orders of threads, against NumPy."""

from __future__ import annotations

import pytest
from cuda_harness import check
from indexed_cases import ALL, merged_sorts

from runtime.cuda import sort
from runtime.cuda.lower import lower


@pytest.mark.parametrize("case", ALL, ids=lambda c: c.name)
def test_it_does_what_its_spec_says(case):
    check(case, orders=(0, 1))


@pytest.mark.parametrize("case", merged_sorts(), ids=lambda c: c.name)
def test_many_blocks_sort_a_line(case, monkeypatch):
    monkeypatch.setattr(sort, "_RUN", 64)
    calls = lower(case.spec).calls
    assert len(calls) > 2 and len({c.kernel for c in calls}) == 2  # whatever the width, one kernel merges
    check(case, orders=(0, 1, 2))
