"""Every PTX intrinsic does on a GPU what the PTX ISA says, and what the simulator was tested to do."""

from __future__ import annotations

import pytest
from intrinsic_cases import IntrinsicCase, cases

from engine.program import Kernel
from runtime import cache
from runtime.cuda.device import Function
from runtime.cuda.devices import open_device
from runtime.cuda.loading import load_functions


@pytest.mark.parametrize("case", cases(), ids=lambda c: c.name)
def test_an_intrinsic(case: IntrinsicCase) -> None:
    device = open_device(0)
    if case.hopper and device.properties.architecture != "sm_90a":
        pytest.skip(f"{device.properties} has no instructions of sm_90a")

    def load(kernel: Kernel) -> Function:
        functions, _ = load_functions([kernel], device, cache.default())
        return functions[kernel.key]

    case.check(case.run(device, load))
