"""What this machine can do at most, measured: multiply-adds in registers, and copies in memory."""

from __future__ import annotations

import ctypes
import functools
import threading
import time
from collections.abc import Callable

import numpy as np

_CHAINS = 12  # independent sums that hide an FMA's latency, on every machine of the last ten years
_ROUNDS = 2_000_000
_COPIED = 32 << 20  # bytes a thread copies: beyond any share of a cache


def peak_flops(threads: int) -> float:
    """Float32 operations a second of fused multiply-adds in registers, an FMA being two."""
    chains, lanes = _fma_loop()
    return threads * _ROUNDS * _CHAINS * lanes * 2 / _fastest([lambda: chains(_ROUNDS)] * threads)


def copy_bandwidth(threads: int) -> float:
    """Bytes a second read and written, both counted, while each thread copies a large array."""
    arrays = [(np.zeros(_COPIED, np.uint8), np.ones(_COPIED, np.uint8)) for _ in range(threads)]
    return threads * 2 * _COPIED / _fastest([functools.partial(np.copyto, *pair) for pair in arrays])


def _fastest(calls: list[Callable[[], object]], tries: int = 12) -> float:
    """Seconds that all calls take side by side, the best of several tries. Each must let go of the interpreter."""
    best = float("inf")
    for _ in range(tries):
        running = [threading.Thread(target=call) for call in calls]
        start = time.perf_counter()
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        best = min(best, time.perf_counter() - start)
    return best


@functools.cache
def _fma_loop() -> tuple[Callable[[int], float], int]:
    """A machine-code loop of fused multiply-adds on the widest vectors, and its lanes."""
    import llvmlite.binding as llvm
    from llvmlite import ir

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features()
    lanes = 16 if features.get("avx512f") else 8 if features.get("avx2") else 4
    vector, count = ir.VectorType(ir.FloatType(), lanes), ir.IntType(64)

    module = ir.Module()
    module.triple = llvm.get_process_triple()
    fma = ir.Function(module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{lanes}f32")
    function = ir.Function(module, ir.FunctionType(ir.FloatType(), [count]), "chains")
    entry, loop, end = (function.append_basic_block(name) for name in ("entry", "loop", "end"))
    builder = ir.IRBuilder(entry)
    builder.branch(loop)
    builder.position_at_end(loop)
    done = builder.phi(count)
    sums = [builder.phi(vector) for _ in range(_CHAINS)]
    factor, addend = (ir.Constant(vector, [value] * lanes) for value in (0.999, 0.5))
    nexts = [builder.call(fma, [s, factor, addend]) for s in sums]
    following = builder.add(done, count(1))
    done.add_incoming(count(0), entry)
    done.add_incoming(following, loop)
    for number, (old, new) in enumerate(zip(sums, nexts, strict=True)):
        old.add_incoming(ir.Constant(vector, [float(number)] * lanes), entry)
        old.add_incoming(new, loop)
    builder.cbranch(builder.icmp_signed("<", following, function.args[0]), loop, end)
    builder.position_at_end(end)
    builder.ret(builder.extract_element(functools.reduce(builder.fadd, nexts), ir.IntType(32)(0)))

    target = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=2
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(str(module)), target)
    engine.finalize_object()
    chains = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_int64)(engine.get_function_address("chains"))
    chains.engine = engine  # type: ignore[attr-defined]  # the code lives as long as its engine
    return chains, lanes
