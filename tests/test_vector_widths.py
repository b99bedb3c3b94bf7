"""Kernels for vectors narrower than this machine's: the same results with the tiles of other processors."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_harness import elements, finish, run

from engine import dtypes
from engine.program import Lowered
from engine.schedule import Access, Contraction, Conv2d, KernelSpec, MaxPool2d, Stmt
from runtime.cpu import tiles
from runtime.cpu.conv_groups import small_groups
from runtime.cpu.lower import lower

F32 = dtypes.f32
M, N, K = 19, 45, 70


@pytest.fixture(params=[("x86_64", 32, (6, 2)), ("x86_64", 16, (4, 2)), ("aarch64", 16, (8, 3))], ids=str)
def narrow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Lowering as if for such a processor (the code still compiles for this one); the shape of its tiles."""
    architecture, width, shape = request.param
    monkeypatch.setattr(tiles, "host_vector_bytes", lambda: width)
    monkeypatch.setattr(tiles, "host_features", lambda: (architecture, frozenset()))
    return shape


def compiled(lowered: Lowered, monkeypatch: pytest.MonkeyPatch, **arrays: np.ndarray) -> None:
    monkeypatch.undo()
    run(lowered, arrays, splits=2)


def test_contraction(narrow: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The columns are packed through transposed squares, and the last of them fill one vector."""
    tile = tiles.host_tile(F32)
    assert (tile.rows, tile.vectors) == narrow
    core = Contraction(Access("a", F32, (K, 1)), Access("b", F32, (1, K)), K)
    lowered = lower(KernelSpec("product", (M, N), (), (Access("y", F32, (N, 1)),), finish(F32), core))
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((M, K), (N, K)))
    y = np.full((M, N), np.nan, np.float32)
    compiled(lowered, monkeypatch, a=a, b=b, y=y)
    bound = 4 * np.finfo(np.float32).eps * np.sqrt(K) * (np.abs(a).astype(np.float64) @ np.abs(b).T)
    assert (np.abs(y - a.astype(np.float64) @ b.T) <= bound).all()


@pytest.mark.parametrize("groups", [1, 20])
def test_convolution(narrow: tuple[int, int], groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = 20 // groups
    core = Conv2d(
        Access("x", F32, elements((1, 7, 9, 20))), Access("w", F32, elements((20 // groups, inputs, 3, 3))), (7, 9),
        (5, 7), 20, 20, (3, 3), groups=groups, w_group=20 // groups * inputs * 9,
    )  # fmt: skip
    y = Access("y", F32, elements((1, 5, 7, 20)))
    lowered = lower(KernelSpec("conv", (1, 5, 7, 20), (), (y,), finish(F32), core))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 7, 9, 20)).astype(np.float32)
    w = rng.standard_normal((20, inputs, 3, 3)).astype(np.float32)
    found = np.full((1, 5, 7, 20), np.nan, np.float32)
    compiled(lowered, monkeypatch, x=x, w=w, y=found)
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (3, 3), (1, 2))
    rule = "nhwcij,ocij->nhwo" if groups == 1 else "nhwcij,coij->nhwc"
    np.testing.assert_allclose(found, np.einsum(rule, windows, w), rtol=1e-4, atol=1e-4)


def test_pooled_first_layer(narrow: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles have as many rows as whole windows have pixels."""
    core = Conv2d(
        Access("x", F32, (17 * 20, 20, 1, 17 * 20)), Access("w", F32, elements((24, 1, 3, 3))), (17, 20), (15, 18),
        1, 24, (3, 3),
    )  # fmt: skip
    pool = MaxPool2d((Stmt("sum", "core", (0,), F32),), (15, 18), (2, 2), (2, 2), source=core)
    y = Access("y", F32, elements((1, 7, 9, 24)))
    lowered = lower(KernelSpec("conv", (1, 7, 9, 24), (), (y,), finish(F32), pool))
    assert any(k.name.startswith("conv2d_few") for k in lowered.kernels)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 1, 17, 20)).astype(np.float32)
    w = rng.standard_normal((24, 1, 3, 3)).astype(np.float32)
    found = np.full((1, 7, 9, 24), np.nan, np.float32)
    compiled(lowered, monkeypatch, x=x, w=w, y=found)
    sums = np.einsum(
        "hwij,oij->hwo", np.lib.stride_tricks.sliding_window_view(x[0, 0].astype(np.float64), (3, 3)), w[:, 0]
    )
    wanted = sums[:14].reshape(7, 2, 9, 2, 24).max((1, 3))
    np.testing.assert_allclose(found[0], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("inputs, outputs", [(1, 8), (2, 8), (4, 4)])
def test_small_groups_have_rows(narrow: tuple[int, int], inputs: int, outputs: int) -> None:
    groups = 20
    core = Conv2d(
        Access("x", F32, elements((1, 7, 9, groups * inputs))), Access("w", F32, elements((outputs, inputs, 3, 3))),
        (7, 9), (5, 7), groups * inputs, groups * outputs, (3, 3), groups=groups, w_group=outputs * inputs * 9,
    )  # fmt: skip
    taken = small_groups(core, F32)
    assert taken is None or taken.tile.rows >= 1
