"""The CUDA driver's interface without a GPU, as unhelpful as a driver may be: kernels run in the simulator.

A stream does its work when it pleases: ``late`` ones only when somebody waits for them, the others at once. Memory that
the host has pinned is read and written at that time, so a missing wait shows in the results. Calls that a driver
refuses (in a thread without a context, while a stream is captured) are refused here too.

Each call is first made to cuda.bindings itself, which checks the arguments before it looks for a driver.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import astuple
from types import SimpleNamespace
from typing import Any

import numpy as np
from cuda.bindings import driver as real

from engine.program import Kernel, Window
from runtime.checked_memory import CheckedMemory
from runtime.cuda.simulator.machine import launch
from runtime.cuda.tensor_map import TensorMap
from runtime.sources import load_source

OK, STATUS = real.CUresult.CUDA_SUCCESS, real.CUresult
_WITHOUT_CONTEXT = ("cuInit", "cuDriverGetVersion", "cuDevice", "cuCtxSetCurrent", "cuGetError")
_NOT_WHILE_CAPTURED = ("cuMemAlloc", "cuMemFree", "cuMemHostAlloc", "cuMemFreeHost", "cuModuleLoadData", "cuFuncLoad")
_DEVICE = {"MAJOR": 8, "MINOR": 0, "MULTIPROCESSOR_COUNT": 4, "OPTIN": 163 << 10, "CLOCK_RATE": 1_000_000}


@functools.cache
def _no_driver() -> bool:
    try:
        real.cuInit(0)
    except RuntimeError:
        return True
    return False


def code_of(kernel: Kernel) -> bytes:
    """What stands for a kernel's machine code here."""
    return json.dumps(astuple(kernel)).encode()


class Stream:
    def __init__(self, late: bool):
        self.late = late
        self.waiting: deque[Callable[[], None]] = deque()
        self.captured: list[Callable[[], None]] | None = None
        self.done = 0
        self.asked = 0

    def add(self, work: Callable[[], None]) -> None:
        if self.captured is not None:
            self.captured.append(work)
            return
        self.waiting.append(work)
        self.asked += 1
        if not self.late:
            self.run(self.asked)

    def run(self, upto: int) -> None:
        while self.done < upto:
            work = self.waiting.popleft()
            self.done += 1
            work()


