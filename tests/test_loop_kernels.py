"""Loop, reduction and bundled kernels, compiled and run alone, against NumPy."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from kernel_harness import elements, load, normal, over, run, store

from engine import dtypes, scalar
from engine.dims import Size, dim
from engine.dtypes import DType, bool_, f32, f64, i32, i64, u8
from engine.errors import UnsupportedError
from engine.program import ERROR
from engine.schedule import Access, Bundle, KernelSpec, Stmt
from runtime.axes import collapse
from runtime.cpu.compile import inspect_kernel
from runtime.cpu.lower import lower

B = dim("B")


# --- elementwise -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [0, 1, 7, 1000])
def test_broadcasting_over_a_symbolic_batch(batch: int) -> None:
    shape = (B, 30)
    body = (
        load("x", 0),
        load("bias", 1),
        load("scale", 2),
        Stmt("t", "add", ("x", "bias"), f32),
        Stmt("zero", "const", (0.0,), f32),
        Stmt("r", "maximum", ("t", "zero"), f32),
        Stmt("y", "mul", ("r", "scale"), f32),
        store(0, "y"),
    )
    reads = (over("x", shape), Access("bias", f32, (0, 1)), Access("scale", f32, (1, 0)))
    lowered = lower(KernelSpec("k", shape, reads, (over("y", shape),), body))
    x, bias, scale, y = normal(batch, 30), normal(30, seed=1), normal(batch, seed=2), np.zeros((batch, 30), np.float32)
    run(lowered, {"x": x, "bias": bias, "scale": scale, "y": y}, {"B": batch}, splits=3)
    np.testing.assert_allclose(y, np.maximum(x + bias, 0) * scale[:, None], rtol=1e-6)


def test_transposed_sliced_and_indexed_accesses_of_any_rank() -> None:
    shape = (3, 5, 4, 6)
    x = normal(*shape)
    # y[a, b, c, d] = x[a, 4 - b, c, d] + linear index, y stored as (d, a, b, c)
    reads = (Access("x", f32, (120, -24, 6, 1), offset=96),)
    writes = (Access("y", f32, (20, 4, 1, 60)),)
    body = (
        load("x", 0),
        Stmt("i", "index", (), i64, elements(shape)),
        Stmt("f", "cast", ("i",), f32),
        Stmt("s", "add", ("x", "f"), f32),
        store(0, "s"),
    )
    y = np.zeros((6, 3, 5, 4), np.float32)
    run(lower(KernelSpec("k", shape, reads, writes, body)), {"x": x, "y": y}, splits=2)
    wanted = x[:, ::-1] + np.arange(360, dtype=np.float32).reshape(shape)
    np.testing.assert_allclose(y, wanted.transpose(3, 0, 1, 2), rtol=1e-6)


def test_contiguous_spaces_collapse_to_one_axis_and_share_one_source() -> None:
    def spec(shape):
        body = (load("x", 0), Stmt("y", "neg", ("x",), f32), store(0, "y"))
        return KernelSpec("negate", shape, (over("x", shape),), (over("y", shape),), body)

    assert collapse(spec((B, 1, 28, 28))).axes == (784 * B,)
    keys = {lower(spec(s)).kernels[0].key for s in [(B, 1, 28, 28), (64, 32), (5,), (100000,)]}
    assert len(keys) == 1


def test_a_long_or_symbolic_last_axis_is_cut_as_well() -> None:
    shape = (3, B)
    body = (load("x", 0), load("c", 1), Stmt("y", "mul", ("x", "c"), f32), store(0, "y"))
    lowered = lower(KernelSpec("k", shape, (over("x", shape), Access("c", f32, (1, 0))), (over("y", shape),), body))
    x, c, y = normal(3, 50000), normal(3), np.zeros((3, 50000), np.float32)
    run(lowered, {"x": x, "c": c, "y": y}, {"B": 50000}, splits=5)
    np.testing.assert_array_equal(y, x * c[:, None])


def test_in_place_update_is_one_buffer() -> None:
    body = (
        load("p", 0),
        load("g", 1),
        load("rate", 2),
        Stmt("d", "mul", ("g", "rate"), f32),
        Stmt("q", "sub", ("p", "d"), f32),
        store(0, "q"),
    )
    p, g = normal(1000), normal(1000, seed=1)
    wanted = p - g * np.float32(0.1)
    lowered = lower(
        KernelSpec(
            "sgd",
            (1000,),
            (over("p", (1000,)), over("g", (1000,)), Access("rate", f32, (0,))),
            (over("p", (1000,)),),
            body,
        )
    )
    run(lowered, {"p": p, "g": g, "rate": np.array([0.1], np.float32)})
    np.testing.assert_allclose(p, wanted, rtol=1e-6, atol=1e-7)


ARITHMETIC = [
    "add",
    "sub",
    "mul",
    "maximum",
    "minimum",
    "neg",
    "abs",
    "sign",
    "square",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "floor",
    "ceil",
    "trunc",
    "round",
    "and_",
    "or_",
    "not_",
]
BITS = ["bitand", "bitor", "bitxor", "invert", "shl", "shr"]
ON_FLOATS = ["div", "sqrt", "isnan", "isfinite"]
ON_BOOLS = ["add", "mul", "maximum", "eq", "ne", "lt", "and_", "or_", "not_", "bitand", "bitxor", "invert"]


@pytest.mark.parametrize("dtype", [f32, f64, dtypes.i8, u8, i32, i64, bool_], ids=str)
def test_vocabulary_agrees_with_numpy_for_all_pairs_of_edge_values(dtype: DType) -> None:
    """All functions of one dtype in one kernel."""
    if dtype.is_float:
        values = [0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, 1e20, np.inf, -np.inf, np.nan, 3.7]
    elif dtype == bool_:
        values = [False, True]
    else:
        info = np.iinfo(dtype.numpy)
        values = [
            v
            for v in (0, 1, 2, 3, 7, 8, 31, 33, 63, 64, 100, -1, -2, -7, info.min, info.max)
            if info.min <= v <= info.max
        ]
    pairs = np.array(list(itertools.product(values, values)), dtype.numpy)
    x, y = pairs[:, 0].copy(), pairs[:, 1].copy()
    n = len(x)
    ops = ON_BOOLS if dtype == bool_ else ARITHMETIC + (ON_FLOATS if dtype.is_float else BITS)
    body, writes, arrays, wanted = [load("x", 0, dtype), load("y", 1, dtype)], [], {"x": x, "y": y}, {}
    for op in ops:
        function = scalar.VOCABULARY[op]
        args = ("x", "y")[: function.arity]
        result = bool_ if function.result == "bool" else dtype
        body += [Stmt(op, op, args, result), Stmt(f"{op}.store", "store", (len(writes), op), result)]
        writes.append(Access(f"out_{op}", result, (1,)))
        arrays[f"out_{op}"] = np.zeros(n, result.numpy)
        with np.errstate(all="ignore"):
            wanted[op] = function.numpy(*(arrays[a] for a in args))
    run(
        lower(KernelSpec("all", (n,), (over("x", (n,), dtype), over("y", (n,), dtype)), tuple(writes), tuple(body))),
        arrays,
    )
    for op in ops:
        np.testing.assert_array_equal(arrays[f"out_{op}"], wanted[op], err_msg=op)


def test_casts_are_numpys_astype() -> None:
    values = {
        "f": np.array([0.0, -1.5, 2.9, 100.0, -100.0, 255.0, np.nan, 0.1], np.float64),
        "i": np.array([0, 1, -1, 127, 128, 300, -129, 2**31 + 5], np.int64),
    }
    kinds = {"f": f64, "i": i64}
    body, writes, arrays, wanted = [], [], {}, {}
    for k, (name, x) in enumerate(values.items()):
        body.append(load(name, k, kinds[name]))
        arrays[name] = x
        for target in (f32, f64, dtypes.f16, dtypes.i8, u8, i32, i64, bool_):
            if name == "f" and target == u8:
                continue  # NumPy leaves negative numbers undefined
            out = f"{name}_{target}"
            body += [Stmt(out, "cast", (name,), target), Stmt(f"{out}.store", "store", (len(writes), out), target)]
            writes.append(Access(out, target, (1,)))
            arrays[out] = np.zeros(8, target.numpy)
            with np.errstate(all="ignore"):
                wanted[out] = x.astype(target.numpy)
    reads = tuple(over(n, (8,), kinds[n]) for n in values)
    run(lower(KernelSpec("casts", (8,), reads, tuple(writes), tuple(body))), arrays)
    for out, value in wanted.items():
        known = ~np.isnan(values["f"]) if out.startswith("f_i") else slice(None)
        np.testing.assert_array_equal(arrays[out][known], value[known], err_msg=out)


def test_stored_half_types_round_to_nearest_even_and_keep_nan() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.concatenate(
        [normal(500) * 10.0 ** np.random.default_rng(3).integers(-8, 8, 500), [np.nan, np.inf, -np.inf, 0, 65520, 1e-8]]
    )
    x = x.astype(np.float32)
    n = len(x)
    body = (load("x", 0), store(0, "x", dtypes.bf16), store(1, "x", dtypes.f16))
    half, brain = np.zeros(n, np.float16), np.zeros(n, ml_dtypes.bfloat16)
    writes = (Access("b", dtypes.bf16, (1,)), Access("h", dtypes.f16, (1,)))
    run(lower(KernelSpec("halves", (n,), (over("x", (n,)),), writes, body)), {"x": x, "b": brain, "h": half})
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(half, x.astype(np.float16))
    np.testing.assert_array_equal(brain.astype(np.float32), x.astype(ml_dtypes.bfloat16).astype(np.float32))
    back = (
        Stmt("h", "load", (0,), dtypes.f16),
        Stmt("b", "load", (1,), dtypes.bf16),
        Stmt("s", "add", ("h", "b"), f32),
        store(0, "s"),
    )
    y = np.zeros(n, np.float32)
    run(
        lower(
            KernelSpec(
                "back", (n,), (Access("h", dtypes.f16, (1,)), Access("b", dtypes.bf16, (1,))), (over("y", (n,)),), back
            )
        ),
        {"h": half, "b": brain, "y": y},
    )
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(y, half.astype(np.float32) + brain.astype(np.float32))


@pytest.mark.parametrize(("labels", "wanted"), [([0, 1, 9], (0, 0)), ([3, -4, 1], (5, -4)), ([3, 10, 1], (5, 10))])
def test_an_index_outside_its_range_sets_the_error_word(labels: list[int], wanted: tuple[int, int]) -> None:
    body = (load("label", 0, i64), Stmt("ok", "check_index", ("label", 5), bool_, (10,)))
    error = np.zeros(2, np.int64)
    run(
        lower(KernelSpec("check", (3,), (over("label", (3,), i64),), (), body)),
        {"label": np.array(labels), ERROR: error},
    )
    assert tuple(error) == wanted


# --- reductions ------------------------------------------------------------------------------------------------

REDUCTIONS = {"sum": np.sum, "max": np.max, "min": np.min, "prod": np.prod}


def reduction(op: str, shape, reduced, dtype: DType = f32, result: DType | None = None, split=None) -> KernelSpec:
    """y = op(x) over the reduced axes, then doubled."""
    result = result or dtype
    kept = [0 if a in reduced else s for a, s in enumerate(shape)]
    strides, step = [0] * len(shape), 1
    for a in reversed(range(len(shape))):
        if a not in reduced:
            strides[a], step = step, step * kept[a]
    args = ("x", "i") if op.startswith("arg") else ("x",)
    inner = [s if a in reduced else 0 for a, s in enumerate(elements(shape))]
    body = [
        load("x", 0, dtype),
        Stmt("i", "index", (), i64, tuple(inner)),
        Stmt("r", f"reduce_{op}", args, i64 if op.startswith("arg") else dtype),
        store(0, "r", result),
    ]
    write = Access("y", result, tuple(strides), chunk_stride=step if split else 0)
    return KernelSpec(
        f"reduce_{op}", shape, (over("x", shape, dtype),), (write,), tuple(body), reduced=reduced, split=split
    )


SPACES = [(1,), (0,), (0, 1), (2,), (1, 2), (0, 1, 2)]


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize(
    ("dtype", "reduced"), [*((f32, r) for r in SPACES), (i32, (1,)), (i32, (0,)), (f64, (2,)), (f64, (0, 1))], ids=str
)
def test_rows_and_columns(op: str, dtype: DType, reduced: tuple[int, ...]) -> None:
    shape = (17, 43, 21) if 2 in reduced or reduced == (0,) else (17, 43, 5)
    if reduced == (1,):  # the reduced axes come first or last
        shape, reduced = (43, 100), (1,)
    x = normal(*shape) if dtype.is_float else np.random.default_rng(0).integers(-9, 9, shape)
    if op == "prod":
        x = 1 + x / 100 if dtype.is_float else np.where(np.abs(x) > 8, x, 1)
    x = x.astype(dtype.numpy)
    wanted = REDUCTIONS[op](x.astype(np.float64) if dtype.is_float else x, axis=reduced)
    y = np.zeros(np.shape(wanted), dtype.numpy)
    run(lower(reduction(op, shape, reduced, dtype)), {"x": x, "y": y}, splits=2)
    np.testing.assert_allclose(y, wanted.astype(dtype.numpy), rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("reduced", [(0,), (1,)], ids=str)
@pytest.mark.parametrize("op", ["argmax", "argmin"])
def test_arg_reductions_give_the_first_and_nan_wins(op: str, reduced: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).integers(-3, 4, (50, 40)).astype(np.float32)
    x[7, 3] = x[30, 11] = x[31, 11] = x[30, 12] = np.nan
    x[2] = -np.inf
    wanted = getattr(np, op)(x, axis=reduced[0])
    y = np.zeros(wanted.shape, np.int64)
    run(lower(reduction(op, x.shape, reduced, f32, i64)), {"x": x, "y": y}, splits=2)
    # indices count along the reduced axis: the strides of "i" over it are those of x
    np.testing.assert_array_equal(y, wanted * (40 if reduced == (0,) else 1))


@pytest.mark.parametrize("reduced", [(0,), (1,)], ids=str)
@pytest.mark.parametrize("op", ["max", "min", "sum"])
def test_nan_and_infinity_pass_through_reductions(op: str, reduced: tuple[int, ...]) -> None:
    x = normal(40, 70)
    x[3, 5], x[9, 9], x[20, 20] = np.nan, np.inf, -np.inf
    wanted = REDUCTIONS[op](x, axis=reduced)
    y = np.zeros(wanted.shape, np.float32)
    run(lower(reduction(op, x.shape, reduced)), {"x": x, "y": y})
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_empty_reductions_give_the_identity(op: str, shape: tuple[int, int]) -> None:
    reduced = (shape.index(0),)
    y = np.full(5, 7, np.float32)
    run(
        lower(reduction(op, (B, 5) if shape[0] == 0 else (5, B), reduced)),
        {"x": np.zeros(shape, np.float32), "y": y},
        {"B": 0},
    )
    assert (y == {"sum": 0, "prod": 1, "max": -np.inf, "min": np.inf}[op]).all()


@pytest.mark.parametrize(
    "shape,reduced,split",
    [
        ((1000, 30), (0,), 64),
        ((1000, 30), (0, 1), 64),
        ((30, 1000), (1,), 300),
        ((B, 30), (0,), 100),
        ((B, 7, 5), (0, 1), 33),
    ],
    ids=str,
)
def test_a_split_reduction_writes_one_partial_result_a_chunk(shape, reduced, split) -> None:
    sizes = tuple(1000 if s is B else s for s in shape)
    x = normal(*sizes)
    chunks = -(-sizes[reduced[0]] // split)
    parts = [
        x.take(range(c * split, min((c + 1) * split, sizes[reduced[0]])), reduced[0]).sum(reduced)
        for c in range(chunks)
    ]
    y = np.zeros(np.shape(parts), np.float32)
    run(lower(reduction("sum", shape, reduced, split=split)), {"x": x, "y": y}, {"B": 1000}, splits=3)
    np.testing.assert_allclose(y, parts, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape,reduced", [((1000000,), (0,)), ((50000, 20), (0,))], ids=str)
def test_long_sums_stay_accurate(shape, reduced) -> None:
    x = np.random.default_rng(0).random(shape, np.float32)
    wanted = x.astype(np.float64).sum(reduced)
    y = np.zeros(np.shape(wanted), np.float32)
    run(lower(reduction("sum", shape, reduced)), {"x": x, "y": y})
    np.testing.assert_allclose(y, wanted, rtol=1e-6)


SOFTMAX = (
    load("x", 0),
    Stmt("m", "reduce_max", ("x",), f32),
    Stmt("d", "sub", ("x", "m"), f32),
    Stmt("e", "exp", ("d",), f32),
    Stmt("s", "reduce_sum", ("e",), f32),
    Stmt("y", "div", ("e", "s"), f32),
)


@pytest.mark.parametrize(("size", "classes"), [(10, 10), (1000, 1000), (40000, 40000), (dim("C"), 77)], ids=str)
def test_softmax_takes_three_passes_over_a_row(size: Size, classes: int) -> None:
    """And one exponential for each element: it is kept where the quotient will go."""
    shape = (B, size)
    body = (
        *SOFTMAX,
        Stmt("l", "log", ("s",), f32),
        Stmt("z", "add", ("l", "m"), f32),
        store(0, "y"),
        store(1, "z"),
    )
    writes = (over("y", shape), Access("z", f32, (1, 0)))
    lowered = lower(KernelSpec("softmax", shape, (over("x", shape),), writes, body, reduced=(1,)))
    assert lowered.calls[0].scratch == 0
    assert lowered.kernels[0].source.count("= exp(") == 1
    x, y, z = normal(9, classes), np.zeros((9, classes), np.float32), np.zeros(9, np.float32)
    run(lowered, {"x": x, "y": y, "z": z}, {"B": 9, "C": classes}, splits=2)
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    np.testing.assert_allclose(y, e / e.sum(1, keepdims=True), rtol=2e-6)
    np.testing.assert_allclose(z, np.log(e.sum(1)) + x.max(1), rtol=1e-6)


@pytest.mark.parametrize(("size", "exponentials"), [(10, 1), (40000, 2)])
def test_softmax_in_place_keeps_a_row_in_scratch_where_there_is_room(size: int, exponentials: int) -> None:
    body = (*SOFTMAX, store(0, "y"))
    access = (over("x", (3, size)),)
    lowered = lower(KernelSpec("softmax", (3, size), access, access, body, reduced=(1,)))
    assert (lowered.calls[0].scratch > 0) == (exponentials == 1)
    assert lowered.kernels[0].source.count("= exp(") == exponentials
    x = normal(3, size)
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    run(lowered, {"x": x})
    np.testing.assert_allclose(x, e / e.sum(1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("rows", [(6,), (2, 3), (dim("N") * 2,), (5,)], ids=str)
def test_short_rows_are_taken_in_pairs(rows: tuple[Size, ...], in_place: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is an even number of them; each row's results do not depend on the other's."""
    monkeypatch.setattr("runtime.cpu.rows.host_registers", lambda: 32)
    shape = (*rows, 37)
    body = (*SOFTMAX, store(0, "y"))
    read = over("x", shape)
    written = read if in_place else over("y", shape)
    reduced = (len(rows),)
    lowered = lower(KernelSpec("softmax", shape, (read,), (written,), body, reduced=reduced))
    assert ("row1_" in lowered.kernels[0].source) == (rows != (5,))
    count = 5 if rows == (5,) else 6
    x, y = normal(count, 37), np.zeros((count, 37), np.float32)
    x[3, 7], x[4] = np.nan, -3.0
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    run(lowered, {"x": x} if in_place else {"x": x, "y": y}, {"N": 3}, splits=2)
    np.testing.assert_allclose(x if in_place else y, e / e.sum(1, keepdims=True), rtol=2e-6)


