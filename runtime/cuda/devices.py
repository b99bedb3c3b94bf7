"""The GPUs of this process: the machine's, or the simulator's where ``NUMBA_ENABLE_CUDASIM=1`` is set."""

from __future__ import annotations

import threading

from engine.errors import DeviceError, UnsupportedError
from runtime.cuda.device import LEAST_CAPABILITY, Device, Properties
from runtime.cuda.simulator import SIMULATED

_lock = threading.Lock()
_open: dict[int, Device] = {}


def properties() -> list[Properties]:
    """What GPUs there are. Raises UnsupportedError where the extra is not installed, DeviceError where there is no
    driver."""
    if SIMULATED:
        return [device.properties for device in _simulated()]
    from runtime.cuda.driver import api, found

    return found(api())


def open_device(index: int) -> Device:
    """The GPU of that number, opened once in a process. Raises UnsupportedError where the extra is not installed or the
    GPU is too old, DeviceError where there is no driver or no such GPU."""
    with _lock:
        if index not in _open:
            _open[index] = _opened(index)
        return _open[index]


def _opened(index: int) -> Device:
    check(index, properties())
    if SIMULATED:
        return _simulated()[index]
    from runtime.cuda.driver import DriverDevice, api

    return DriverDevice(api(), index)


def _simulated() -> list[Device]:
    """New GPUs of the simulator."""
    try:
        from runtime.cuda.simulated import DEVICES, SimulatedDevice
    except ImportError as error:
        raise UnsupportedError(
            'NUMBA_ENABLE_CUDASIM=1 is set, and the simulator needs the packages of the extra "cuda-test": '
            f'pip install "tenon[cuda-test]" ({error})'
        ) from None
    return [SimulatedDevice(i) for i in range(DEVICES)]


def check(index: int, known: list[Properties]) -> None:
    """Raises DeviceError where none of ``known`` has this index, UnsupportedError where it is too old."""
    if not known:
        raise DeviceError('target="cuda": the NVIDIA driver is installed, but it knows no GPU')
    if not 0 <= index < len(known):
        names = ", ".join(p.target for p in known)
        raise DeviceError(f'target="cuda:{index}": there is no such GPU; there are {names}')
    found = known[index]
    if found.capability < LEAST_CAPABILITY:
        need = "{}.{}".format(*LEAST_CAPABILITY)
        raise UnsupportedError(f"{found}: kernels need compute capability {need} (Ampere) or newer")
