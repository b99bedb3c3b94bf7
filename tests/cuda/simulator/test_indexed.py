"""Pools, scatters, scans and sorts in the simulator, under several orders of threads, against NumPy."""

from __future__ import annotations

import pytest
from cuda_harness import check
from indexed_cases import ALL


@pytest.mark.parametrize("case", ALL, ids=lambda c: c.name)
def test_it_does_what_its_spec_says(case):
    check(case, orders=(0, 1))
