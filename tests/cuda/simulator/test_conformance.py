"""Every intrinsic does in the simulator what the PTX ISA says, in the words of tests/intrinsic_cases.py."""

from __future__ import annotations

import inspect
import re

import pytest
from intrinsic_cases import IntrinsicCase, cases

from runtime.cuda import ptx, ptx_hopper
from runtime.cuda.simulated import SimulatedDevice

CASES = cases()
WITHOUT_EFFECT = {"setmaxnreg_inc", "setmaxnreg_dec"}
"""What changes nothing that a kernel could see."""


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_an_intrinsic(case: IntrinsicCase):
    device = SimulatedDevice(0)
    for device.compute.order in (0, 1):
        case.check(case.run(device, lambda kernel: device.load(kernel, b"")))


def test_every_intrinsic_has_a_case():
    called = {name for case in CASES for name in re.findall(r"\w+", case.body)}
    for module in (ptx, ptx_hopper):
        words = {n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__}
        missing = {n for n in words if not n.startswith("_")} - called - WITHOUT_EFFECT - {"shared_memory"}
        assert not missing, f"{module.__name__}: {sorted(missing)}"
