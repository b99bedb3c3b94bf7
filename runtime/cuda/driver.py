"""A GPU by the CUDA driver's interface, through cuda.bindings. Nothing of numba is needed where kernels are compiled.

The driver frees memory at once, whatever still uses it, and may not be called while a stream is captured. So what
nobody holds any more is noted, by whichever thread finds out, and freed where the next memory is asked for.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections import deque
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from engine.errors import DeviceError, DeviceMemoryError, UnsupportedError
from engine.program import Kernel
from engine.records import dataclass
from engine.state import address as address_of
from runtime.cuda.device import Allocation, Properties, States
from runtime.cuda.tensor_map import BYTES, TensorMap

LEAST_DRIVER = 13000
"""The CUDA version of the oldest driver that loads the code which the extra's ptxas makes, as cuDriverGetVersion gives
it."""
_PLAIN_SHARED = 48 << 10
"""Bytes of shared memory that a block may have without a kernel's asking for it."""


def api() -> ModuleType:
    """The driver's interface. Raises UnsupportedError where the extra is not installed."""
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise UnsupportedError(
            f'target="cuda" needs the packages of the extra "cuda": pip install "tenon[cuda]" ({error})'
        ) from None
    return driver


def called(api: Any, name: str, *args: Any) -> Any:
    """What a function of the driver gives: None, a value or several. Raises DeviceError with the driver's words."""
    status, *values = getattr(api, name)(*args)
    if status != api.CUresult.CUDA_SUCCESS:
        raise DeviceError(f"{name} failed: {_words(api, status)}")
    return None if not values else values[0] if len(values) == 1 else values


def _words(api: Any, status: Any) -> str:
    _, text = api.cuGetErrorString(status)
    return f"{status.name} ({text.decode() if text else 'unknown'})"


def found(api: Any) -> list[Properties]:
    """The GPUs of the machine. Raises DeviceError where there is no driver, or one that is too old."""
    try:
        (status,) = api.cuInit(0)
    except RuntimeError as error:
        raise DeviceError(f'target="cuda": no NVIDIA driver was found on this machine ({error})') from None
    if status == api.CUresult.CUDA_ERROR_NO_DEVICE:
        return []
    if status != api.CUresult.CUDA_SUCCESS:
        raise DeviceError(f'target="cuda": the NVIDIA driver does not start: {_words(api, status)}')
    version = called(api, "cuDriverGetVersion")
    if version < LEAST_DRIVER:
        raise DeviceError(
            f'target="cuda": the NVIDIA driver supports CUDA {_version(version)}; {_version(LEAST_DRIVER)} is needed '
            "(driver 580 or newer)"
        )
    return [_properties(api, i) for i in range(called(api, "cuDeviceGetCount"))]


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _properties(api: Any, index: int) -> Properties:
    device = called(api, "cuDeviceGet", index)

    def attribute(name: str) -> int:
        return int(called(api, "cuDeviceGetAttribute", getattr(api.CUdevice_attribute, name), device))

    return Properties(
        index,
        called(api, "cuDeviceGetName", 256, device).split(b"\0")[0].decode(),
        (attribute("CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR"),
         attribute("CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR")),
        int(called(api, "cuDeviceTotalMem", device)),
        attribute("CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT"),
        attribute("CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"),
        attribute("CU_DEVICE_ATTRIBUTE_CLOCK_RATE") * 1e3,
    )  # fmt: skip


@dataclass(frozen=True)
class DriverFunction:
    """A loaded kernel, and how it is launched."""

    handle: Any
    name: str
    threads: int
    shared: int
    cooperative: bool


class DriverEvent:
    def __init__(self, device: DriverDevice, timed: bool):
        self._device = device
        flags = 0 if timed else int(device.api.CUevent_flags.CU_EVENT_DISABLE_TIMING)
        self.handle = device.call("cuEventCreate", flags)
        device.free_later(self, "cuEventDestroy", self.handle)

    def wait(self) -> None:
        self._device.call("cuEventSynchronize", self.handle)

    def seconds_since(self, earlier: DriverEvent) -> float:
        return float(self._device.call("cuEventElapsedTime", earlier.handle, self.handle)) / 1e3


