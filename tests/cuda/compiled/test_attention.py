"""Attention's kernels compile for every architecture: their sums in registers, their products on tensor cores."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_attention import attention
from cuda_harness import compiled

from runtime.cuda.assembler import SHARED_LIMIT, disassemble, instructions
from runtime.cuda.attention_tiles import SHARED
from runtime.cuda.lower import lower

CASES = [
    ("bf16", 64, "forward", "sm_90a"), ("bf16", 64, "backward", "sm_80"), ("bf16", 128, "forward", "sm_80"),
    ("bf16", 128, "backward", "sm_90a"), ("f16", 256, "forward", "sm_80"), ("bf16", 256, "backward", "sm_90a"),
    ("f32", 64, "forward", "sm_80"), ("f32", 64, "backward", "sm_80"), ("f32", 128, "forward", "sm_90a"),
    ("bf16", 128, "decoding", "sm_90a"), ("f64", 64, "forward", "sm_80"), ("f64", 64, "backward", "sm_90a"),
    ("bf16", 128, "forward with dropout", "sm_80"), ("bf16", 128, "backward with dropout", "sm_80"),
    ("f32", 64, "forward with dropout", "sm_80"), ("f16", 64, "forward with mask", "sm_80"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "features", "kind", "architecture"), CASES)
def test_kernels_fit_registers(dtype, features, kind, architecture):
    queries, extra = 1 if kind == "decoding" else 300, kind.partition(" with ")[2]
    given = {"dropout": "seed step", "mask": "mask", "": ""}[extra]
    mask = {"mask": np.zeros((2, 4, queries, 300))} if given == "mask" else {}
    case = attention(
        2, 4, queries, 300, features, features, dtype=dtype, backward="backward" in kind, causal=True, ratio=2,
        by_position=True, given=given, dropout=0.1 if extra == "dropout" else 0.0, **mask,
    )  # fmt: skip
    for kernel in lower(case.spec).kernels:
        assert kernel.shared <= SHARED_LIMIT[architecture]
        cubin = compiled(kernel, architecture)
        found = cubin.resources
        print(f"{kernel.name} {dtype} {features} {architecture}: {found.registers} registers, {kernel.shared} bytes, "
              f"{found.occupancy(kernel.threads, kernel.shared, architecture)} blocks")  # fmt: skip
        assert (found.stack, found.spill_stores, found.spill_loads) == (0, 0, 0)
        assert found.occupancy(kernel.threads, kernel.shared, architecture) >= 1
        names = instructions(disassemble(cubin.code))
        assert names["LDL"] == names["STL"] == 0
        if dtype != "f64" and "together" not in kernel.name:
            assert names["HMMA"] > 0 and names["LDGSTS"] > 0


@pytest.mark.parametrize("dtype", ["f16", "f32"])
@pytest.mark.parametrize("features", [64, 128, 256])
@pytest.mark.parametrize("backward", [False, True])
def test_tiles_fit_what_every_gpu_grants_a_block(dtype, features, backward):
    case = attention(1, 1, 300, 300, features, features, dtype=dtype, backward=backward)
    assert {k.name: k.shared for k in lower(case.spec).kernels if k.shared > SHARED} == {}
