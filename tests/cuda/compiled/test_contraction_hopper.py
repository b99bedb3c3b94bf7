"""Products by TMA and wgmma are assembled for Hopper: warpgroups trade registers, and nothing is outside of them."""

from __future__ import annotations

import pytest
from cuda_harness import compiled
from kernel_harness import finish

from engine import dtypes
from engine.schedule import Access, Contraction, KernelSpec
from runtime.cuda.assembler import disassemble, instructions
from runtime.cuda.contraction_hopper import FEW_REGISTERS, MANY_REGISTERS, THREADS, TILES, HopperTile, hopper_kernel

REGISTERS = 65536
"""Of a processor."""


@pytest.mark.parametrize("layout", ["NT", "TN"])
@pytest.mark.parametrize("tile", TILES)
def test_every_tile(tile: HopperTile, layout: str) -> None:
    m, n, k, dtype = 1024, 1024, 1024, dtypes.bf16
    a = Access("a", dtype, (1, m) if layout[0] == "T" else (k, 1))
    b = Access("b", dtype, (1, k) if layout[1] == "T" else (n, 1))
    y = Access("y", dtype, (n, 1))
    _, kernel = hopper_kernel(KernelSpec("product", (m, n), (), (y,), finish(dtype), Contraction(a, b, k)), tile)
    cubin = compiled(kernel, "sm_90a")
    found, needs = instructions(disassemble(cubin.code)), cubin.resources
    assert found["HGMMA"] >= 4 and found["UTMALDG"] > 0
    # Those that multiply wait until the others have given up as many registers as they ask for: with fewer at the
    # start, for ever.
    assert needs.registers * THREADS <= REGISTERS
    assert needs.registers * THREADS >= FEW_REGISTERS * THREADS // 3 + MANY_REGISTERS * THREADS * 2 // 3
    assert needs.occupancy(THREADS, kernel.shared, "sm_90a") == 1
