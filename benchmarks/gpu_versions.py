"""What a GPU's results depend on: the GPU, its driver, and the versions of all that takes part.

``python -m benchmarks.gpu_versions`` prints it, or says why there is no GPU and ends with status 2.
"""

from __future__ import annotations

import sys
from importlib import metadata

from benchmarks import machine
from engine.errors import TenonError

_PACKAGES = ("numba-cuda", "cuda-bindings", "nvidia-cuda-nvcc", "nvidia-nvvm")


class NoGPU(Exception):
    """There is no GPU to measure, for the reason that is given."""


def text() -> str:
    """A line for each thing. Raises NoGPU."""
    from runtime.cuda.devices import properties

    try:
        gpus = properties()
    except TenonError as error:
        raise NoGPU(error.message) from None
    if not gpus:
        raise NoGPU("the NVIDIA driver knows no GPU")
    if gpus[0].simulated:
        raise NoGPU("NUMBA_ENABLE_CUDASIM=1 is set: the simulator's times say nothing of a GPU's")
    from runtime.cuda.driver import api, called

    found = machine.describe() | {"driver": str(called(api(), "cuDriverGetVersion"))}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return "\n".join([*(f"{name}: {value}" for name, value in found.items()), *map(str, gpus)])


if __name__ == "__main__":
    try:
        print(text())
    except NoGPU as error:
        print(f"there is no GPU to test: {error}", file=sys.stderr)
        sys.exit(2)
