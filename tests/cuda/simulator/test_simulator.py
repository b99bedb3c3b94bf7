"""Threads, barriers, warps and memory of the simulator, by small kernels whose results are known."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import BoundsError
from engine.program import Kernel
from runtime.checked_memory import CheckedMemory
from runtime.cuda.simulator.machine import DivergenceError, launch
from runtime.cuda.simulator.shared import RaceError
from runtime.sources import load_source

HEAD = """\
from numpy import float32, int32
from runtime.cuda.ptx import *
from runtime.cuda.toolkit import cuda

def kernel({parameters}):
"""


def run(body: str, threads: int = 32, shared: int = 0, blocks: int = 1, order: int = 0, cooperative: bool = False,
        **arrays: np.ndarray) -> None:  # fmt: skip
    """A kernel with the addresses of ``arrays`` as its parameters."""
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    source = HEAD.format(parameters=", ".join(arrays)) + lines
    function = load_source(Kernel("kernel", "0" * 16, source)).kernel
    memory = CheckedMemory()
    addresses = [memory.add(name, a) for name, a in arrays.items()]
    launch(function, blocks, threads, shared, addresses, memory, order, cooperative=cooperative)


ORDERS = pytest.mark.parametrize("order", [0, 1, 2, 3])


@ORDERS
def test_every_thread_of_every_block_runs_once(order):
    out = np.zeros((3, 64), np.uint32)
    run(
        """
i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
st_global_u32(out + 4 * i, ld_global_u32(out + 4 * i) + i + cuda.gridDim.x * 1000)
""",
        blocks=3, threads=64, order=order, out=out,
    )  # fmt: skip
    assert (out.ravel() == np.arange(192) + 3000).all()


@ORDERS
def test_a_warp_and_a_block_sum_up(order):
    x, out = np.arange(128, dtype=np.float32), np.zeros(1, np.float32)
    run(
        """
t = cuda.threadIdx.x
total = ld_global_f32(x + 4 * t)
for step in (16, 8, 4, 2, 1):
    total = total + shfl_bfly_f32(total, step)