class FakeDriver:
    """``late`` says which of the streams, in the order of their making, put off their work; ``memory`` is what the GPU
    has. ``calls`` holds the names of all calls, ``problems`` what no program may do."""

    CUresult = STATUS

    def __init__(
        self, late: tuple[bool, bool] = (True, True), memory: int = 1 << 28, version: int = 13000, count: int = 1,
        capability: tuple[int, int] = (8, 0),
    ):  # fmt: skip
        self.late, self.total, self.version, self.count, self.capability = late, memory, version, count, capability
        self.calls: list[str] = []
        self.problems: list[str] = []
        self.allocated: dict[int, int] = {}
        self.attributes: list[tuple[Any, int]] = []
        self.graphs = 0
        self._memory = CheckedMemory()
        self._streams: list[Stream] = []
        self._events: list[tuple[Stream, int] | None] = []
        self._pinned: dict[int, np.ndarray] = {}
        self._times: dict[int, float] = {}
        self._modules: list[bytes] = []
        self._functions: list[tuple[Any, Kernel]] = []
        self._graphs: list[list[Callable[[], None]]] = []
        self._current = threading.local()

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith(("cu", "CU")) or name == "CUresult":
            return super().__getattribute__(name)
        if name.startswith("CU") or name.startswith("cuuint"):  # a type
            return getattr(real, name)
        try:
            found = super().__getattribute__("_" + name)
        except AttributeError:
            raise AssertionError(f"the fake driver has no {name}") from None
        return lambda *args: self._made(name, found, args)

    def _made(self, name: str, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        self.calls.append(name)
        if _no_driver():
            with contextlib.suppress(RuntimeError):  # the arguments were taken, and no driver was found
                getattr(real, name)(*args)
        if not name.startswith(_WITHOUT_CONTEXT) and not getattr(self._current, "set", False):
            return STATUS.CUDA_ERROR_INVALID_CONTEXT, None
        if name in _NOT_WHILE_CAPTURED and any(s.captured is not None for s in self._streams):
            return STATUS.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, None
        result = function(*args)
        return (OK,) if result is None else result if isinstance(result, tuple) else (OK, result)

    # --- devices -------------------------------------------------------------------------------------------

    def _cuInit(self, flags: int) -> Any:
        return None if self.count else (STATUS.CUDA_ERROR_NO_DEVICE,)

    def _cuGetErrorString(self, status: Any) -> Any:
        return OK, status.name.lower().encode()

    def _cuDriverGetVersion(self) -> int:
        return self.version

    def _cuDeviceGetCount(self) -> int:
        return self.count

    def _cuDeviceGet(self, index: int) -> Any:
        return real.CUdevice(index)

    def _cuDeviceGetName(self, length: int, device: Any) -> bytes:
        return b"Fake GPU".ljust(length, b"\0")

    def _cuDeviceTotalMem(self, device: Any) -> int:
        return self.total

    def _cuDeviceGetAttribute(self, attribute: Any, device: Any) -> int:
        found = _DEVICE | {"MAJOR": self.capability[0], "MINOR": self.capability[1]}
        return next(value for end, value in found.items() if attribute.name.endswith(end))

    def _cuDevicePrimaryCtxRetain(self, device: Any) -> Any:
        return real.CUcontext(1)

    def _cuCtxSetCurrent(self, context: Any) -> None:
        self._current.set = True

    # --- memory --------------------------------------------------------------------------------------------

    def _cuTensorMapEncodeTiled(self, kind: Any, rank: int, address: int, size: Any, strides: Any, box: Any,
                                steps: Any, *options: Any) -> Any:  # fmt: skip
        itemsize = int(kind.name.removeprefix("CU_TENSOR_MAP_DATA_TYPE_UINT")) // 8
        swizzle = int(options[1].name.removeprefix("CU_TENSOR_MAP_SWIZZLE_").removesuffix("B"))
        assert rank == len(size) == len(steps)
        shape, strides, box = (tuple(map(int, reversed(sizes))) for sizes in (size, strides, box))
        encoded = TensorMap(shape, strides, itemsize, box, swizzle).for_simulator(address)
        return SimpleNamespace(getPtr=lambda: encoded.ctypes.data)

    def _cuTensorMapEncodeIm2col(self, kind: Any, rank: int, address: int, size: Any, strides: Any, lower: Any,
                                 upper: Any, channels: Any, pixels: Any, steps: Any, *options: Any) -> Any:  # fmt: skip
        itemsize = int(kind.name.removeprefix("CU_TENSOR_MAP_DATA_TYPE_UINT")) // 8
        swizzle = int(options[1].name.removeprefix("CU_TENSOR_MAP_SWIZZLE_").removesuffix("B"))
        assert rank == len(size) == len(steps) == 4 and (int(steps[0]), int(steps[3])) == (1, 1)
        shape, strides, steps = (tuple(map(int, reversed(sizes))) for sizes in (size, strides, steps))
        window = Window(tuple(reversed(lower)), tuple(reversed(upper)), steps[1:3])
        box = (int(pixels), int(channels))
        encoded = TensorMap(shape, strides, itemsize, box, swizzle, window).for_simulator(address)
        return SimpleNamespace(getPtr=lambda: encoded.ctypes.data)

    def _cuMemGetInfo(self) -> Any:
        return OK, self.total - sum(self.allocated.values()), self.total

    def _cuMemAlloc(self, nbytes: int) -> Any:
        if nbytes > self.total - sum(self.allocated.values()):
            return STATUS.CUDA_ERROR_OUT_OF_MEMORY, None
        address = self._memory.add("the GPU's memory", np.full(nbytes, 0xFF, np.uint8))
        self.allocated[address] = nbytes
        return real.CUdeviceptr(address)

    def _cuMemFree(self, address: int) -> None:
        if any(s.waiting for s in self._streams):
            self.problems.append("memory is freed while work waits that may use it")
        del self.allocated[address]
        self._memory.remove(address)

    def _cuMemHostAlloc(self, nbytes: int, flags: int) -> int:
        array = np.full(nbytes, 0xFF, np.uint8)
        self._pinned[array.ctypes.data] = array
        return array.ctypes.data

    def _cuMemFreeHost(self, address: int) -> None:
        if any(s.waiting for s in self._streams):
            self.problems.append("pinned memory is freed while work waits that may use it")
        del self._pinned[address]

    def _is_pinned(self, address: int, nbytes: int) -> bool:
        return any(a <= address and address + nbytes <= a + array.nbytes for a, array in self._pinned.items())

    def _bytes(self, address: int, nbytes: int) -> np.ndarray:
        region, start = self._memory.place(int(address), nbytes, "copies")
        return region.bytes[start : start + nbytes]

    def _cuMemcpyHtoDAsync(self, to: int, source: int, nbytes: int, stream: Any) -> Any:
        s = self._stream(stream)
        if self._is_pinned(source, nbytes):
            s.add(lambda: ctypes.memmove(self._bytes(to, nbytes).ctypes.data, source, nbytes))
            return None
        if s.captured is not None:
            return (STATUS.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,)
        data = ctypes.string_at(source, nbytes)  # the driver has copied it when it returns
        s.add(lambda: ctypes.memmove(self._bytes(to, nbytes).ctypes.data, data, nbytes))
        return None

    def _cuMemcpyDtoHAsync(self, to: int, source: int, nbytes: int, stream: Any) -> Any:
        s = self._stream(stream)
        s.add(lambda: ctypes.memmove(to, self._bytes(source, nbytes).ctypes.data, nbytes))
        if not self._is_pinned(to, nbytes):
            if s.captured is not None:
                return (STATUS.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,)
            s.run(s.asked)
        return None

    def _cuMemcpyDtoDAsync(self, to: int, source: int, nbytes: int, stream: Any) -> None:
        def work() -> None:
            self._bytes(to, nbytes)[:] = self._bytes(source, nbytes)

        self._stream(stream).add(work)

    def _cuMemsetD8Async(self, to: int, value: int, nbytes: int, stream: Any) -> None:
        def work() -> None:
            self._bytes(to, nbytes)[:] = value

        self._stream(stream).add(work)

    # --- streams -------------------------------------------------------------------------------------------

    def _cuStreamCreate(self, flags: int) -> Any:
        self._streams.append(Stream(self.late[len(self._streams)]))
        return real.CUstream(len(self._streams))

    def _stream(self, handle: Any) -> Stream:
        return self._streams[int(handle) - 1]

    def _cuStreamSynchronize(self, stream: Any) -> Any:
        s = self._stream(stream)
        if s.captured is not None:
            return (STATUS.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,)
        s.run(s.asked)
        return None

    def _cuEventCreate(self, flags: int) -> Any:
        self._events.append(None)
        return real.CUevent(len(self._events))

    def _cuEventDestroy(self, event: Any) -> None:
        pass

    def _cuEventRecord(self, event: Any, stream: Any) -> None:
        s = self._stream(stream)
        self._events[int(event) - 1] = s, s.asked
        s.add(lambda: self._times.__setitem__(int(event), time.perf_counter()))

    def _cuEventRecordWithFlags(self, event: Any, stream: Any, flags: int) -> None:
        assert flags == int(real.CUevent_record_flags.CU_EVENT_RECORD_EXTERNAL)
        self._stream(stream).add(lambda: self._times.__setitem__(int(event), time.perf_counter()))

    def _cuEventElapsedTime(self, start: Any, end: Any) -> float:
        return 1e3 * (self._times[int(end)] - self._times[int(start)])

    def _cuEventSynchronize(self, event: Any) -> None:
        at = self._events[int(event) - 1]
        if at is not None:
            at[0].run(at[1])

    def _cuStreamWaitEvent(self, stream: Any, event: Any, flags: int) -> None:
        at = self._events[int(event) - 1]  # as it was recorded last, when this is called
        if at is not None:
            self._stream(stream).add(lambda: at[0].run(at[1]))

    def _cuStreamBeginCapture(self, stream: Any, mode: Any) -> None:
        self._stream(stream).captured = []

    def _cuStreamEndCapture(self, stream: Any) -> Any:
        s = self._stream(stream)
        self._graphs.append(s.captured or [])
        s.captured = None
        return real.CUgraph(len(self._graphs))

    def _cuGraphInstantiate(self, graph: Any, flags: int) -> Any:
        self.graphs += 1
        return real.CUgraphExec(int(graph))

    def _cuGraphDestroy(self, graph: Any) -> None:
        pass

    def _cuGraphExecDestroy(self, graph: Any) -> None:
        self.graphs -= 1

    def _cuGraphLaunch(self, graph: Any, stream: Any) -> None:
        for work in self._graphs[int(graph) - 1]:
            self._stream(stream).add(work)

    # --- kernels -------------------------------------------------------------------------------------------

    def _cuModuleLoadData(self, image: bytes) -> Any:
        self._modules.append(image)
        return real.CUmodule(len(self._modules))

    def _cuModuleGetFunction(self, module: Any, name: bytes) -> Any:
        kernel = Kernel(*json.loads(self._modules[int(module) - 1]))
        assert kernel.name.encode() == name
        self._functions.append((getattr(load_source(kernel), kernel.name), kernel))
        return real.CUfunction(len(self._functions))

    def _cuFuncLoad(self, function: Any) -> None:
        pass

    def _cuFuncSetAttribute(self, function: Any, attribute: Any, value: int) -> None:
        self.attributes.append((attribute, value))

    def _cuLaunchKernel(self, *args: Any) -> None:
        *launch, extra = args
        assert extra == 0
        self._launched(*launch, cooperative=False)

    def _cuLaunchCooperativeKernel(self, *args: Any) -> None:
        self._launched(*args, cooperative=True)

    def _launched(self, function: Any, gx: int, gy: int, gz: int, bx: int, by: int, bz: int, shared: int, stream: Any,
                  parameters: Any, cooperative: bool) -> None:  # fmt: skip
        run, kernel = self._functions[int(function) - 1]
        assert (gy, gz, by, bz) == (1, 1, 1, 1) and cooperative == kernel.cooperative
        assert (bx, shared) == (kernel.threads, kernel.shared)
        args = [ctypes.c_int64.from_address(int(p)).value for p in parameters]
        self._stream(stream).add(
            lambda: launch(run, gx, bx, shared, args, self._memory, cooperative=kernel.cooperative)
        )