class DriverGraph:
    """A graph that can be launched; ``handle`` is the driver's."""

    def __init__(self, device: DriverDevice, handle: Any):
        self.handle = handle
        device.free_later(self, "cuGraphExecDestroy", handle)


class DriverStream:
    """A stream that does not wait for others, nor they for it, unless told so."""

    def __init__(self, device: DriverDevice):
        self._device = device
        self._call = device.call
        self._stream = device.call("cuStreamCreate", int(device.api.CUstream_flags.CU_STREAM_NON_BLOCKING))
        self._capturing = False

    def upload(self, address: int, array: np.ndarray) -> None:
        if array.nbytes:
            self._call("cuMemcpyHtoDAsync", address, address_of(array), array.nbytes, self._stream)

    def download(self, array: np.ndarray, address: int) -> None:
        if array.nbytes:
            self._call("cuMemcpyDtoHAsync", address_of(array), address, array.nbytes, self._stream)

    def copy(self, to: int, source: int, nbytes: int) -> None:
        self._call("cuMemcpyDtoDAsync", to, source, nbytes, self._stream)

    def clear(self, address: int, nbytes: int) -> None:
        self._call("cuMemsetD8Async", address, 0, nbytes, self._stream)

    def launch(self, function: DriverFunction, blocks: int, args: np.ndarray) -> None:
        pointers = address_of(args) + 8 * np.arange(len(args), dtype=np.int64)
        size = (blocks, 1, 1, function.threads, 1, 1, function.shared)
        if function.cooperative:
            self._call("cuLaunchCooperativeKernel", function.handle, *size, self._stream, pointers)
        else:
            self._call("cuLaunchKernel", function.handle, *size, self._stream, pointers, 0)

    def record(self, event: DriverEvent) -> None:
        if self._capturing:  # a time that others may ask for, not an edge of the graph
            flag = int(self._device.api.CUevent_record_flags.CU_EVENT_RECORD_EXTERNAL)
            self._call("cuEventRecordWithFlags", event.handle, self._stream, flag)
        else:
            self._call("cuEventRecord", event.handle, self._stream)

    def wait(self, event: DriverEvent) -> None:
        self._call("cuStreamWaitEvent", self._stream, event.handle, 0)

    def capture(self, work: Callable[[], None]) -> DriverGraph:
        mode = self._device.api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", self._stream, mode)
        self._capturing = True
        try:
            work()
        except BaseException:
            self._device.api.cuStreamEndCapture(self._stream)
            raise
        finally:
            self._capturing = False
        graph = self._call("cuStreamEndCapture", self._stream)
        try:
            return DriverGraph(self._device, self._call("cuGraphInstantiate", graph, 0))
        finally:
            self._call("cuGraphDestroy", graph)

    def replay(self, graph: DriverGraph) -> None:
        self._call("cuGraphLaunch", graph.handle, self._stream)

    def synchronize(self) -> None:
        self._call("cuStreamSynchronize", self._stream)


