"""Assembling without a GPU: what a kernel takes, and which instructions it is made of."""

from __future__ import annotations

import pytest
from cuda_harness import compiled

from engine.errors import CompileError
from engine.program import Kernel
from runtime.cuda.assembler import Resources, assemble, disassemble, instructions
from runtime.cuda.toolkit import ARCHITECTURES, to_ptx

PRODUCT = """\
from numpy import float32
from runtime.cuda.ptx import ldmatrix_x4, ldmatrix_x2, mma_m16n8k16_bf16, shared_memory, st_global_v4_f32
from runtime.cuda.toolkit import cuda

def product(out):
    t = cuda.threadIdx.x
    a0, a1, a2, a3 = ldmatrix_x4(shared_memory() + 16 * t)
    b0, b1 = ldmatrix_x2(shared_memory() + 16 * t)
    zero = float32(0)
    c0, c1, c2, c3 = mma_m16n8k16_bf16(a0, a1, a2, a3, b0, b1, zero, zero, zero, zero)
    st_global_v4_f32(out + 16 * t, c0, c1, c2, c3)
"""
LOCAL = """\
from numpy import float32
from runtime.cuda.ptx import ld_global_f32, st_global_f32
from runtime.cuda.toolkit import cuda

def local(out, n):
    kept = cuda.local.array(64, float32)
    for i in range(n):
        kept[i] = ld_global_f32(out + 4 * i)
    st_global_f32(out, kept[n // 2])
"""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_a_kernel_takes(architecture):
    cubin = compiled(Kernel("product", "product", PRODUCT, threads=32, shared=512), architecture)
    assert 8 < cubin.resources.registers < 64
    assert (cubin.resources.stack, cubin.resources.spill_stores, cubin.resources.spill_loads) == (0, 0, 0)
    found = instructions(disassemble(cubin.code))
    assert found["HMMA"] == 1 and found["LDSM"] == 2 and found["STG"] == 1
    assert found["LDL"] == found["STL"] == 0


def test_local_arrays_that_are_not_registers_are_seen():
    kernel = Kernel("local", "local", LOCAL, threads=32)
    cubin = assemble(to_ptx(kernel, "sm_80"), "sm_80")
    assert cubin.resources.stack >= 256
    found = instructions(disassemble(cubin.code))
    assert found["LDL"] > 0 and found["STL"] > 0
    with pytest.raises(AssertionError, match="local"):
        compiled(kernel, "sm_80")


def test_code_that_ptxas_rejects_is_an_error():
    with pytest.raises(CompileError, match=r"ptxas does not take the code for sm_80: (.|\n)*syntax error"):
        assemble(".version 8.0\n.target sm_80\n.address_size 64\nnonsense\n", "sm_80")


def test_how_many_blocks_run_at_a_time():
    light = Resources(registers=32, shared=0, stack=0, spill_stores=0, spill_loads=0, barriers=1)
    heavy = Resources(registers=168, shared=0, stack=0, spill_stores=0, spill_loads=0, barriers=1)
    assert light.occupancy(256, 0, "sm_80") == 8  # of 2048 threads
    assert light.occupancy(256, 80 << 10, "sm_80") == 2 and light.occupancy(256, 100 << 10, "sm_90a") == 2
    assert heavy.occupancy(128, 0, "sm_80") == 3
