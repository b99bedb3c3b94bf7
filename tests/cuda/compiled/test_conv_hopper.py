"""Convolutions by TMA and wgmma are assembled for Hopper, every tile of the table."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conv_cases import Case
from convolution_cases import BF16, F32, forward, weight_gradient
from cuda_harness import check_hopper as check

from engine.program import Kernel
from runtime.cuda import conv
from runtime.cuda.hopper import TILES, HopperTile
from runtime.cuda.hopper_single import EXACT_TILES, TURNED_TILES
from runtime.cuda.lower import lower

DEEP = Case((14, 14), (64, 64))
GROUPS = Case((14, 14), (128, 64), groups=2)


def kernel_of(case, monkeypatch: pytest.MonkeyPatch, tile: HopperTile) -> Kernel:
    monkeypatch.setattr(conv, "convolution_tile", lambda *given: tile)
    monkeypatch.setattr(conv, "weight_grad_way", lambda *given: (tile, 2))
    (found,) = (k for k in lower(case.spec, (), "sm_90a").kernels if "_hopper_" in k.name)
    return found


@pytest.mark.parametrize("make", [forward, weight_gradient])
@pytest.mark.parametrize("tile", TILES)
def test_every_tile(tile: HopperTile, make, monkeypatch: pytest.MonkeyPatch) -> None:
    check(kernel_of(make("tile", DEEP, BF16), monkeypatch, tile))


def test_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    check(kernel_of(forward("groups", GROUPS, BF16), monkeypatch, TILES[0]))


@pytest.mark.parametrize("tile", TILES)
def test_every_tile_with_tf32(tile: HopperTile, monkeypatch: pytest.MonkeyPatch) -> None:
    case = forward("tf32", DEEP, F32)
    check(kernel_of(replace(case, spec=replace(case.spec, products="high")), monkeypatch, tile))


def test_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    check(kernel_of(forward("float32", DEEP, F32), monkeypatch, EXACT_TILES[0]))


@pytest.mark.parametrize("tile", [*EXACT_TILES, TURNED_TILES[0]])
def test_weight_gradients_in_float32(tile: HopperTile, monkeypatch: pytest.MonkeyPatch) -> None:
    case = weight_gradient("float32", DEEP, F32)
    case = replace(case, spec=replace(case.spec, products="highest" if tile.lower else "high"))
    check(kernel_of(case, monkeypatch, tile))
