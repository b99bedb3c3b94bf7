"""Runs a lowered kernel on NumPy arrays, serially and without the driver: one kernel, as its lowering made it."""

from __future__ import annotations

import ctypes

import numpy as np

from engine import dims
from engine.buffers import Buffer
from engine.dims import Size
from engine.dtypes import DType, f32, u8
from engine.program import ERROR, Arg, Block, Lowered, Pointer
from engine.schedule import Access, Stmt
from engine.state import aligned_empty
from runtime import cache
from runtime.cpu.loading import load_code

ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


def run(lowered: Lowered, arrays: dict[str, np.ndarray], values: dict[str, int] | None = None, splits: int = 1) -> None:
    """Run the calls in order on ``arrays`` (one C-contiguous array a buffer). Buffers of the lowering are made here,
    filled with NaN or -1 so that nothing unwritten goes unnoticed; tasks run in ``splits`` parts, the last first."""
    memory = dict(arrays)
    memory.setdefault(ERROR, np.zeros(2, np.int64))
    sizes = values or {}
    for buffer in lowered.buffers:
        memory[buffer.name] = dirty(buffer, sizes)
    code, _ = load_code(lowered.kernels, cache.default())
    for call in lowered.calls:
        kept: list[np.ndarray] = []
        block = _block(call.args, memory, sizes, kept)
        tasks = dims.evaluate(call.tasks, sizes)
        scratch = aligned_empty((call.scratch + 4096,), u8)
        scratch[:] = 0xFF
        edges = [tasks * i // splits for i in range(splits + 1)]
        for lo, hi in reversed(list(zip(edges[:-1], edges[1:], strict=True))):
            ENTRY(code[call.kernel].address)(block, lo, hi, scratch.ctypes.data)
        assert (scratch[call.scratch :] == 0xFF).all(), f"{call.label} wrote past its {call.scratch} bytes of scratch"


def dirty(buffer: Buffer, sizes: dict[str, int]) -> np.ndarray:
    array = aligned_empty((dims.evaluate(buffer.size, sizes),), buffer.dtype)
    array.fill(np.nan if buffer.dtype.is_float else -1 if buffer.dtype.kind == "i" else 1)
    return array


def _block(args: tuple[Arg, ...], memory: dict[str, np.ndarray], sizes: dict[str, int], kept: list[np.ndarray]) -> int:
    def value(arg: Arg) -> int:
        match arg:
            case Pointer(buffer=name, offset=offset):
                return memory[name].ctypes.data + dims.evaluate(offset, sizes)
            case Block(args=inner):
                return _block(inner, memory, sizes, kept)
            case _:
                return dims.evaluate(arg, sizes)

    block = np.array([value(a) for a in args] or [0], np.int64)
    kept.append(block)
    return block.ctypes.data


def elements(shape: tuple[Size, ...]) -> tuple[Size, ...]:
    """The strides, in elements, of a C-contiguous array of ``shape``."""
    strides: list[Size] = []
    step: Size = 1
    for size in reversed(shape):
        strides.insert(0, step)
        step = step * size
    return tuple(strides)


def finish(dtype: DType) -> tuple[Stmt, ...]:
    """The body that stores what the core computes."""
    return Stmt("value", "core", (0,), dtype), Stmt("stored", "store", (0, "value"), dtype)


def load(name: str, i: int, dtype: DType = f32) -> Stmt:
    return Stmt(name, "load", (i,), dtype)


def store(i: int, value: str, dtype: DType = f32) -> Stmt:
    return Stmt(f"store{i}", "store", (i, value), dtype)


def over(buffer: str, shape: tuple[Size, ...], dtype: DType = f32, **more: Size) -> Access:
    """All of a C-contiguous array of ``shape``."""
    return Access(buffer, dtype, elements(shape), **more)


def normal(*shape: int, seed: int = 0, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)
