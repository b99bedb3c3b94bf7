"""From a Program to kernels on a GPU: from this process, from the cache of machine code, or from the compiler."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping

from engine.program import Kernel, Program
from engine.state import Cell
from runtime.cache import CUBIN, Cache, digest
from runtime.code_report import Report
from runtime.cuda.compile import Processor, compile_kernels
from runtime.cuda.device import Device, Function
from runtime.cuda.devices import open_device
from runtime.cuda.executor import Executor
from runtime.cuda.guards import has_joined_guards, joined_guards
from runtime.fingerprint import cuda_environment

_lock = threading.RLock()
_loaded: dict[tuple[int, str], Function] = {}
"""By the GPU's index and the kernel's identity."""


def identity_of(kernel: Kernel, processor: Processor) -> str:
    """What the cache knows its machine code by."""
    return digest(kernel.name, kernel.source, str(kernel.threads), processor.architecture, processor.name)


def load_functions(kernels: Iterable[Kernel], device: Device, cache: Cache) -> tuple[dict[str, Function], Report]:
    """Each kernel on ``device``, by key; what is compiled is stored in ``cache``. Raises CompileError, and
    UnsupportedError for a kernel that takes more than the GPU has."""
    start = time.perf_counter()
    properties = device.properties
    processor = Processor(properties.architecture, properties.processor)
    functions: dict[str, Function] = {}
    code: dict[str, bytes] = {}
    waiting: dict[str, Kernel] = {}
    known: set[str] = set()
    took: dict[str, float] = {}
    environment = cuda_environment()
    with _lock:
        for key, kernel in {k.key: k for k in kernels}.items():
            identity = identity_of(kernel, processor)
            found = _loaded.get((properties.index, identity))
            if found is not None:
                functions[key] = found
                known.add(key)
                continue
            waiting[key] = kernel
            data = b"" if properties.simulated else cache.load(CUBIN, identity, environment, kernel.name)
            if data is not None:
                code[key] = data
        loaded = 0 if properties.simulated else len(code)
        missing = [k for key, k in waiting.items() if key not in code]
        if missing:
            code |= compile_kernels(missing, processor, seconds=took)
            for kernel in missing:
                cache.store(CUBIN, identity_of(kernel, processor), environment, code[kernel.key])
        with device.lock:
            device.activate()
            for key, kernel in waiting.items():
                function = device.load(kernel, code[key])
                functions[key] = _loaded[properties.index, identity_of(kernel, processor)] = function
    seconds = time.perf_counter() - start
    return functions, Report(len(missing), loaded, len(known), seconds, took, frozenset(known))


def build(program: Program, cells: Mapping[str, Cell], cache: Cache, index: int) -> tuple[Executor, Report]:
    """An executor of ``program`` on the GPU of that index, over the state in ``cells``; compiles what neither memory
    nor ``cache`` holds. Raises what :func:`load_functions` and :class:`Executor` raise, and :func:`open_device`."""
    device = open_device(index)
    kernels = list(program.kernels)
    joined = joined_guards() if has_joined_guards(program) else None
    if joined is not None:
        kernels.append(joined)
    functions, report = load_functions(kernels, device, cache)
    executor = Executor(program, cells, device, functions, None if joined is None else functions[joined.key])
    return executor, report
