"""Products by TMA and wgmma are assembled for Hopper: warpgroups trade registers, and nothing is outside of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cuda_harness import check_hopper as check
from kernel_harness import elements, finish

from engine import dtypes
from engine.dtypes import DType
from engine.schedule import Access, Contraction, KernelSpec
from runtime.cuda.contraction_hopper import hopper_kernel
from runtime.cuda.contraction_split import split
from runtime.cuda.hopper import TILES, HopperTile
from runtime.cuda.hopper_single import EXACT_TILES


def product(layout: str, dtype: DType = dtypes.bf16, batch: tuple[int, ...] = ()) -> KernelSpec:
    m, n, k = 1024, 1024, 1024
    outer = elements((*batch, m, n))[:-2]
    a = Access("a", dtype, (*outer, *((1, m) if layout[0] == "T" else (k, 1))))
    b = Access("b", dtype, (*outer, *((1, k) if layout[1] == "T" else (n, 1))))
    y = Access("y", dtype, (*outer, n, 1))
    return KernelSpec("product", (*batch, m, n), (), (y,), finish(dtype), Contraction(a, b, k), products="high")


@pytest.mark.parametrize("layout", ["NT", "TN"])
@pytest.mark.parametrize("tile", TILES)
def test_every_tile(tile: HopperTile, layout: str) -> None:
    check(hopper_kernel(product(layout), tile)[1])


@pytest.mark.parametrize("tile", TILES)
def test_every_tile_with_tf32(tile: HopperTile) -> None:
    check(hopper_kernel(product("NT", dtypes.f32), tile)[1])


@pytest.mark.parametrize("layout", ["NT", "TN"])
@pytest.mark.parametrize("tile", EXACT_TILES)
def test_every_tile_with_float32(tile: HopperTile, layout: str) -> None:
    check(hopper_kernel(replace(product(layout, dtypes.f32), products="highest"), tile)[1])


def test_batches() -> None:
    spec = product("NT", batch=(4, 8))
    a = replace(spec.core.a, strides=(8 * 1024 * 1024, 1024, 8 * 1024, 1))
    check(hopper_kernel(replace(spec, core=replace(spec.core, a=a)), TILES[0])[1])


def test_sums_in_pieces() -> None:
    first, piece, _, _ = split(product("TN"), 4)
    check(hopper_kernel(first, TILES[1], split=piece)[1])
