"""Products by TMA and wgmma in the simulator beside the reference: layouts, edges, more tiles than blocks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import prod

import numpy as np
import pytest
from cuda_harness import Case, compare, reference, simulate
from kernel_harness import elements

import tenon as tn
from engine import dims, dtypes
from engine.dtypes import DType
from engine.program import BoxMap, Call, Lowered, Pointer, Program, Window
from engine.program_json import from_json, to_json
from engine.schedule import Access, Contraction, KernelSpec, Stmt
from runtime.cuda import contraction, devices, loading
from runtime.cuda.contraction_hopper import hopper_kernel, hopper_way, readable
from runtime.cuda.contraction_split import split
from runtime.cuda.hopper import TILES, HopperTile
from runtime.cuda.hopper_single import EXACT_TILES
from runtime.cuda.lower import lower
from runtime.cuda.simulated import SimulatedDevice


def product(m: int, n: int, k: int, layout: str, dtype: DType = dtypes.bf16, batch: tuple[int, ...] = (),
            moving: str = "ab") -> KernelSpec:  # fmt: skip
    """``y = a @ b + bias``, each matrix stored as it is (N) or transposed (T). Along the axes of ``batch`` move those
    operands that ``moving`` names: "ab", "a" or "b"."""
    f32 = dtypes.f32
    steps = elements((*batch, 1))[:-1]

    def operand(name: str, rows: int, columns: int, turned: bool) -> Access:
        outer = (step * rows * columns if name in moving else 0 for step in steps)
        return Access(name, dtype, (*outer, *((1, rows) if turned else (columns, 1))))

    core = Contraction(operand("a", m, k, layout[0] == "T"), operand("b", k, n, layout[1] == "T"), k)
    body = (
        Stmt("product", "core", (0,), f32), Stmt("bias", "load", (0,), f32),
        Stmt("sum", "add", ("product", "bias"), f32), Stmt("stored", "store", (0, "sum"), dtype),
    )  # fmt: skip
    y, bias = Access("y", dtype, elements((*batch, m, n))), Access("bias", f32, (*(0 for _ in batch), 0, 1))
    return KernelSpec("product", (*batch, m, n), (bias,), (y,), body, core, products="high")


def case(spec: KernelSpec) -> Case:
    rng = np.random.default_rng(0)
    core = spec.core
    assert isinstance(core, Contraction)
    *batch, m, n = spec.axes

    def numbers(access: Access, rows: int, columns: int) -> np.ndarray:
        count = prod(size for size, step in zip(batch, access.strides, strict=False) if step) * rows * columns
        return rng.standard_normal(count).astype(access.dtype.numpy)

    arrays = {
        "a": numbers(core.a, m, core.k), "b": numbers(core.b, core.k, n),
        "bias": rng.standard_normal(n).astype(np.float32), "y": np.zeros(prod(spec.axes), core.a.dtype.numpy),
    }  # fmt: skip
    return Case("product", spec, arrays, tolerance=4e-3)


def check(spec: KernelSpec, tile: HopperTile, blocks: int, order: int) -> None:
    given = case(spec)
    call, kernel = hopper_kernel(spec, tile, blocks=blocks)
    arrays = {name: a.copy() for name, a in given.arrays.items()}
    (conflicts,) = simulate(Lowered((call,), (kernel,)), arrays, order=order)
    compare(given, arrays, reference(given))
    assert sum(conflicts.extra.values()) == 0


@pytest.mark.parametrize("layout, order", [("NN", 0), ("NT", 1), ("TN", 2), ("TT", 3)])
def test_layouts_and_edges(layout: str, order: int) -> None:
    check(product(72, 80, 200, layout), TILES[1], 1, order)


def test_more_tiles_than_blocks_and_more_stages_than_there_are() -> None:
    check(product(136, 264, 72, "NT"), TILES[0], 1, 2)


@pytest.mark.parametrize("moving, layout, order", [("ab", "NT", 0), ("ab", "TN", 2), ("a", "NN", 1), ("b", "NT", 3)])
def test_batches(moving: str, layout: str, order: int) -> None:
    check(product(40, 24, 72, layout, batch=(3,), moving=moving), TILES[2], 2, order)


def test_batches_of_two_axes() -> None:
    spec = product(24, 40, 72, "NT", batch=(2, 3))
    core = spec.core
    a = replace(core.a, strides=(72, 24 * 2 * 72, 144, 1))  # heads between rows and features, as in attention
    check(replace(spec, core=replace(core, a=a)), TILES[2], 1, 1)


@pytest.mark.parametrize("order", [0, 1])
def test_tf32(order: int) -> None:
    check(product(72, 40, 100, "NT", dtypes.f32), TILES[2], 1, order)


@pytest.mark.parametrize("layout", ["NT", "TN"])
def test_long_sums_in_pieces(layout: str) -> None:
    """The pieces of a sum of 200 are 64, 64, 64 and 8 long."""
    given = case(product(24, 40, 200, layout))
    first, piece, second, between = split(given.spec, 4)
    call, kernel = hopper_kernel(first, TILES[2], blocks=2, split=piece)
    added = lower(second)
    arrays = {name: a.copy() for name, a in given.arrays.items()}
    simulate(Lowered((call, *added.calls), (kernel, *added.kernels), (between, *added.buffers)), arrays, order=2)
    compare(given, arrays, reference(given))


@pytest.mark.parametrize("spec", [
    product(40, 24, 76, "NT"), product(42, 24, 72, "TN"), product(16, 20, 36, "TN", dtypes.f32),
    product(16, 20, 36, "NN", dtypes.f32, batch=(2,)), product(16, 20, 36, "NN", dtypes.f32, batch=(2,), moving="a"),
], ids=["rows of 152 bytes", "rows of 84 bytes", "tf32 turned", "tf32 turned batches", "a batch of one"])  # fmt: skip
def test_operands_are_copied_into_rows(spec: KernelSpec) -> None:
    before, ready = readable(spec, lower)
    assert before.calls and not readable(ready, lower)[0].calls
    call, kernel = hopper_kernel(ready, TILES[2], blocks=1)
    given = case(spec)
    arrays = {name: a.copy() for name, a in given.arrays.items()}
    simulate(Lowered((*before.calls, call), (*before.kernels, kernel), before.buffers), arrays, order=1)
    compare(given, arrays, reference(given))


def names(spec: KernelSpec) -> list[str]:
    return [k.name.removesuffix("_kernel") for k in lower(spec, (), "sm_90a").kernels]


def test_hopper_is_chosen_where_it_can_and_pays() -> None:
    large = product(4096, 4096, 4096, "NT")
    assert hopper_way(large) == (TILES[0], 1)
    for layout in ("NN", "NT", "TN", "TT"):
        assert names(product(4096, 4096, 4096, layout)) == ["contract_hopper_bf16"]
    assert [k.name for k in lower(large).kernels] == ["contract_bf16_kernel"]
    assert names(product(4096, 4096, 4100, "NT")) == ["product_a", "product_b", "contract_hopper_bf16"]
    assert names(product(128, 128, 4100, "NT"))[0] == "contract_bf16"
    assert names(product(8, 4096, 4096, "NT")) == ["contract_skinny_bf16"]
    assert names(product(512, 512, 64, "NT", batch=(8, 12))) == ["contract_hopper_bf16"]
    assert names(product(512, 512, 64, "NT", batch=(8, 12), moving="a")) == ["contract_hopper_bf16"]
    assert names(product(768, 768, 16384, "TN"))[0] == "contract_hopper_bf16"
    assert len(names(product(768, 768, 16384, "TN"))) == 2  # the sum in pieces, and their total


def test_tf32_is_chosen_as_exactly_as_asked_for() -> None:
    f32 = dtypes.f32
    assert names(product(4096, 4096, 4096, "NT", f32)) == ["contract_hopper_f32"]
    assert names(product(4096, 4096, 4096, "NN", f32))[1:] == ["contract_hopper_f32"]  # b turned first
    for layout in ("NN", "NT", "TN", "TT"):
        exact = replace(product(4096, 4096, 4096, layout, f32), products="highest")
        assert names(exact) == ["contract_hopper_f32"]
        assert hopper_way(exact) == (EXACT_TILES[0], 1)
    assert names(replace(product(4096, 4096, 4096, "NT", f32), products="medium")) == ["contract_f32"]
    assert names(replace(product(128, 128, 256, "NT", f32), products="highest"))[0] == "contract_f32"


def test_tensor_maps_are_written_to_the_cache_and_read_again() -> None:
    n = dims.dim("N")
    at = BoxMap(Pointer("x", 16), (3, n, 64), (64 * n, 128 * n), 2, (1, 64, 64))
    window = Window((-1, 0), (0, n), (2, 1))
    over = replace(at, shape=(n, 8, 8, 64), strides=(8192, 1024, 128), box=(64, 64), window=window)
    call = Call("key", "label", (at, over, 3, n), n, ("x",), ())
    program = Program("p", (), (), (), (), (), (call,))
    assert from_json(to_json(program)) == program


def test_a_program_is_given_tensor_maps_where_it_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimulatedDevice(0, (9, 0))
    for module in (devices, loading):
        monkeypatch.setattr(module, "open_device", lambda index: device)
    monkeypatch.setattr(contraction, "hopper_way", lambda spec, alone: (TILES[1], 1))
    monkeypatch.setattr(contraction, "hopper_kernel", partial(hopper_kernel, blocks=1))
    exe = tn.compile(lambda a, b: a @ b.T, tn.spec("M", 72, dtype="bf16"), tn.spec(40, 72, dtype="bf16"), target="cuda")
    assert "contract_hopper_bf16_kernel" in {k.name for k in exe.program.kernels}
    rng = np.random.default_rng(0)
    for m in (24, 33):
        a, b = (rng.standard_normal(shape).astype(dtypes.bf16.numpy) for shape in ((m, 72), (40, 72)))
        expected = a.astype(np.float32) @ b.astype(np.float32).T
        np.testing.assert_allclose(np.asarray(exe(a, b), np.float32), expected, rtol=0.02, atol=0.02)
