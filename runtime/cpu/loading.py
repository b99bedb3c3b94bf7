"""From a Program to machine code in memory: from this process, from the cache, or from the compiler."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from engine import settings
from engine.errors import CompileError, UnsupportedError
from engine.program import Kernel, Program
from engine.state import Cell
from runtime.cache import OBJECT, Cache, digest
from runtime.code_report import Report
from runtime.cpu.driver import driver_kernel, timed_driver_kernel
from runtime.cpu.executor import Executor
from runtime.cpu.objects import Code, link, symbol
from runtime.fingerprint import cpu_environment

if TYPE_CHECKING:
    from runtime.cpu.unjitted import UnjittedExecutor

_lock = threading.RLock()
_in_memory: dict[str, Code] = {}


def load_code(kernels: Iterable[Kernel], cache: Cache) -> tuple[dict[str, Code], Report]:
    """The machine code of each kernel, by key; what is compiled is stored in ``cache``. Raises CompileError."""
    start = time.perf_counter()
    environment = cpu_environment()
    code: dict[str, Code] = {}
    missing: dict[str, Kernel] = {}
    loaded = 0
    known: set[str] = set()
    took: dict[str, float] = {}
    with _lock:
        for kernel in {k.key: k for k in kernels}.values():
            identity = identity_of(kernel)
            if identity in _in_memory:
                code[kernel.key] = _in_memory[identity]
                known.add(kernel.key)
                continue
            data = cache.load(OBJECT, identity, environment, kernel.name)
            if data is not None:
                try:
                    code[kernel.key] = _in_memory[identity] = link(data, symbol(kernel.name), kernel.libm)
                    loaded += 1
                    continue
                except CompileError as error:
                    cache.reject(OBJECT, identity, environment, error.message)
            missing[kernel.key] = kernel
        if missing:
            from runtime.cpu.compile import compile_kernels

            for key, data in compile_kernels(list(missing.values()), seconds=took).items():
                identity = identity_of(missing[key])
                code[key] = _in_memory[identity] = link(data, symbol(missing[key].name), missing[key].libm)
                cache.store(OBJECT, identity, environment, data)
    seconds = time.perf_counter() - start
    return code, Report(len(missing), loaded, len(known), seconds, took, frozenset(known))


def timed_driver(cache: Cache) -> Code:
    """The driver that writes down when each thread ran which step; compiled where it is missing."""
    if not settings.get("jit"):
        raise UnsupportedError("kernels run in Python (TENON_JIT=0): a profile of them would say nothing")
    kernel = timed_driver_kernel()
    return load_code([kernel], cache)[0][kernel.key]


def identity_of(kernel: Kernel) -> str:
    """What the cache knows its code by."""
    return digest(kernel.name, kernel.source)


def build(program: Program, cells: Mapping[str, Cell], cache: Cache) -> tuple[Executor | UnjittedExecutor, Report]:
    """An executor of ``program`` over the state in ``cells``; compiles what neither memory nor ``cache`` holds.

    Where ``TENON_JIT=0`` is set, kernels run in Python, and nothing is compiled. Raises CompileError, and StateError
    where ``cells`` does not fit the program.
    """
    if not settings.get("jit"):
        from runtime.cpu.unjitted import UnjittedExecutor

        return UnjittedExecutor(program, cells), Report(0, 0, 0, 0.0, {}, frozenset())
    code, report = load_code([driver_kernel(), *program.kernels], cache)
    return Executor(program, cells, code), report
