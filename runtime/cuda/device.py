"""What the executor asks of a GPU: memory, two streams, launches, graphs, events.

Two classes have it: one over the driver (driver.py), and one that runs kernels in the simulator (simulated.py).
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np

from engine.program import Kernel
from engine.records import dataclass
from engine.state import Cell
from runtime.cuda.tensor_map import TensorMap

LEAST_CAPABILITY = (8, 0)
"""The oldest GPUs that kernels are written for: Ampere, with asynchronous copies and bf16."""


@dataclass(frozen=True)
class Properties:
    """What a GPU is. ``architecture`` is what kernels are compiled for, ``processor`` what they are assembled for;
    ``memory`` is in bytes, ``shared`` the most bytes of shared memory of one block, ``clock`` in Hz."""

    index: int
    name: str
    capability: tuple[int, int]
    memory: int
    multiprocessors: int
    shared: int
    clock: float = 1e9
    simulated: bool = False

    @property
    def target(self) -> str:
        return f"cuda:{self.index}"

    @property
    def architecture(self) -> str:
        """Hopper's own instructions run on compute capability 9.0 alone; all others run what Ampere runs."""
        return "sm_90a" if self.capability == (9, 0) else "sm_80"

    @property
    def processor(self) -> str:
        return "sm_90a" if self.capability == (9, 0) else "sm_{}{}".format(*self.capability)

    def __str__(self) -> str:
        major, minor = self.capability
        what = "the simulator, for correctness alone" if self.simulated else self.name
        return f"{self.target}: {what} (compute capability {major}.{minor}), {self.memory >> 20} MiB"


class Allocation:
    """``nbytes`` bytes of a GPU's memory from ``address`` on. They are freed once nobody holds this."""

    def __init__(self, address: int, nbytes: int):
        self.address = address
        self.nbytes = nbytes


Function: TypeAlias = Any
"""A kernel on a device, which its streams launch."""

Graph: TypeAlias = Any
"""Work that a stream has captured, and launches as a whole."""


class Event(Protocol):
    """A place in a stream: where it was recorded last."""

    def wait(self) -> None:
        """Until the stream has come to it; at once where it was never recorded."""

    def seconds_since(self, earlier: Any) -> float:
        """The time from another event to this one, both of which have come."""


class Stream(Protocol):
    """Work that a GPU does in order. Nothing here waits for it, and what it copies must stay until it is done."""

    def upload(self, address: int, array: np.ndarray) -> None:
        """Copy a contiguous array to the GPU."""

    def download(self, array: np.ndarray, address: int) -> None:
        """Copy into a contiguous array."""

    def copy(self, to: int, source: int, nbytes: int) -> None: ...

    def clear(self, address: int, nbytes: int) -> None:
        """Make these bytes zero."""

    def launch(self, function: Function, blocks: int, args: np.ndarray) -> None:
        """Run ``blocks`` blocks of a kernel with ``args``, i64. The array may be used again afterwards."""

    def record(self, event: Any) -> None:
        """``event`` is here now."""

    def wait(self, event: Any) -> None:
        """What follows starts once another stream has come to ``event``."""

    def capture(self, work: Callable[[], None]) -> Graph:
        """What ``work`` asks of this stream, as a graph; none of it is done now."""

    def replay(self, graph: Graph) -> None: ...

    def synchronize(self) -> None:
        """Wait until all of it is done. Raises DeviceError where a kernel has failed."""


class Device(Protocol):
    """One GPU of this process. Who calls anything of it holds ``lock``, and has called ``activate`` in this thread."""

    properties: Properties
    lock: threading.RLock
    states: States

    @property
    def compute(self) -> Stream:
        """The stream in which steps run."""

    @property
    def copies(self) -> Stream:
        """The stream in which inputs arrive."""

    def activate(self) -> None:
        """Have this thread's calls go to this GPU."""

    def allocate(self, nbytes: int) -> Allocation:
        """Memory whose address is a multiple of 256. Raises DeviceMemoryError."""

    def free_bytes(self) -> int: ...

    def pinned(self, nbytes: int) -> np.ndarray:
        """Bytes of the host's memory that the GPU copies from and to by itself; freed once nobody holds them."""

    def event(self, timed: bool = False) -> Event: ...

    def tensor_map(self, at: int, array: TensorMap) -> np.ndarray:
        """The map of the array at address ``at``, encoded, in bytes; only GPUs of "sm_90a" know maps."""

    def load(self, kernel: Kernel, code: bytes) -> Function:
        """The kernel from its machine code. Raises UnsupportedError where it takes more than this GPU has."""


class State:
    """A cell's value on one GPU; ``version`` is that of the cell which it holds."""

    def __init__(self, device: Device, cell: Cell):
        self._device = device
        self.memory = device.allocate(cell.array.nbytes)
        self.version = -1
        self.lock = device.lock
        self._sent: np.ndarray | None = None

    def fetch(self, array: np.ndarray) -> None:
        self._device.activate()
        row_major = array if array.flags.c_contiguous else np.empty(array.shape, array.dtype)
        self._device.compute.download(row_major, self.memory.address)
        self._device.compute.synchronize()
        if row_major is not array:
            array[...] = row_major

    def refresh(self, cell: Cell) -> None:
        """Take over what was written since; the array must stay as it is until the compute stream has come here."""
        if self.version != cell.version:
            self._sent = np.ascontiguousarray(cell.array)  # which must not go before it has been copied
            self._device.compute.upload(self.memory.address, self._sent)
            self.version = cell.version


class States:
    """The cells that have a copy on one GPU."""

    def __init__(self, device: Device):
        self._device = device
        self._known: weakref.WeakKeyDictionary[Cell, State] = weakref.WeakKeyDictionary()

    def has(self, cell: Cell) -> bool:
        return cell in self._known

    def of(self, cell: Cell) -> State:
        """The copy of ``cell``, made at first use. Raises DeviceMemoryError."""
        if cell not in self._known:
            self._known[cell] = State(self._device, cell)
        return self._known[cell]
