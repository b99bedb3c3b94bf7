"""A GPU that is not there: kernels run in the simulator, on arrays, each step before the next is asked for."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from engine.dtypes import u8
from engine.errors import DeviceMemoryError, UnsupportedError
from engine.program import Kernel
from engine.records import dataclass
from engine.state import ALIGNMENT, aligned_array
from runtime.checked_memory import CheckedMemory
from runtime.cuda.device import Allocation, Properties, States
from runtime.cuda.simulator.machine import launch
from runtime.cuda.tensor_map import TensorMap
from runtime.sources import load_source

DEVICES = 2
"""How many GPUs the simulator has."""
_MEMORY = 1 << 30
_GARBAGE = 0xFF


@dataclass(frozen=True)
class SimulatedFunction:
    """A kernel's text as a function, and how it is launched."""

    run: Callable[..., None]
    threads: int
    shared: int
    cooperative: bool


class SimulatedEvent:
    def wait(self) -> None:
        pass

    def seconds_since(self, earlier: Any) -> float:
        raise UnsupportedError("the simulator's times say nothing of a GPU's: profiles need a GPU")


class SimulatedStream:
    """Does at once what it is asked for, or keeps it for a graph."""

    def __init__(self, memory: CheckedMemory):
        self._memory = memory
        self._captured: list[Callable[[], None]] | None = None
        self.order = 0

    def _do(self, work: Callable[[], None]) -> None:
        if self._captured is None:
            work()
        else:
            self._captured.append(work)

    def _bytes(self, address: int, nbytes: int, what: str) -> np.ndarray:
        if not nbytes:
            return np.empty(0, np.uint8)
        region, start = self._memory.place(address, nbytes, what)
        return region.bytes[start : start + nbytes]

    def upload(self, address: int, array: np.ndarray) -> None:
        data = array.reshape(-1).view(np.uint8)

        def work() -> None:
            self._bytes(address, data.size, "copies to")[:] = data

        self._do(work)

    def download(self, array: np.ndarray, address: int) -> None:
        data = array.reshape(-1).view(np.uint8)

        def work() -> None:
            data[:] = self._bytes(address, data.size, "copies from")

        self._do(work)

    def copy(self, to: int, source: int, nbytes: int) -> None:
        def work() -> None:
            self._bytes(to, nbytes, "copies to")[:] = self._bytes(source, nbytes, "copies from")

        self._do(work)

    def clear(self, address: int, nbytes: int) -> None:
        def work() -> None:
            self._bytes(address, nbytes, "clears")[:] = 0

        self._do(work)

    def launch(self, function: SimulatedFunction, blocks: int, args: np.ndarray) -> None:
        numbers = args.tolist()
        self._do(lambda: launch(function.run, blocks, function.threads, function.shared, numbers, self._memory,
                                self.order, cooperative=function.cooperative))  # fmt: skip

    def record(self, event: SimulatedEvent) -> None:
        pass

    def wait(self, event: SimulatedEvent) -> None:
        pass

    def capture(self, work: Callable[[], None]) -> list[Callable[[], None]]:
        found: list[Callable[[], None]] = []
        self._captured = found
        try:
            work()
        finally:
            self._captured = None
        return found

    def replay(self, graph: list[Callable[[], None]]) -> None:
        for work in graph:
            work()

    def synchronize(self) -> None:
        pass


class SimulatedDevice:
    """The GPU number ``index`` of the simulator, of the kind that kernels are written for first. Memory is filled with
    NaN or -1 before anything is written to it."""

    def __init__(self, index: int, capability: tuple[int, int] = (8, 0), memory: int = _MEMORY):
        self.properties = Properties(index, "simulator", capability, memory, 1, 163 << 10, simulated=True)
        self.lock = threading.RLock()
        self._memory = CheckedMemory()
        self._used = 0
        self.compute = SimulatedStream(self._memory)
        self.copies = SimulatedStream(self._memory)
        self.states = States(self)

    def activate(self) -> None:
        pass

    def allocate(self, nbytes: int) -> Allocation:
        if nbytes > self.free_bytes():
            raise DeviceMemoryError(f"{nbytes} bytes do not fit in the {self.free_bytes()} free of {self.properties}")
        self._used += nbytes
        raw = np.full(nbytes + ALIGNMENT, _GARBAGE, np.uint8)
        address = self._memory.add("the GPU's memory", aligned_array(raw, (nbytes,), u8))

        found = Allocation(address, nbytes)
        weakref.finalize(found, self._free, address, nbytes).atexit = False
        return found

    def _free(self, address: int, nbytes: int) -> None:
        self._used -= nbytes
        self._memory.remove(address)

    def free_bytes(self) -> int:
        return self.properties.memory - self._used

    def pinned(self, nbytes: int) -> np.ndarray:
        return np.full(nbytes, _GARBAGE, np.uint8)

    def event(self, timed: bool = False) -> SimulatedEvent:
        return SimulatedEvent()

    def tensor_map(self, at: int, array: TensorMap) -> np.ndarray:
        return array.for_simulator(at)

    def load(self, kernel: Kernel, code: bytes) -> SimulatedFunction:
        """The kernel from its text; there is no code."""
        return SimulatedFunction(
            getattr(load_source(kernel), kernel.name), kernel.threads, kernel.shared, kernel.cooperative
        )
