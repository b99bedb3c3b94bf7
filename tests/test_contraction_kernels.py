"""Contraction kernels against NumPy: ragged sizes, transposes, batches, strides, dtypes, bodies."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_harness import elements, finish, run

from engine import dims, dtypes
from engine.dims import Size
from engine.dtypes import DType
from engine.schedule import Access, Contraction, KernelSpec, Stmt
from runtime.cpu import contraction
from runtime.cpu.contraction import choose, lower_contraction, shared, shares
from runtime.cpu.tiles import host_tile

M, N, K, B = (dims.dim(name) for name in "MNKB")
RAGGED = [(1, 1, 1), (7, 33, 5), (5, 32, 300), (1, 100, 257), (130, 1, 40), (66, 131, 513), (64, 10, 128)]
EMPTY = [(0, 3, 2), (3, 0, 2), (2, 3, 0)]


def product(m: Size, n: Size, k: Size, a_transposed: bool = False, b_transposed: bool = False,
            dtype: DType = dtypes.f32) -> KernelSpec:  # fmt: skip
    """``y = a @ b`` of contiguous matrices, either of them stored transposed."""
    a = Access("a", dtype, (1, m) if a_transposed else (k, 1))
    b = Access("b", dtype, (1, k) if b_transposed else (n, 1))
    y = Access("y", dtype, (n, 1))
    return KernelSpec("product", (m, n), (), (y,), finish(dtype), Contraction(a, b, k))


def random(rng: np.random.Generator, shape: tuple[int, ...], dtype: DType = dtypes.f32) -> np.ndarray:
    if dtype.is_float:
        return rng.standard_normal(shape).astype(dtype.numpy)
    return rng.integers(0, 2 if dtype.kind == "b" else 100, shape).astype(dtype.numpy)


def assert_close(found: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """``found`` is ``a @ b`` within the rounding of a sum of ``k`` products."""
    exact = np.matmul(a.astype(np.float64), b.astype(np.float64))
    size = np.matmul(np.abs(a).astype(np.float64), np.abs(b).astype(np.float64))
    bound = 4 * np.finfo(found.dtype).eps * np.sqrt(a.shape[-1] + 1) * size
    assert (np.abs(found - exact) <= bound).all()


@pytest.mark.parametrize("a_transposed", [False, True])
@pytest.mark.parametrize("b_transposed", [False, True])
def test_any_size_and_transpose(a_transposed: bool, b_transposed: bool) -> None:
    lowered = lower_contraction(product(M, N, K, a_transposed, b_transposed))
    rng = np.random.default_rng(0)
    for m, n, k in RAGGED + EMPTY:
        a, b = random(rng, (m, k)), random(rng, (k, n))
        y = np.full((m, n), np.nan, np.float32)
        stored = {"a": np.ascontiguousarray(a.T) if a_transposed else a,
                  "b": np.ascontiguousarray(b.T) if b_transposed else b, "y": y}  # fmt: skip
        run(lowered, stored, {"M": m, "N": n, "K": k}, splits=2)
        assert_close(y, a, b)


@pytest.mark.parametrize("m", [40, 300])
def test_rows_of_b_that_lie_ready_are_not_packed(m: int) -> None:
    n = 4 * host_tile(dtypes.f32).columns
    lowered = lower_contraction(product(m, n, 600))
    rng = np.random.default_rng(1)
    a, b = random(rng, (m, 600)), random(rng, (600, n))
    y = np.full((m, n), np.nan, np.float32)
    run(lowered, {"a": a, "b": b, "y": y}, splits=3)
    assert_close(y, a, b)
    assert len(lowered.calls) == 1


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("m, n, k", [(40, 70, 300), (128, 97, 31), (33, 512, 600), (3, 4, 50)])
def test_few_rows_have_their_panels_packed_near(m: int, n: int, k: int, transposed: bool) -> None:
    lowered = lower_contraction(product(m, n, k, b_transposed=transposed))
    rng = np.random.default_rng(2)
    a, b = random(rng, (m, k)), random(rng, (k, n))
    y = np.full((m, n), np.nan, np.float32)
    run(lowered, {"a": a, "b": np.ascontiguousarray(b.T) if transposed else b, "y": y}, splits=3)
    assert_close(y, a, b)
    assert len(lowered.calls) == 1 or transposed


def test_panels_of_a_batch_packed_near() -> None:
    b_strides = (40 * 50, 50 * 2, 2)  # neither along memory: every other element of a wider matrix
    core = Contraction(Access("a", dtypes.f32, (20 * 20, 20, 1)), Access("b", dtypes.f32, b_strides), 20)
    lowered = lower_contraction(
        KernelSpec("batch", (3, 20, 25), (), (Access("y", dtypes.f32, (500, 25, 1)),), finish(dtypes.f32), core)
    )
    rng = np.random.default_rng(3)
    a, b = random(rng, (3, 20, 20)), random(rng, (3, 40, 50))
    y = np.full((3, 20, 25), np.nan, np.float32)
    run(lowered, {"a": a, "b": b, "y": y}, splits=2)
    assert_close(y, a, b[:, ::2, ::2])


@pytest.mark.parametrize("m, vectors, transposed", [(13, 2.5, True), (9, 0.6, False), (24, 0.25, True), (1, 8, False)])
def test_last_columns_that_fill_one_vector_and_single_rows(m: int, vectors: float, transposed: bool) -> None:
    n, k = int(vectors * host_tile(dtypes.f32).lanes), 300
    lowered = lower_contraction(product(m, n, k, b_transposed=transposed), ("b",))
    rng = np.random.default_rng(6)
    a, b = random(rng, (m, k)), random(rng, (k, n))
    y = np.full((m, n), np.nan, np.float32)
    run(lowered, {"a": a, "b": np.ascontiguousarray(b.T) if transposed else b, "y": y}, splits=2)
    assert_close(y, a, b)


@pytest.mark.parametrize("transposed", [False, True])
def test_three_short_vectors_hold_columns_that_would_half_fill_a_long_one(
    transposed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contraction, "multiplies_halves", lambda: True)
    tile = host_tile(dtypes.f32)
    m, n, k = 37, tile.lanes * 3 // 2, 50
    lowered = lower_contraction(product(m, n, k, b_transposed=transposed), ("b",))
    assert f"x3x{tile.lanes // 2}" in lowered.kernels[-1].source
    rng = np.random.default_rng(6)
    a, b = random(rng, (m, k)), random(rng, (k, n))
    y = np.full((m, n), np.nan, np.float32)
    run(lowered, {"a": a, "b": np.ascontiguousarray(b.T) if transposed else b, "y": y}, splits=2)
    assert_close(y, a, b)


def test_blocks_leave_two_threads_similar_shares_of_five_panels() -> None:
    tile = host_tile(dtypes.f32)
    m, n = 6 * tile.rows + 1, 5 * tile.columns
    spec = product(m * B, n, 960, b_transposed=True)
    assert isinstance(spec.core, Contraction)
    plan = choose(spec, spec.core, ("b",))
    high, wide = shared(m, plan.block_rows, tile.rows), shared(n, plan.block_columns, tile.columns)
    parts = shares([rows * columns for columns in wide for rows in high], 2)
    assert max(parts) < 1.2 * min(parts)  # whole panels would be 1.5


def test_a_batch_of_one_still_makes_tasks_for_several_threads() -> None:
    (*_, call) = lower_contraction(product(B, 128, 784, b_transposed=True), ("b",)).calls
    few, many = (dims.evaluate(call.tasks, {"B": size}) for size in (1, 64))
    assert few >= 4 and many >= 8


def test_constant_operand_is_the_one_packed() -> None:
    """Packing what never changes costs nothing in a step, which decides between the operands."""
    spec = product(B, 128, 3136, b_transposed=True)
    assert isinstance(spec.core, Contraction)
    assert choose(spec, spec.core, ()).columns.access.buffer == "a"
    assert choose(spec, spec.core, ("b",)).columns.access.buffer == "b"
    assert lower_contraction(spec, ("b",)).calls[0].reads == ("b",)


@pytest.mark.parametrize("dtype", [dtypes.f32, dtypes.f64])
def test_batches_broadcast_and_reversed_strides(dtype: DType) -> None:
    """``a`` is (3, 2, m, k) read backwards along k, ``b`` is (2, k, n); a bias varies along the first batch axis."""
    m, n, k = 9, 21, 17
    a = Access("a", dtype, (*elements((3, 2, m, k))[:3], -1), k - 1)
    b = Access("b", dtype, (0, *elements((2, k, n))))
    bias = Access("bias", dtype, (n, 0, 0, 1))
    body = (
        Stmt("product", "core", (0,), dtype), Stmt("bias", "load", (0,), dtype),
        Stmt("sum", "add", ("product", "bias"), dtype), Stmt("stored", "store", (0, "sum"), dtype),
    )  # fmt: skip
    y = Access("y", dtype, elements((3, 2, m, n)))
    spec = KernelSpec("batched", (3, 2, m, n), (bias,), (y,), body, Contraction(a, b, k))
    rng = np.random.default_rng(2)
    arrays = {name: random(rng, shape, dtype) for name, shape in
              {"a": (3, 2, m, k), "b": (2, k, n), "bias": (3, n), "y": (3, 2, m, n)}.items()}  # fmt: skip
    run(lower_contraction(spec), arrays, splits=4)
    expected = arrays["a"][..., ::-1] @ arrays["b"] + arrays["bias"][:, None, None]
    np.testing.assert_allclose(arrays["y"], expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("dtype", [dtypes.i32, dtypes.i64, dtypes.u8, dtypes.bool_])
def test_other_dtypes_follow_numpy(dtype: DType) -> None:
    rng = np.random.default_rng(3)
    a, b = random(rng, (6, 50), dtype), random(rng, (50, 7), dtype)
    y = np.zeros((6, 7), dtype.numpy)
    run(lower_contraction(product(6, 7, 50, dtype=dtype)), {"a": a, "b": b, "y": y})
    np.testing.assert_array_equal(y, a @ b)


def test_half_precision_is_summed_in_float32() -> None:
    rng = np.random.default_rng(4)
    a, b = random(rng, (6, 500), dtypes.f16), random(rng, (500, 7), dtypes.f16)
    y = np.zeros((6, 7), np.float16)
    run(lower_contraction(product(6, 7, 500, dtype=dtypes.f16)), {"a": a, "b": b, "y": y})
    np.testing.assert_allclose(y, a.astype(np.float32) @ b.astype(np.float32), rtol=2e-3, atol=2e-2)


def test_nan_and_infinity_stay_in_their_rows_and_columns() -> None:
    a, b = np.ones((10, 20), np.float32), np.ones((20, 40), np.float32)
    a[3, 5], a[7, 0], b[2, 39] = np.nan, np.inf, -np.inf
    y = np.zeros((10, 40), np.float32)
    run(lower_contraction(product(M, N, K)), {"a": a, "b": b, "y": y}, {"M": 10, "N": 40, "K": 20})
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(y, a @ b)


def test_result_does_not_depend_on_how_tasks_are_shared_out() -> None:
    rng = np.random.default_rng(5)
    lowered = lower_contraction(product(M, N, K))
    a, b = random(rng, (200, 300)), random(rng, (300, 260))
    results = []
    for splits in (1, 2, 7):
        y = np.zeros((200, 260), np.float32)
        run(lowered, {"a": a, "b": b, "y": y}, {"M": 200, "N": 260, "K": 300}, splits)
        results.append(y)
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()
