"""Convolutions in the simulator, under several orders of threads, against NumPy."""

from __future__ import annotations

from dataclasses import replace

import pytest
from convolution_cases import DEPTH, OTHERS, PLAIN, TENSOR
from cuda_harness import check, simulate

from engine.errors import TenonError
from runtime.cuda.lower import lower


@pytest.mark.parametrize("case", [*TENSOR, *DEPTH, *PLAIN, *OTHERS], ids=lambda c: c.name)
def test_it_does_what_its_spec_says(case):
    check(case, orders=(0,))


@pytest.mark.parametrize("case", [c for c in TENSOR if c.name in ("strided", "strided dw")], ids=lambda c: c.name)
def test_threads_may_run_in_any_order(case):
    check(case, orders=(1, 2, 3))


@pytest.mark.parametrize("name", ["ragged", "three channels", "three channels bf16", "ragged dw", "ragged dw bf16"])
def test_no_thread_waits_for_a_bank(name):
    case = next(c for c in TENSOR if c.name == name)
    for conflicts, call in zip(check(case, orders=(0,)), lower(case.spec).calls, strict=True):
        assert sum(conflicts.extra.values()) == 0, call.label


FAULTS = {
    "a copy is awaited too late": ("cp_async_wait(1)", "cp_async_wait(3)"),
    "no barrier": ("        cuda.syncthreads()", "        pass"),
    "patches over the edge": (") < in_h and ", ") < in_h + 1 and "),
    "rows of weights over the edge": ("outputs - 1 - tile_column", "outputs - tile_column"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(fault):
    """A kernel with a mistake gives a wrong result, or is stopped for what it does."""
    case = next(c for c in TENSOR if c.name == "dilated groups")
    right, wrong = FAULTS[fault]
    lowered = lower(case.spec)
    kernel = lowered.kernels[-1]
    assert right in kernel.source
    broken = replace(kernel, source=kernel.source.replace(right, wrong), key=f"{abs(hash(fault)):032x}")
    calls = tuple(replace(c, kernel=broken.key) if c.kernel == kernel.key else c for c in lowered.calls)
    planted = replace(lowered, kernels=(*lowered.kernels[:-1], broken), calls=calls)
    with pytest.raises((TenonError, AssertionError)):
        from cuda_harness import compare, reference

        found = {name: a.copy() for name, a in case.arrays.items()}
        simulate(planted, found, case.values)
        compare(case, found, reference(case))
