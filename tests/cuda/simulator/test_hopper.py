"""A product of matrices by TMA and wgmma in the simulator: one warp fetches, a warpgroup multiplies. And what is wrong
with it when it does not wait."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import BoundsError
from engine.program import Kernel
from runtime.checked_memory import CheckedMemory
from runtime.cuda.simulator.machine import DivergenceError, launch
from runtime.cuda.simulator.shared import RaceError
from runtime.cuda.tensor_map import TensorMap
from runtime.sources import load_source

ROWS, COLUMNS, DEPTH, STAGES = 64, 64, 64, 2
SOURCE = """\
from numpy import float32
from runtime.cuda.ptx import bar_sync, shared_memory, st_global_f32
from runtime.cuda.ptx_hopper import *
from runtime.cuda.toolkit import cuda

SWIZZLED = (1 << 62) | ((1024 >> 4) << 32)

def product(a, b, out, steps):
    t = cuda.threadIdx.x
    base = shared_memory()
    bars = base + {STAGES} * 16384
    if t == 0:
        for s in range({STAGES}):
            mbarrier_init(bars + 16 * s, 1)
            mbarrier_init(bars + 16 * s + 8, 1)
        fence_mbarrier_init()
    cuda.syncthreads()
    if t >= 128:
        if t == 128:
            for i in range(steps):
                stage = base + i % {STAGES} * 16384
                full = bars + i % {STAGES} * 16
                mbarrier_wait(full + 8, (i // {STAGES} + 1) % 2)  # wait empty
                mbarrier_arrive_expect(full, 16384)
                tma_load_2d(stage, a, 64 * i, 0, full)
                {load_b}
    else:
        sums = cuda.local.array(32, float32)
        for i in range(steps):
            stage = base + i % {STAGES} * 16384
            full = bars + i % {STAGES} * 16
            mbarrier_wait(full, i // {STAGES} % 2)  # wait full
            wgmma_fence()
            for k in range(4):
                wgmma_bf16(sums, 64, SWIZZLED | (stage + 32 * k) >> 4, {at_b}, i + k, 0, {turned})
            wgmma_commit()
            wgmma_wait(0)  # wait product
            if t == 0:
                mbarrier_arrive(full + 8)
        for i in range(32):
            row = t // 32 * 16 + t % 32 // 4 + i % 4 // 2 * 8
            st_global_f32(out + 4 * (64 * row + i // 4 * 8 + t % 4 * 2 + i % 2), sums[i])
"""
ALONG = {"load_b": "tma_load_2d(stage + 8192, b, 64 * i, 0, full)", "at_b": "SWIZZLED | (stage + 8192 + 32 * k) >> 4"}
ACROSS = {"load_b": "tma_load_2d(stage + 8192, b, 0, 64 * i, full)",
          "at_b": "SWIZZLED | (512 << 16) | (stage + 8192 + 2048 * k) >> 4"}  # fmt: skip


def bf16(x: np.ndarray) -> np.ndarray:
    return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def run(turned: bool, change: tuple[str, str] = ("", ""), k: int = 200, order: int = 0) -> None:
    """A 60 x k and a k x 64 matrix, with TMA's zeros around them; ``change`` is made in the source."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(-8, 9, (60, k)) / 4, rng.integers(-8, 9, (k, 64)) / 4
    source = SOURCE.format(STAGES=STAGES, turned=int(turned), **(ACROSS if turned else ALONG))
    assert change[0] in source
    function = load_source(Kernel("product", "0" * 16, source.replace(*change))).product
    memory, out = CheckedMemory(), np.full((64, 64), np.nan, np.float32)
    a, b = bf16(x), bf16(y) if turned else np.ascontiguousarray(bf16(y).T)
    maps = [
        TensorMap(m.shape, m.strides[:1], 2, (64, 64)).for_simulator(memory.add(name, m))
        for name, m in (("a", a), ("b", b))
    ]
    args = [*(memory.add("map", m) for m in maps), memory.add("out", out), -(-k // DEPTH)]
    launch(function, 1, 160, STAGES * 16384 + 16 * STAGES, args, memory, order)
    np.testing.assert_array_equal(out[:60], (x @ y).astype(np.float32))
    assert (out[60:] == 0).all()


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("turned", [False, True])
def test_a_product_by_tma_and_wgmma(turned, order):
    run(turned, order=order)


def test_a_kernel_that_does_not_wait_is_found():
    for change, error, message in (
        (("mbarrier_wait(full, i // 2 % 2)  # wait full", "pass"), RaceError, "has not been waited for"),
        (("mbarrier_wait(full, i // 2 % 2)", "mbarrier_wait(full, (i // 2 + 1) % 2)"), RaceError, "not been waited"),
        (("mbarrier_wait(full + 8, (i // 2 + 1) % 2)  # wait empty", "pass"), RaceError, "not been waited for"),
        (("            wgmma_fence()\n", ""), RaceError, "no wgmma_fence since"),
        (("wgmma_wait(0)  # wait product", "pass"), RaceError, "still reads"),
        (("wgmma_wait(0)  # wait product", "wgmma_wait(1)"), RaceError, "still reads"),
        (("mbarrier_arrive_expect(full, 16384)", "mbarrier_arrive_expect(full, 16400)"), DivergenceError, "mbarrier"),
        (("if t == 0:\n                mbarrier_arrive(full + 8)", "pass"), DivergenceError, "wait for phase"),
        (("tma_load_2d(stage, a", "tma_load_2d(stage + 128, a"), BoundsError, "misaligned"),
        (("    cuda.syncthreads()\n", ""), (BoundsError, RaceError), "mbarrier"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            run(False, change, k=320)


def test_sums_that_have_not_been_waited_for_are_not_numbers():
    with pytest.raises(AssertionError, match="nan"):
        run(False, ("wgmma_wait(0)  # wait product", "pass"), k=64)