class DriverDevice:
    """The GPU number ``index``, in the context that other libraries of this process use too."""

    def __init__(self, api: Any, index: int):
        self.api = api
        self.properties = _properties(api, index)
        self.lock = threading.RLock()
        self._unused: deque[tuple[str, Any]] = deque()
        self._context = self.call("cuDevicePrimaryCtxRetain", self.call("cuDeviceGet", index))
        self.activate()
        self.compute = DriverStream(self)
        self.copies = DriverStream(self)
        self.states = States(self)

    def call(self, name: str, *args: Any) -> Any:
        return called(self.api, name, *args)

    def activate(self) -> None:
        self.call("cuCtxSetCurrent", self._context)

    # --- memory --------------------------------------------------------------------------------------------

    def allocate(self, nbytes: int) -> Allocation:
        self._free_unused()
        status, address = self.api.cuMemAlloc(max(nbytes, 1))
        if status == self.api.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            free, total = self.call("cuMemGetInfo")
            raise DeviceMemoryError(
                f"{nbytes:,} bytes in one piece were asked for on {self.properties.target}, where {free:,} of "
                f"{total:,} are free in all"
            )
        if status != self.api.CUresult.CUDA_SUCCESS:
            raise DeviceError(f"cuMemAlloc of {nbytes:,} bytes failed: {_words(self.api, status)}")
        found = Allocation(int(address), nbytes)
        self.free_later(found, "cuMemFree", found.address)
        return found

    def free_bytes(self) -> int:
        self._free_unused()
        return int(self.call("cuMemGetInfo")[0])

    def pinned(self, nbytes: int) -> np.ndarray:
        if not nbytes:
            return np.empty(0, np.uint8)
        self._free_unused()
        address = int(self.call("cuMemHostAlloc", nbytes, 0))
        memory = (ctypes.c_uint8 * nbytes).from_address(address)
        self.free_later(memory, "cuMemFreeHost", address)
        return np.ctypeslib.as_array(memory)

    def free_later(self, holder: object, function: str, handle: Any) -> None:
        """Hand ``handle`` back to the driver by this function once nobody holds ``holder``."""
        weakref.finalize(holder, self._unused.append, (function, handle)).atexit = False

    def _free_unused(self) -> None:
        if self._unused:
            self.compute.synchronize()
            self.copies.synchronize()
            while self._unused:
                self.call(*self._unused.popleft())

    # --- kernels -------------------------------------------------------------------------------------------

    def event(self, timed: bool = False) -> DriverEvent:
        return DriverEvent(self, timed)

    def tensor_map(self, at: int, array: TensorMap) -> np.ndarray:
        api, kinds = self.api, self.api.CUtensorMapDataType
        kind = {2: kinds.CU_TENSOR_MAP_DATA_TYPE_UINT16, 4: kinds.CU_TENSOR_MAP_DATA_TYPE_UINT32}[array.itemsize]
        swizzles = api.CUtensorMapSwizzle
        swizzle = {
            0: swizzles.CU_TENSOR_MAP_SWIZZLE_NONE, 32: swizzles.CU_TENSOR_MAP_SWIZZLE_32B,
            64: swizzles.CU_TENSOR_MAP_SWIZZLE_64B, 128: swizzles.CU_TENSOR_MAP_SWIZZLE_128B,
        }[array.swizzle]  # fmt: skip
        rank, window = len(array.shape), array.window
        given = (
            kind, rank, at, [api.cuuint64_t(max(n, 1)) for n in reversed(array.shape)],
            [api.cuuint64_t(n) for n in reversed(array.strides)],
        )  # fmt: skip
        box = [api.cuuint32_t(n) for n in reversed(array.box)]
        how = (
            api.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            api.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            api.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
        if window is None:
            encoded = self.call("cuTensorMapEncodeTiled", *given, box, [api.cuuint32_t(1)] * rank, *how)
        else:
            steps = [api.cuuint32_t(n) for n in (1, *reversed(window.step), 1)]
            corners = [[int(n) for n in reversed(corner)] for corner in (window.first, window.last)]
            encoded = self.call("cuTensorMapEncodeIm2col", *given, *corners, *box, steps, *how)
        return np.frombuffer(ctypes.string_at(int(encoded.getPtr()), BYTES), np.uint8)

    def load(self, kernel: Kernel, code: bytes) -> DriverFunction:
        if kernel.shared > self.properties.shared:
            raise UnsupportedError(
                f"the kernel {kernel.name!r} takes {kernel.shared:,} bytes of shared memory; a block of "
                f"{self.properties} has {self.properties.shared:,} at most"
            )
        module = self.call("cuModuleLoadData", code)  # stays for good: functions are shared by all programs
        function = self.call("cuModuleGetFunction", module, kernel.name.encode())
        self.call("cuFuncLoad", function)  # now, for it may not be loaded while a stream is captured
        if kernel.shared > _PLAIN_SHARED:
            attribute = self.api.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            self.call("cuFuncSetAttribute", function, attribute, kernel.shared)
        return DriverFunction(function, kernel.name, kernel.threads, kernel.shared, kernel.cooperative)
