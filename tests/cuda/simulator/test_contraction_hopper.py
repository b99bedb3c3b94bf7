"""Products by TMA and wgmma in the simulator beside the reference: layouts, edges, more tiles than blocks."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from cuda_harness import Case, compare, reference, simulate

import tenon as tn
from engine import dims, dtypes
from engine.program import BoxMap, Call, Lowered, Pointer, Program
from engine.program_json import from_json, to_json
from engine.schedule import Access, Contraction, KernelSpec, Stmt
from runtime.cuda import contraction, devices, loading
from runtime.cuda.contraction_hopper import TILES, HopperTile, hopper_kernel, hopper_tile
from runtime.cuda.lower import lower
from runtime.cuda.simulated import SimulatedDevice


def product(m: int, n: int, k: int, layout: str) -> KernelSpec:
    """``y = a @ b + bias`` of bf16 matrices, each stored as it is (N) or transposed (T)."""
    bf16, f32 = dtypes.bf16, dtypes.f32
    a = Access("a", bf16, (1, m) if layout[0] == "T" else (k, 1))
    b = Access("b", bf16, (1, k) if layout[1] == "T" else (n, 1))
    body = (
        Stmt("product", "core", (0,), f32), Stmt("bias", "load", (0,), f32),
        Stmt("sum", "add", ("product", "bias"), f32), Stmt("stored", "store", (0, "sum"), bf16),
    )  # fmt: skip
    y = Access("y", bf16, (n, 1))
    return KernelSpec("product", (m, n), (Access("bias", f32, (0, 1)),), (y,), body, Contraction(a, b, k))


def check(m: int, n: int, k: int, layout: str, tile: HopperTile, blocks: int, order: int) -> None:
    rng = np.random.default_rng(0)
    bf16 = dtypes.bf16.numpy
    arrays = {
        "a": rng.standard_normal(m * k).astype(bf16), "b": rng.standard_normal(k * n).astype(bf16),
        "bias": rng.standard_normal(n).astype(np.float32), "y": np.zeros(m * n, bf16),
    }  # fmt: skip
    spec = product(m, n, k, layout)
    call, kernel = hopper_kernel(spec, tile, blocks=blocks)
    case = Case("product", spec, arrays, tolerance=4e-3)
    expected = reference(case)
    simulate(Lowered((call,), (kernel,)), arrays, order=order)
    compare(case, arrays, expected)


@pytest.mark.parametrize("layout, order", [("NN", 0), ("NT", 1), ("TN", 2), ("TT", 3)])
def test_layouts_and_edges(layout: str, order: int) -> None:
    check(72, 80, 200, layout, TILES[1], 1, order)


def test_more_tiles_than_blocks_and_more_stages_than_there_are() -> None:
    check(136, 264, 72, "NT", TILES[0], 1, 2)


def test_hopper_is_chosen_where_it_can_and_pays() -> None:
    large = product(4096, 4096, 4096, "NT")
    assert hopper_tile(large) == TILES[0]
    assert hopper_tile(product(64, 64, 4096, "NT")) is None  # one block of many
    assert hopper_tile(product(4096, 4096, 4100, "NT")) is None  # rows that are not aligned
    assert [k.name for k in lower(large, (), "sm_90a").kernels] == ["contract_hopper_bf16_kernel"]
    assert [k.name for k in lower(large).kernels] == ["contract_bf16_kernel"]


def test_tensor_maps_are_written_to_the_cache_and_read_again() -> None:
    n = dims.dim("N")
    at = BoxMap(Pointer("x", 16), (3, n, 64), (64 * n, 128 * n), 2, (1, 64, 64))
    call = Call("key", "label", (at, 3, n), n, ("x",), ())
    program = Program("p", (), (), (), (), (), (call,))
    assert from_json(to_json(program)) == program


def test_a_program_is_given_tensor_maps_where_it_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimulatedDevice(0, (9, 0))
    for module in (devices, loading):
        monkeypatch.setattr(module, "open_device", lambda index: device)
    monkeypatch.setattr(contraction, "hopper_tile", lambda spec: TILES[1])
    monkeypatch.setattr(contraction, "hopper_kernel", partial(hopper_kernel, blocks=1))
    exe = tn.compile(lambda a, b: a @ b.T, tn.spec("M", 72, dtype="bf16"), tn.spec(40, 72, dtype="bf16"), target="cuda")
    assert "contract_hopper_bf16_kernel" in {k.name for k in exe.program.kernels}
    rng = np.random.default_rng(0)
    for m in (24, 33):
        a, b = (rng.standard_normal(shape).astype(dtypes.bf16.numpy) for shape in ((m, 72), (40, 72)))
        expected = a.astype(np.float32) @ b.astype(np.float32).T
        np.testing.assert_allclose(np.asarray(exe(a, b), np.float32), expected, rtol=0.02, atol=0.02)
