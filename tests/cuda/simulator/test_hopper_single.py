"""Products of float32 by three of tf32 on Hopper, in the simulator: layouts, edges, exactness; what a fault does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cuda_harness import simulate
from kernel_harness import elements, finish

from engine import dtypes
from engine.errors import TenonError
from engine.program import Lowered
from engine.schedule import Access, Contraction, KernelSpec
from runtime.cuda.contraction_hopper import hopper_kernel
from runtime.cuda.contraction_split import split
from runtime.cuda.hopper import HopperTile
from runtime.cuda.hopper_single import EXACT_TILES
from runtime.cuda.lower import lower

WIDE, NARROW = EXACT_TILES
SIZES = 72, 40, 100
BOUND = 2 * np.finfo(np.float32).eps
"""Of an error, times the square root of how many products are added, times the sum of their sizes."""


def product(m: int, n: int, k: int, layout: str) -> KernelSpec:
    """``y = a @ b``, each matrix stored as it is (N) or transposed (T)."""
    f32 = dtypes.f32
    a = Access("a", f32, (1, m) if layout[0] == "T" else (k, 1))
    b = Access("b", f32, (1, k) if layout[1] == "T" else (n, 1))
    return KernelSpec("product", (m, n), (), (Access("y", f32, elements((m, n))),), finish(f32), Contraction(a, b, k))


def matrices(m: int, n: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Of numbers that do not fit tf32, of many sizes."""
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal(shape) * 2.0 ** rng.integers(-4, 5, shape) for shape in ((m, k), (k, n)))
    return a.astype(np.float32), b.astype(np.float32)


def multiply(lowered: Lowered, layout: str, a: np.ndarray, b: np.ndarray, order: int) -> np.ndarray:
    y = np.full((len(a), b.shape[1]), np.nan, np.float32)
    stored = {"a": np.ascontiguousarray(a.T if layout[0] == "T" else a),
              "b": np.ascontiguousarray(b.T if layout[1] == "T" else b), "y": y}  # fmt: skip
    conflicts = simulate(lowered, stored, order=order)
    assert sum(conflicts[0].extra.values()) == 0
    return y


def check(lowered: Lowered, layout: str, sizes: tuple[int, int, int], order: int) -> None:
    a, b = matrices(*sizes)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    error = np.abs(multiply(lowered, layout, a, b, order) - wide_a @ wide_b)
    assert (error <= BOUND * np.sqrt(sizes[2]) * (np.abs(wide_a) @ np.abs(wide_b))).all()


def lowered(sizes: tuple[int, int, int], layout: str, tile: HopperTile, blocks: int = 1) -> Lowered:
    call, kernel = hopper_kernel(product(*sizes, layout), tile, blocks=blocks)
    return Lowered((call,), (kernel,))


@pytest.mark.parametrize("layout, order", [("NN", 0), ("NT", 1), ("TN", 2), ("TT", 3)])
def test_layouts_and_edges(layout: str, order: int) -> None:
    check(lowered(SIZES, layout, NARROW), layout, SIZES, order)


@pytest.mark.parametrize("layout, order", [("NN", 1), ("TT", 0)])
def test_the_wider_tile(layout: str, order: int) -> None:
    sizes = 24, 104, 40
    check(lowered(sizes, layout, WIDE), layout, sizes, order)


def test_more_tiles_than_blocks_and_more_stages_than_there_are() -> None:
    sizes = 136, 40, 168
    check(lowered(sizes, "NT", NARROW), "NT", sizes, 1)


def test_long_sums_in_pieces() -> None:
    """The pieces of a sum of 200 are 64, 64, 64 and 8 long."""
    sizes = 24, 40, 200
    first, piece, second, between = split(product(*sizes, "TN"), 4)
    call, kernel = hopper_kernel(first, NARROW, blocks=2, split=piece)
    added = lower(second)
    check(Lowered((call, *added.calls), (kernel, *added.kernels), (between, *added.buffers)), "TN", sizes, 2)


@pytest.mark.parametrize("layout", ["NT", "TN"])
def test_infinity_and_nan_stay_what_they_are(layout: str) -> None:
    a, b = (np.ones(shape, np.float32) for shape in ((8, 32), (32, 8)))
    a[0, 3], a[1, 4], a[2, :2], b[5, 6] = np.inf, np.nan, (np.inf, -np.inf), -np.inf
    with np.errstate(invalid="ignore"):
        expected = a @ b
    np.testing.assert_array_equal(multiply(lowered((8, 8, 32), layout, NARROW), layout, a, b, 0), expected)


FAULTS = {
    "no fence between what is written and wgmma": ("NT", "fence_proxy_async()", "pass"),
    "no fence behind boxes turned over": ("NN", "fence_proxy_async()", "pass"),
    "a stage is split before it is there": (
        "NT", "mbarrier_wait(full + 8 * slot, parity)\n                    b_stage", "b_stage",
    ),
    "b is multiplied before it is ready": ("NT", "mbarrier_wait(ready + 8 * slot, parity)", "pass"),
    "b is ready when one lane's part of it is": (
        "NT", "cuda.syncwarp()\n                    if lane == 0", "if lane == 0",
    ),
    "a stage is filled too early": ("NT", "mbarrier_wait(empty + 8 * slot, parity)", "pass"),
    "a stage is given back too early": ("NT", "wgmma_wait(3)", "pass"),
    "registers are written with no fence": ("NT", "wgmma_fence()", "pass"),
    "a box is written before it has been read": ("NN", "cuda.syncwarp()\n                        for i", "for i"),
    "squares on the wrong side": ("NN", "down = across ^ ", "down = across + "),
    "numbers that odd lanes have taken in another order": ("TN", " if odd else ", " if lane < 0 else "),
    "no lower part of b": ("NT", "lower[e] = ", "lower[e] = 0 * "),
    "no lower part of a": ("NT", "a_low[4 * step + e] = ", "a_low[4 * step + e] = 0 * "),
    "the lower parts in the wrong place": ("NT", "b_at + 512", "b_at + 510"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(fault: str) -> None:
    layout, right, wrong = FAULTS[fault]
    sizes = 24, 24, 200 if "too early" in fault else 72
    given = lowered(sizes, layout, NARROW)
    (kernel,) = given.kernels
    assert right in kernel.source
    bad = replace(given, kernels=(replace(kernel, source=kernel.source.replace(right, wrong)),))
    with pytest.raises((TenonError, AssertionError)):
        check(bad, layout, sizes, 1)
