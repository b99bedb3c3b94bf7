"""Every tile of the tables is assembled, for both architectures, and as many blocks run at a time as they count on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cuda_harness import compiled
from kernel_harness import finish

from engine import dtypes
from engine.dtypes import DType
from engine.program import Kernel
from engine.schedule import Access, Contraction, KernelSpec
from runtime.cuda.assembler import disassemble, instructions
from runtime.cuda.contraction import tiled_kernel
from runtime.cuda.contraction_skinny import skinny_kernel
from runtime.cuda.lower import lower
from runtime.cuda.tiles import CHUNK, HALF, SINGLE, Choice


def product(dtype: DType, layout: str, m: int = 1024) -> KernelSpec:
    n, k = 1024, 1024
    a = Access("a", dtype, (1, m) if layout[0] == "T" else (k, 1))
    b = Access("b", dtype, (1, k) if layout[1] == "T" else (n, 1))
    y = Access("y", dtype, (n, 1))
    return KernelSpec("product", (m, n), (), (y,), finish(dtype), Contraction(a, b, k))


TILES = [
    *((choice, dtypes.bf16, "highest") for choice in HALF),
    *((choice, dtypes.f32, "highest") for choice in SINGLE),
    (SINGLE[0], dtypes.f32, "high"),
    (SINGLE[0], dtypes.f32, "medium"),
]


def check(kernel: Kernel, architecture: str, resident: int) -> None:
    """At least ``resident`` blocks fit on a multiprocessor, and products are those of tensor cores."""
    cubin = compiled(kernel, architecture)
    assert cubin.resources.occupancy(kernel.threads, kernel.shared, architecture) >= resident
    assert instructions(disassemble(cubin.code))["HMMA"] > 0


@pytest.mark.parametrize("layout, architecture", [("NT", "sm_80"), ("TN", "sm_80"), ("NT", "sm_90a")])
@pytest.mark.parametrize("choice, dtype, exactness", TILES)
def test_every_tile(choice: Choice, dtype: DType, exactness: str, layout: str, architecture: str) -> None:
    spec = replace(product(dtype, layout), products=exactness)
    _, kernel = tiled_kernel(spec, [CHUNK, CHUNK], tile=choice.tile)
    check(kernel, architecture, choice.resident)


@pytest.mark.parametrize("layout", ["NN", "NT"])
@pytest.mark.parametrize("dtype", [dtypes.bf16, dtypes.f32])
def test_few_rows(dtype: DType, layout: str) -> None:
    _, kernel = skinny_kernel(product(dtype, layout, m=16))
    check(kernel, "sm_80", 2)


@pytest.mark.parametrize("widths", [(8, 4), (0, 16)])
def test_narrow_copies(widths: tuple[int, int]) -> None:
    _, kernel = tiled_kernel(product(dtypes.bf16, "NN"), widths, tile=HALF[1].tile)
    check(kernel, "sm_80", HALF[1].resident)


@pytest.mark.parametrize("dtype", [dtypes.f64, dtypes.i32])
def test_plain_sums(dtype: DType) -> None:
    (kernel,) = lower(product(dtype, "NN")).kernels
    compiled(kernel, "sm_80")
