"""What programs can run on here."""

from __future__ import annotations

import platform
from typing import Any

from engine.errors import DeviceError, UnsupportedError
from engine.records import dataclass


@dataclass(frozen=True)
class Device:
    """A target for ``tn.compile``: ``processor`` as LLVM calls it, its vector features, the threads a call uses."""

    target: str
    processor: str
    architecture: str
    features: tuple[str, ...]
    threads: int

    def __str__(self) -> str:
        return (
            f"{self.target}: {self.processor} ({self.architecture}), {self.threads} threads, "
            f"{' '.join(self.features) or 'no vector features known'}"
        )


_FEATURES = (
    "sse4.2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512bf16", "amx-tile", "neon", "sve",
)  # fmt: skip


def devices() -> list[Any]:
    """The devices that programs can be compiled for on this machine.

    The processor comes first, as a :class:`Device`; then each GPU, where the extra ``cuda`` and a driver are installed.
    Each has a ``target``, and prints as a line.
    """
    from llvmlite import binding

    from runtime.cpu.threads import thread_count

    features = binding.get_host_cpu_features()
    known = tuple(f for f in _FEATURES if features.get(f))
    cpu = Device("cpu", binding.get_host_cpu_name(), platform.machine(), known, thread_count())
    return [cpu, *_gpus()]


def _gpus() -> list[Any]:
    from runtime.cuda.devices import properties

    try:
        return list(properties())
    except (DeviceError, UnsupportedError):
        return []