def test_a_row_is_divided_once_and_multiplied_often() -> None:
    """LLVM would rather move a reassociable division into the loop of the products, which made softmax slower."""
    body = (
        load("x", 0), Stmt("total", "reduce_sum", ("x",), f32), Stmt("inverse", "div", (1.0, "total"), f32),
        Stmt("y", "mul", ("x", "inverse"), f32), store(0, "y"),
    )  # fmt: skip
    shape = (6, 100)
    (made,) = lower(KernelSpec("scaled", shape, (over("x", shape),), (over("y", shape),), body, reduced=(1,))).kernels
    llvm, _ = inspect_kernel(made)
    assert " fdiv nsz float" in llvm and "x float> " in llvm
    assert not re.search("fdiv.* <", llvm)


def test_costly_rows_and_points_make_more_tasks() -> None:
    def tasks(op: str, reduced: tuple[int, ...]) -> Size:
        body = [load("x", 0), Stmt("y", op, ("x",), f32)]
        body += [Stmt("sum", "reduce_sum", ("y",), f32)] if reduced else []
        written = Access("y", f32, (1, 0)) if reduced else over("y", (256, 64))
        body.append(store(0, "sum" if reduced else "y"))
        spec = KernelSpec("k", (256, 64), (over("x", (256, 64)),), (written,), tuple(body), reduced=reduced)
        return lower(spec).calls[0].tasks

    for reduced in ((), (1,)):
        assert (tasks("neg", reduced), tasks("exp", reduced)) == (1, 4)