base = shared_memory()
if t % 32 == 0:
    st_shared_f32(base + t // 32 * 4, total)
cuda.syncthreads()
if t == 0:
    a, b, c, d = ld_shared_v4_f32(base)
    st_global_f32(out, a + b + c + d)
""",
        threads=128, shared=16, order=order, x=x, out=out,
    )  # fmt: skip
    assert out[0] == x.sum()


def test_threads_that_do_not_wait_for_one_another_are_found():
    body = """
t = cuda.threadIdx.x
st_shared_u32(shared_memory() + 4 * t, t)
{meet}
st_global_u32(out + 4 * t, ld_shared_u32(shared_memory() + 4 * ((t + {distance}) % 64)))
"""
    out = np.zeros(64, np.uint32)
    run(body.format(meet="cuda.syncthreads()", distance=33), threads=64, shared=256, out=out)
    assert (out == (np.arange(64) + 33) % 64).all()
    for meet, distance in (("pass", 1), ("cuda.syncwarp()", 33)):
        with pytest.raises(RaceError, match="no barrier between: line [79] of the kernel"):
            run(body.format(meet=meet, distance=distance), threads=64, shared=256, out=out)


def test_a_write_before_others_have_read_is_found():
    with pytest.raises(RaceError, match="(reads|writes) byte .* (reads|writes)"):
        run(
            """
t = cuda.threadIdx.x
st_shared_u32(shared_memory() + 4 * t, t)
cuda.syncthreads()
x = ld_shared_u32(shared_memory() + 4 * (63 - t))
st_shared_u32(shared_memory() + 4 * t, x)
""",
            threads=64, shared=256,
        )  # fmt: skip


@ORDERS
def test_copies_arrive_when_they_are_waited_for(order):
    x, out = np.arange(256, dtype=np.uint32), np.zeros(256, np.uint32)
    body = """
t = cuda.threadIdx.x
base = shared_memory()
for stage in range(2):
    cp_async_16_zero(base + 512 * stage + 16 * t, x + 512 * stage + 16 * t, 16 if t < 31 else 4)
    cp_async_commit()
for stage in range(2):
    {wait}
    cuda.syncthreads()
    for i in range(4):
        st_global_u32(out + 512 * stage + 4 * (t + 32 * i), ld_shared_u32(base + 512 * stage + 4 * (t + 32 * i)))
"""
    run(body.format(wait="cp_async_wait(1 - stage)"), shared=1024, order=order, x=x, out=out)
    expected = x.copy()
    expected[[125, 126, 127, 253, 254, 255]] = 0
    assert (out == expected).all()
    with pytest.raises(RaceError, match="has not been waited for"):
        run(body.format(wait="cp_async_wait(1)"), shared=1024, order=order, x=x, out=out)


def test_addresses_are_checked():
    x = np.zeros(32, np.uint32)
    for body, message in (
        ("ld_global_u32(x + 4 * cuda.threadIdx.x + 4)", "reads 4 bytes at byte 128 of x"),
        ("ld_global_v2_u32(x + 4)", "misaligned"),
        ("ld_shared_u32(shared_memory() + 4 * cuda.threadIdx.x)", "of shared memory, which has 64"),
        ("cp_async_16(shared_memory(), x + 120)", "copies 16 bytes at byte 120 of x"),
    ):
        with pytest.raises(BoundsError, match=message):
            run(body, shared=64, x=x)


def test_threads_that_part_are_told_of():
    for body, message in (
        ("if cuda.threadIdx.x < 40:\n    cuda.syncthreads()", "24 threads have returned"),
        ("if cuda.threadIdx.x < 40:\n    cuda.syncthreads()\nelse:\n    cuda.syncthreads()", "line 7.*line 9"),
        ("if cuda.threadIdx.x < 40:\n    ballot(1)", "threads 40 to 63 have returned"),
        ("if cuda.threadIdx.x < 40:\n    ballot(1)\nelse:\n    shfl_up_u32(1, 1)", "ballot in line 7; .* shuffle in"),
        ("bar_sync(1, 96)", "no thread can go on"),
    ):
        with pytest.raises(DivergenceError, match=message):
            run(body, threads=64)


@ORDERS
def test_some_threads_meet_while_others_go_on(order):
    out = np.zeros(64, np.uint32)
    run(
        """
t = cuda.threadIdx.x
if 32 <= t < 64:
    st_shared_u32(shared_memory() + 4 * t, t)
if t >= 32:
    bar_sync(1, 96)
if t >= 64:
    st_global_u32(out + 4 * (t - 64), ld_shared_u32(shared_memory() + 4 * (32 + t % 32)))
""",
        threads=128, shared=256, order=order, out=out,
    )  # fmt: skip
    assert (out == 32 + np.arange(64) % 32).all()


def test_local_arrays_keep_their_type():
    out = np.zeros(64, np.uint32)
    run(
        """
t = cuda.threadIdx.x
words = cuda.local.array(2, int32)
sums = cuda.local.array(1, float32)
words[0] = 0xFFFFFFFF
words[1] = t
sums[0] = 0.1
st_global_v2_u32(out + 8 * t, words[0] + words[1], float_bits(sums[0]))
""",
        out=out,
    )  # fmt: skip
    assert (out[::2] == (np.arange(32) - 1).astype(np.uint32)).all()
    assert (out[1::2].view(np.float32) == np.float32(0.1)).all()


def products(kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A 16 x 16 and a 16 x 8 matrix of small numbers, which every kind has exactly."""
    rng = np.random.default_rng(seed)
    return rng.integers(-8, 9, (16, 16)) / 4, rng.integers(-8, 9, (16, 8)) / 4


def halves(x: np.ndarray, kind: str) -> np.ndarray:
    if kind == "f16":
        return x.astype(np.float16).view(np.uint16)
    return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


@ORDERS
@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_a_product_of_matrices_from_shared_memory(kind, order):
    a, b = products(kind)
    out = np.zeros((16, 8), np.float32)
    run(
        f"""
t = cuda.threadIdx.x
base = shared_memory()
cp_async_16(base + 16 * t, a + 16 * t)
if t < 16:
    cp_async_16(base + 512 + 16 * t, b + 16 * t)
cp_async_commit()
cp_async_wait(0)
cuda.syncthreads()
a0, a1, a2, a3 = ldmatrix_x4(base + 32 * (t % 16) + 16 * (t // 16))
b0, b1, _, _ = ldmatrix_x4_trans(base + 512 + 16 * (t % 16))
zero = float32(0)
c0, c1, c2, c3 = mma_m16n8k16_{kind}(a0, a1, a2, a3, b0, b1, zero, zero, zero, zero)
at = out + 4 * (8 * (t // 4) + 2 * (t % 4))
st_global_v2_f32(at, c0, c1)
st_global_v2_f32(at + 4 * 64, c2, c3)
""",
        shared=768, order=order, a=halves(a, kind), b=halves(b, kind), out=out,
    )  # fmt: skip
    np.testing.assert_array_equal(out, (a @ b).astype(np.float32))


def test_nothing_orders_blocks_of_a_launch():
    """Global memory: by atomic operations alone may blocks touch what others write."""
    head = "t = cuda.threadIdx.x\n"
    for body in (
        "st_global_u32(out + 4 * t, t)",
        "if cuda.blockIdx.x == 0:\n    st_global_u32(out + 4 * t, t)\nelse:\n    ld_global_u32(out + 4 * t)",
        "if cuda.blockIdx.x:\n    ld_global_u16(out + 14)\nelif t == 0:\n    st_global_v4_u32(out, 1, 2, 3, 4)",
    ):
        for order in (0, 1):
            with pytest.raises(RaceError, match=r"(reads|writes) byte \d+ of out, which block . (reads|writes)"):
                run(head + body, blocks=2, order=order, out=np.zeros(32, np.uint32))
    out = np.zeros(32, np.uint32)
    run("atom_add_global_u32(out, 1)", blocks=2, out=out)
    run("ld_global_u32(out)", blocks=2, out=out)
    assert out[0] == 64


def test_threads_meet_before_they_read_global_memory():
    body = """
t = cuda.threadIdx.x
st_global_u32(out + 4 * t, t)
{meet}
x = ld_global_u32(out + 4 * ((t + {distance}) % 64))
cuda.syncthreads()
st_global_u32(out + 4 * t, x)
"""
    out = np.zeros(64, np.uint32)
    for meet, distance in (("cuda.syncthreads()", 33), ("cuda.syncwarp()", 0)):
        run(body.format(meet=meet, distance=distance), threads=64, out=out)
        assert (out == (np.arange(64) + distance) % 64).all()
    for meet, distance in (("pass", 1), ("cuda.syncwarp()", 33)):
        with pytest.raises(
            RaceError, match="byte .* of out, which thread .* no barrier between: line [79] of the kernel"
        ):
            run(body.format(meet=meet, distance=distance), threads=64, out=out)
    late = body.format(meet="cuda.syncthreads()", distance=33).replace("cuda.syncthreads()\nst_", "st_")
    with pytest.raises(RaceError, match="byte .* of out, which .* with no barrier between: line (9|11) of the kernel"):
        run(late, threads=64, out=out)


@ORDERS
def test_every_reader_is_known(order):
    """One of three that read has not met the one that then writes."""
    body = """
t = cuda.threadIdx.x
ld_global_u32(out)
if t {met} 32:
    bar_sync(1, 64)
    if t == {writer}:
        st_global_u32(out, 1)
"""
    for met, writer in ((">=", 64), (">=", 32)):
        with pytest.raises(RaceError, match="(reads|writes) byte 0 of out, which thread"):
            run(body.format(met=met, writer=writer), threads=96, order=order, out=np.zeros(1, np.uint32))


MEETING = """
t = cuda.threadIdx.x
own, other = cuda.blockIdx.x * 256, (1 - cuda.blockIdx.x) * 256
st_global_u32(out + own + 4 * t, t)
cuda.syncthreads()
if t == 0:
    fence_gpu()
    atom_add_global_u32(count, 1)
    wait_global_u32(count, 2)
cuda.syncthreads()
x = ld_global_u32(out + other + 4 * t)
cuda.syncthreads()
if t == 0:
    fence_gpu()
    atom_add_global_u32(count, 1)
    wait_global_u32(count, 4)
cuda.syncthreads()
st_global_u32(out + own + 4 * t, x + 1)
"""


def together(body: str, order: int) -> np.ndarray:
    """Runs ``body`` in two blocks that run at the same time."""
    out = np.zeros((2, 64), np.uint32)
    run(body, threads=64, blocks=2, order=order, cooperative=True, out=out, count=np.zeros(1, np.uint32))
    return out


@ORDERS
def test_blocks_that_meet_see_what_others_have_written(order):
    assert (together(MEETING, order) == np.arange(64) + 1).all()


LEFT_OUT = {
    "the fence": ("fence_gpu()", "pass"),
    "the arrival's wait": ("wait_global_u32(count, {goal})", "pass"),
    "the barrier before": ("cuda.syncthreads()\nif", "if"),
    "the barrier after": ("{goal})\ncuda.syncthreads()", "{goal})"),
}


@ORDERS
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("what", LEFT_OUT)
def test_blocks_that_do_not_meet_are_found(what, number, order):
    """Of one of the two meetings something is left out: before others read what is written, or before it is written
    again while others read."""
    right, wrong = (text.format(goal=2 * number + 2) for text in LEFT_OUT[what])
    parts = MEETING.split(right)
    at = number + 1 if len(parts) > 2 else 1
    body = right.join(parts[:at]) + wrong + right.join(parts[at:])
    assert body != MEETING
    with pytest.raises(RaceError, match="with no (meeting of the blocks|barrier) between"):
        together(body, order)
