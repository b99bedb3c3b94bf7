"""Products in the simulator beside the reference: every layout, dtype, exactness and shape class, and bodies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cuda_harness import Case, check, compare, reference, simulate
from kernel_harness import elements, finish

from engine import dims, dtypes
from engine.dims import Size
from engine.dtypes import DType
from engine.program import Lowered
from engine.schedule import Access, Contraction, KernelSpec, Stmt
from runtime.cuda import contraction
from runtime.cuda.contraction import lower_tiled, tiled_kernel
from runtime.cuda.contraction_split import pieces, split
from runtime.cuda.lower import lower
from runtime.cuda.tiles import CHUNK, HALF, SINGLE, Choice

M, N, K = (dims.dim(name) for name in "MNK")
EXACT = {"f16": 1e-3, "bf16": 4e-3, "f32": 3e-6, "f64": 1e-14}
"""Relative to the greatest result, by the dtype in which it is stored."""


def product(
    m: Size, n: Size, k: Size, layout: str = "NN", dtype: DType = dtypes.f32, result: DType | None = None
) -> KernelSpec:
    """``y = a @ b``, each operand stored as it is (N) or transposed (T)."""
    a = Access("a", dtype, (1, m) if layout[0] == "T" else (k, 1))
    b = Access("b", dtype, (1, k) if layout[1] == "T" else (n, 1))
    result = result or dtype
    y = Access("y", result, (n, 1))
    return KernelSpec("product", (m, n), (), (y,), finish(dtype), Contraction(a, b, k))


def random(shape: tuple[int, ...], dtype: DType, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype.is_float:
        return rng.standard_normal(shape).astype(dtype.numpy)
    return rng.integers(0, 2 if dtype.kind == "b" else 100, shape).astype(dtype.numpy)


def case(spec: KernelSpec, m: int, n: int, k: int, symbolic: bool = False, **more: object) -> Case:
    """Random matrices for :func:`product`."""
    core = spec.core
    assert isinstance(core, Contraction)
    a, b = random((m * k,), core.a.dtype, 1), random((k * n,), core.b.dtype, 2)
    y = random((m * n,), spec.writes[0].dtype, 3)
    values = {"M": m, "N": n, "K": k} if symbolic else {}
    tolerance = EXACT.get(spec.writes[0].dtype.name)
    return replace(Case(spec.name, spec, {"a": a, "b": b, "y": y}, values, tolerance), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["NN", "NT", "TN", "TT"])
@pytest.mark.parametrize("dtype", [dtypes.bf16, dtypes.f16, dtypes.f32])
def test_ragged_tiles_of_every_layout(layout: str, dtype: DType) -> None:
    m, n, k = 40, 56, 72
    (conflicts,) = check(case(product(m, n, k, layout, dtype), m, n, k), orders=(2,))
    assert sum(conflicts.extra.values()) == 0


@pytest.mark.parametrize("exactness", ["high", "medium"])
def test_products_of_float32_are_as_exact_as_asked_for(exactness: str) -> None:
    spec = replace(product(20, 40, 100, "NT"), products=exactness)
    check(case(spec, 20, 40, 100, tolerance={"high": 1e-3, "medium": 6e-3}[exactness]), orders=(1,))


@pytest.mark.parametrize("layout, dtype", [("NN", dtypes.bf16), ("TT", dtypes.f32)])
def test_symbolic_sizes_are_aligned_or_not(layout: str, dtype: DType) -> None:
    """Rows of 24 elements are whole chunks, those of 27 are not even aligned for 4 bytes."""
    for m, n, k in ((24, 32, 40), (27, 33, 35)):
        check(case(product(M, N, K, layout, dtype), m, n, k, symbolic=True), orders=(0,))


@pytest.mark.parametrize("m, n, k", [(0, 3, 2), (3, 0, 2), (2, 3, 0), (1, 1, 1)])
def test_empty_and_tiny(m: int, n: int, k: int) -> None:
    check(case(product(M, N, K), m, n, k, symbolic=True), orders=(0,))


def test_batches_broadcast_and_strides_run_backwards() -> None:
    """``a`` is (3, 2, m, k) read backwards along k, ``b`` is (2, k, n); a bias varies along the first batch axis."""
    m, n, k = 19, 21, 18
    a = Access("a", dtypes.f32, (*elements((3, 2, m, k))[:3], -1), k - 1)
    b = Access("b", dtypes.f32, (0, *elements((2, k, n))))
    bias = Access("bias", dtypes.f32, (n, 0, 0, 1))
    body = (
        Stmt("product", "core", (0,), dtypes.f32), Stmt("bias", "load", (0,), dtypes.f32),
        Stmt("sum", "add", ("product", "bias"), dtypes.f32), Stmt("stored", "store", (0, "sum"), dtypes.f32),
    )  # fmt: skip
    y = Access("y", dtypes.f32, elements((3, 2, m, n)))
    spec = KernelSpec("batched", (3, 2, m, n), (bias,), (y,), body, Contraction(a, b, k))
    shapes = {"a": (3, 2, m, k), "b": (2, k, n), "bias": (3, n), "y": (3, 2, m, n)}
    arrays = {name: random(shape, dtypes.f32, i) for i, (name, shape) in enumerate(shapes.items())}
    check(Case("batched", spec, arrays, tolerance=3e-6), orders=(0, 1))


def test_a_body_of_many_stores() -> None:
    """Bias, activation, a residual that is updated in place, a cast, and a store by columns."""
    m, n, k, f32, bf16 = 40, 48, 32, dtypes.f32, dtypes.bf16
    body = (
        Stmt("product", "core", (0,), f32), Stmt("bias", "load", (0,), f32),
        Stmt("sum", "add", ("product", "bias"), f32), Stmt("active", "tanh", ("sum",), f32),
        Stmt("residual", "load", (1,), f32), Stmt("all", "add", ("residual", "active"), f32),
        Stmt("kept", "store", (0, "all"), f32), Stmt("half", "cast", ("all",), bf16),
        Stmt("turned", "store", (1, "half"), bf16),
    )  # fmt: skip
    row = Access("x", f32, (n, 1))
    reads, writes = (Access("bias", f32, (0, 1)), row), (row, Access("turned", bf16, (1, m)))
    core = Contraction(Access("a", bf16, (k, 1)), Access("b", bf16, (1, k)), k)
    spec = KernelSpec("body", (m, n), reads, writes, body, core)
    arrays = {
        "a": random((m, k), bf16, 0), "b": random((n, k), bf16, 1), "bias": random((n,), f32, 2),
        "x": random((m, n), f32, 3), "turned": random((n, m), bf16, 4),
    }  # fmt: skip
    check(Case("body", spec, arrays, tolerance=4e-3), orders=(0, 1))


@pytest.mark.parametrize("layout, dtype", [("NT", dtypes.f64), ("TN", dtypes.i32), ("NN", dtypes.bool_)])
def test_other_dtypes_by_plain_sums(layout: str, dtype: DType) -> None:
    m, n, k = 60, 70, 18
    check(case(product(m, n, k, layout, dtype), m, n, k), orders=(0,))


def test_operands_of_two_dtypes() -> None:
    m, n, k = 20, 24, 10
    core = Contraction(Access("a", dtypes.f16, (k, 1)), Access("b", dtypes.f32, (n, 1)), k)
    spec = replace(product(m, n, k), core=core)
    check(case(spec, m, n, k), orders=(1,))


@pytest.mark.parametrize("layout", ["NN", "NT"])
@pytest.mark.parametrize("dtype", [dtypes.bf16, dtypes.f32])
@pytest.mark.parametrize("m", [1, 13])
def test_few_rows(m: int, dtype: DType, layout: str) -> None:
    n, k = 20, 296
    check(case(product(m, n, k, layout, dtype), m, n, k), orders=(2,))


def test_few_columns_are_few_rows_of_the_transpose() -> None:
    m, n, k = 40, 3, 64
    check(case(product(m, n, k, "NT", dtypes.bf16), m, n, k), orders=(0,))


@pytest.mark.parametrize("m", [16, 17])
def test_rows_of_a_symbolic_number_may_be_few(m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contraction, "WORTH_TWO_KERNELS", 1)
    spec = product(M, 24, 32, "NT", dtypes.bf16)
    few, many = (dims.evaluate(call.tasks, {"M": m}) for call in lower(spec).calls)
    assert (few > 0, many > 0) == (m <= 16, m > 16)
    check(case(spec, m, 24, 32, symbolic=True), orders=(0,))


@pytest.mark.parametrize("dtype", [dtypes.f16, dtypes.f32])
def test_nan_and_infinity_stay_in_their_rows_and_columns(dtype: DType) -> None:
    m, n, k = 24, 40, 20
    given = case(product(m, n, k, "NN", dtype), m, n, k)
    a, b = given.arrays["a"].reshape(m, k), given.arrays["b"].reshape(k, n)
    a[3, 5], a[7, 0], b[2, 39] = np.nan, np.inf, -np.inf
    check(given, orders=(0,))


@pytest.mark.parametrize("dtype", [dtypes.bf16, dtypes.f32])
def test_long_sums_in_pieces(dtype: DType) -> None:
    """The pieces of a sum of 150 are 64, 64 and 22 long, and the last of four has nothing; the body adds a position."""
    m, n, k = 24, 20, 150
    plain = product(m, n, k, "TN", dtype)
    body = (
        plain.body[0], Stmt("place", "index", (), dtypes.i64, (n, 1)), Stmt("number", "cast", ("place",), dtypes.f32),
        Stmt("all", "add", ("value", "number"), dtypes.f32), Stmt("stored", "store", (0, "all"), dtype),
    )  # fmt: skip
    given = case(replace(plain, body=body), m, n, k)
    first, piece, second, between = split(given.spec, 4)
    made, added = lower_tiled(first, piece), lower(second)
    found = {name: a.copy() for name, a in given.arrays.items()}
    simulate(Lowered(made.calls + added.calls, made.kernels + added.kernels, (between, *added.buffers)), found)
    compare(given, found, reference(given))


def test_how_many_pieces() -> None:
    assert pieces(product(4096, 4096, 4096, dtype=dtypes.bf16)) == 1
    assert pieces(product(64, 64, 128, dtype=dtypes.bf16)) == 1
    assert pieces(product(768, 768, 16384, "TN", dtypes.bf16)) > 1
    calls = lower(product(256, 256, 32768, "TN", dtypes.bf16)).calls
    assert len(calls) == 2


@pytest.mark.parametrize("choice", [*HALF[:4], *SINGLE[:2]])
def test_every_tile_of_the_tables(choice: Choice) -> None:
    """One block, with ragged edges, each operand the other way round: no two lanes meet in a bank."""
    tile, dtype = choice.tile, dtypes.bf16 if choice in HALF else dtypes.f32
    m, n, k = tile.rows - 8, tile.columns - 8, tile.depth + 8
    for layout in ("NN", "TT"):
        given = case(product(m, n, k, layout, dtype), m, n, k)
        call, kernel = tiled_kernel(given.spec, [CHUNK, CHUNK], tile=tile)
        found = {name: a.copy() for name, a in given.arrays.items()}
        (conflicts,) = simulate(Lowered((call,), (kernel,)), found, order=2)
        compare(given, found, reference(given))
        assert sum(conflicts.extra.values()) == 0
