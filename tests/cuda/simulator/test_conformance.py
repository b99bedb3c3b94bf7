"""Every intrinsic does in the simulator what the PTX ISA says, in the words of tests/intrinsic_cases.py."""

from __future__ import annotations

import inspect
import re

import pytest
from intrinsic_cases import IntrinsicCase, cases

from runtime.checked_memory import CheckedMemory
from runtime.cuda import ptx, ptx_hopper
from runtime.cuda.simulator.machine import launch
from runtime.sources import load_source

CASES = cases()
WITHOUT_EFFECT = {"prefetch_tensor_map", "setmaxnreg_inc", "setmaxnreg_dec"}
"""What changes nothing that a kernel could see."""


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_an_intrinsic(case: IntrinsicCase):
    memory = CheckedMemory()
    arrays = {name: a.copy() for name, a in case.arrays.items()}
    addresses = {name: memory.add(name, a) for name, a in arrays.items()}
    maps = [memory.add(n, m.for_simulator(addresses[n.removesuffix("_map")])) for n, m in case.maps.items()]
    function = getattr(load_source(case.kernel), case.kernel.name)
    for order in (0, 1):
        for name, a in case.arrays.items():
            arrays[name][...] = a
        launch(function, 1, case.threads, case.shared, [*addresses.values(), *maps], memory, order)
        case.check(arrays)


def test_every_intrinsic_has_a_case():
    called = {name for case in CASES for name in re.findall(r"\w+", case.body)}
    for module in (ptx, ptx_hopper):
        words = {n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__}
        missing = {n for n in words if not n.startswith("_")} - called - WITHOUT_EFFECT - {"shared_memory"}
        assert not missing, f"{module.__name__}: {sorted(missing)}"