def test_rows_may_be_written_in_place_and_labels_checked() -> None:
    shape = (6, 50)
    body = (
        load("x", 0),
        load("label", 1, i64),
        Stmt("ok", "check_index", ("label", 3), bool_, (50,)),
        Stmt("s", "reduce_sum", ("x",), f32),
        Stmt("y", "sub", ("x", "s"), f32),
        Stmt("t", "reduce_sum", ("y",), f32),
        store(0, "y"),
        store(1, "t"),
    )
    reads = (over("x", shape), Access("label", i64, (1, 0)))
    writes = (over("x", shape), Access("t", f32, (1, 0)))
    x, t, error = normal(6, 50), np.zeros(6, np.float32), np.zeros(2, np.int64)
    wanted = x - x.sum(1, keepdims=True)
    arrays = {"x": x, "t": t, "label": np.array([1, 2, 50, 4, 5, 6]), ERROR: error}
    run(lower(KernelSpec("k", shape, reads, writes, body, reduced=(1,))), arrays)
    np.testing.assert_allclose(x, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(t, wanted.sum(1), rtol=1e-4, atol=1e-3)
    assert tuple(error) == (3, 50)


def test_columns_also_write_what_they_add_up() -> None:
    shape = (300, 20)
    body = (
        load("g", 0),
        load("y", 1),
        Stmt("zero", "const", (0.0,), f32),
        Stmt("on", "gt", ("y", "zero"), bool_),
        Stmt("d", "where", ("on", "g", "zero"), f32),
        store(0, "d"),
        Stmt("s", "reduce_sum", ("d",), f32),
        store(1, "s"),
    )
    reads, writes = (over("g", shape), over("y", shape)), (over("d", shape), Access("s", f32, (0, 1)))
    g, y, d, s = normal(*shape), normal(*shape, seed=1), np.zeros(shape, np.float32), np.zeros(20, np.float32)
    run(lower(KernelSpec("k", shape, reads, writes, body, reduced=(0,))), {"g": g, "y": y, "d": d, "s": s})
    np.testing.assert_array_equal(d, np.where(y > 0, g, 0))
    np.testing.assert_allclose(s, d.sum(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("columns", [20, 70])
def test_columns_in_several_rounds(columns: int) -> None:
    """Batch norm: a mean, the deviations from it, and what both make of every row, in place; the mean is kept."""
    shape = (300, columns)
    body = (
        load("x", 0),
        load("scale", 1),
        Stmt("count", "const", (1 / 300,), f32),
        Stmt("sum", "reduce_sum", ("x",), f32),
        Stmt("mean", "mul", ("sum", "count"), f32),
        store(1, "mean"),
        Stmt("d", "sub", ("x", "mean"), f32),
        Stmt("squared", "square", ("d",), f32),
        Stmt("most", "reduce_max", ("d",), f32),
        Stmt("squares", "reduce_sum", ("squared",), f32),
        Stmt("root", "sqrt", ("squares",), f32),
        Stmt("factor", "div", ("scale", "root"), f32),
        Stmt("scaled", "mul", ("d", "factor"), f32),
        Stmt("shifted", "sub", ("scaled", "most"), f32),
        store(0, "shifted"),
    )
    reads = (over("x", shape), Access("scale", f32, (0, 1)))
    writes = (over("x", shape), Access("mean", f32, (0, 1)))
    x, scale, mean = normal(*shape), normal(columns, seed=1), np.zeros(columns, np.float32)
    d = (x - x.mean(0)).astype(np.float64)
    wanted = d * (scale / np.sqrt((d**2).sum(0))) - d.max(0)
    lowered = lower(KernelSpec("k", shape, reads, writes, body, reduced=(0,)))
    expected_mean = x.mean(0)
    run(lowered, {"x": x, "scale": scale, "mean": mean}, splits=2)
    np.testing.assert_allclose(x, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-4, atol=1e-5)


# --- bundles ---------------------------------------------------------------------------------------------------


def sgd(name: str, shape, dtype: DType = f32) -> KernelSpec:
    body = (
        load("p", 0, dtype),
        load("g", 1, dtype),
        Stmt("c", "const", (0.5,), dtype),
        Stmt("d", "mul", ("g", "c"), dtype),
        Stmt("q", "sub", ("p", "d"), dtype),
        store(0, "q", dtype),
    )
    p, g = over(f"{name}.p", shape, dtype), over(f"{name}.g", shape, dtype)
    return KernelSpec(f"sgd_{name}", shape, (p, g), (p,), body)


def test_a_bundle_is_one_kernel_over_all_parts() -> None:
    shapes = {"a": (33,), "b": (128, 3136 // 8), "c": (), "d": (B, 70), "e": (40000,)}
    kinds = {"e": f64}
    bundle = Bundle("updates", tuple(sgd(n, s, kinds.get(n, f32)) for n, s in shapes.items()))
    lowered = lower(bundle)
    assert len(lowered.calls) == len(lowered.kernels) == 1
    arrays, wanted = {}, {}
    for n, s in shapes.items():
        size = tuple(5 if d is B else d for d in s)
        for kind in "pg":
            arrays[f"{n}.{kind}"] = np.asarray(normal(*size, seed=ord(kind), dtype=kinds.get(n, f32).numpy))
        wanted[n] = arrays[f"{n}.p"] - arrays[f"{n}.g"] / 2
    run(lowered, arrays, {"B": 5}, splits=4)
    for n in shapes:
        np.testing.assert_allclose(arrays[f"{n}.p"], wanted[n], rtol=1e-6, atol=1e-7)


def test_equal_parts_share_one_body_in_the_source() -> None:
    one = lower(Bundle("updates", (sgd("a", (10,)),))).kernels[0].source
    many = lower(Bundle("updates", (sgd("a", (10,)), sgd("b", (64, 64)), sgd("c", (100000,))))).kernels[0].source
    assert many.count("store_f32(") == one.count("store_f32(") == 1


def test_a_reduction_cannot_be_bundled() -> None:
    with pytest.raises(UnsupportedError, match="only elementwise kernels can be bundled; reduce_sum of all is not one"):
        lower(Bundle("all", (reduction("sum", (4, 5), (1,)),)))
