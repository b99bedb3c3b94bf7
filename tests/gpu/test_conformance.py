"""Every PTX intrinsic does on a GPU what the PTX ISA says, and what the simulator was tested to do."""

from __future__ import annotations

import numpy as np
import pytest
from intrinsic_cases import IntrinsicCase, cases

from runtime import cache
from runtime.cuda.devices import open_device
from runtime.cuda.loading import load_functions


@pytest.mark.parametrize("case", cases(), ids=lambda c: c.name)
def test_an_intrinsic(case: IntrinsicCase) -> None:
    device = open_device(0)
    if case.hopper and device.properties.architecture != "sm_90a":
        pytest.skip(f"{device.properties} has no instructions of sm_90a")
    functions, _ = load_functions([case.kernel], device, cache.default())
    arrays = {name: a.copy() for name, a in case.arrays.items()}
    with device.lock:
        device.activate()
        memory = {name: device.allocate(a.nbytes) for name, a in arrays.items()}
        encoded = [device.tensor_map(memory[n.removesuffix("_map")].address, m) for n, m in case.maps.items()]
        maps = [device.allocate(m.nbytes) for m in encoded]
        for name, a in arrays.items():
            device.compute.upload(memory[name].address, a)
        for to, m in zip(maps, encoded, strict=True):
            device.compute.upload(to.address, m)
        args = [m.address for m in (*memory.values(), *maps)]
        device.compute.launch(functions[case.kernel.key], 1, np.array(args, np.int64))
        for name, a in arrays.items():
            device.compute.download(a, memory[name].address)
        device.compute.synchronize()
    case.check(arrays)
