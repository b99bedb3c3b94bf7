"""Gathers in fused loops, and the kernels that scatter, scan and sort, against the interpreter."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from compiled import cells, check, executor, program
from graph_tools import tensor, trace

from engine import dtypes
from engine.errors import IndexRangeError
from engine.graph import Builder, Graph, TensorType, Value, apply, constant
from engine.options import DEFAULT
from passes.pipeline import compile_graph
from runtime.cpu.compile import inspect_kernel
from runtime.cpu.lower import lower
from runtime.cpu.target import target

rng = np.random.default_rng(5)
NAN, INF = np.nan, np.inf


def f32(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def index(high: int, *shape: int, dtype: str = "int64") -> np.ndarray:
    return rng.integers(0, high, shape).astype(dtype)


def kernels(graph: Graph) -> list[str]:
    stages: dict[str, Any] = {}
    compile_graph(graph, target(), lower, DEFAULT, stages.__setitem__)
    return [k.name for k in stages["schedule"].kernels]


@pytest.mark.slow
def test_gathers_of_every_kind() -> None:
    """Rows, columns, negative strides, several at once, and an axis of a permuted tensor; B may be 0."""

    def f(x: Value, rows: Value, columns: Value, each: Value) -> list[Value]:
        wide = apply("reshape", x, shape=(6, 1, 7))
        turned = apply("slice", x, start=(5, 0), stop=(-1, 7), step=(-1, 1))
        return [
            apply("gather", wide, apply("reshape", rows, shape=(rows.shape[0], 3, 1)), axis=0),
            apply("gather", x, apply("reshape", columns, shape=(1, 4)), axis=1),
            apply("gather", turned, each, axis=0),
            apply("gather", apply("permute", x, axes=(1, 0)), apply("reshape", columns, shape=(1, 4)), axis=1) * 2.0,
            apply("sum", apply("gather", x, each, axis=0) * 2.0, axes=(0,)),
            apply("gather", apply("cast", x, dtype=dtypes.f16), each, axis=0),
            apply("gather", apply("gt", x, 0.0), each, axis=0),
        ]  # fmt: skip

    graph = trace(f, tensor(6, 7), tensor("B", 3, dtype="i64"), tensor(4, dtype="i32"), tensor("N", 7, dtype="u8"))
    cases = [
        {"x0": f32(6, 7), "x1": index(6, b, 3), "x2": index(6, 4, dtype="int32"), "x3": index(6, n, 7, dtype="uint8")}
        for b, n in ((4, 5), (0, 1), (1, 40))
    ]
    check(graph, cases)


def test_a_gather_is_fused_with_what_surrounds_it() -> None:
    def embedding(table: Value, tokens: Value, places: Value) -> Value:
        wide = apply("reshape", tokens * 1, shape=(tokens.shape[0], 3, 1))
        found = apply("gather", apply("reshape", table, shape=(9, 1, 5)), wide, axis=0)
        return apply("softmax", found * 2.0 + places, axis=2)

    graph = trace(embedding, tensor(9, 5), tensor("B", 3, dtype="i64"), tensor(3, 5))
    assert len(kernels(graph)) == 1
    check(graph, {"x0": f32(9, 5), "x1": index(9, 4, 3), "x2": f32(3, 5)}, levels=[2])


@pytest.mark.slow
def test_rows_are_gathered_by_vectors() -> None:
    """Whatever row the index names, its elements lie side by side; so they do in sums over rows."""

    def f(table: Value, tokens: Value) -> list[Value]:
        wide = apply("reshape", table, shape=(50, 1, table.shape[1]))
        rows = apply("gather", wide, apply("reshape", tokens, shape=(tokens.shape[0], 7, 1)), axis=0)
        return [rows * 2.0, apply("sum", rows * 1.5, axes=(1,))]

    for outputs in (slice(0, 1), slice(1, 2)):
        for width in (64, "D"):
            graph = trace(lambda x, i, o=outputs: f(x, i)[o], tensor(50, width), tensor("B", 7, dtype="i64"))
            (made,) = program(graph).kernels
            llvm, _ = inspect_kernel(made)
            assert re.search(r"load <\d+ x float>", llvm) and re.search(r"store <\d+ x (float|i32)>", llvm)
            assert "masked.gather" not in llvm


def test_columns_of_the_fixed_size_0_are_summed() -> None:
    graph = trace(lambda x: apply("sum", apply("reshape", x, shape=(5, 0)) * 2.0, axes=(0,)), tensor(0, 5))
    check(graph, {"x0": f32(0, 5)}, levels=[2])


def test_what_is_gathered_from_is_computed_before() -> None:
    graph = trace(lambda x, i: apply("gather", apply("exp", x), i, axis=0), tensor(5), tensor("N", dtype="i64"))
    assert kernels(graph) == ["exp", "gather"]
    check(graph, {"x0": f32(5), "x1": index(5, 3)}, levels=[2])
    numbers = trace(lambda i: apply("gather", apply("iota", shape=(5,), axis=0), i, axis=0), tensor("N", dtype="i64"))
    check(numbers, {"x0": index(5, 3)}, levels=[2])


def test_an_index_out_of_range_stops_the_program_before_it_is_used() -> None:
    def f(x: Value, i: Value) -> Value:
        return apply("gather", x, apply("check_index", i, limit=4), axis=0) + 1.0

    runner = executor(trace(f, tensor(4), tensor("N", dtype="i64")), {})
    x = f32(4)
    np.testing.assert_array_equal(runner.run({"x0": x, "x1": np.array([3, 0])})[0], x[[3, 0]] + 1)
    for far in (4, -1, 2**40):
        with pytest.raises(IndexRangeError, match=f"index {far} is out of range"):
            runner.run({"x0": x, "x1": np.array([0, far])})


def test_an_index_that_is_state_is_checked_before_it_is_used() -> None:
    """What is looked up depends on state alone, and could be made before the step."""
    builder = Builder("looked_up")
    with builder:
        table = builder.state_input("table", TensorType((4, 3), dtypes.f32))
        places = builder.state_input("places", TensorType((2, 1), dtypes.i64))
        x = builder.input("x", TensorType((2, 2), dtypes.f32))
        rows = apply("gather", table, apply("check_index", places, limit=4), axis=0)
        graph = builder.build([apply("matmul", x, rows)])
    inputs, numbers = {"x": f32(2, 2)}, f32(4, 3)
    check(graph, inputs, {"table": numbers, "places": np.array([[3], [1]])}, levels=[2])
    for far in (-1, 2**40):
        runner = executor(graph, cells(graph, {"table": numbers, "places": np.array([[0], [far]])}))
        with pytest.raises(IndexRangeError, match=f"index {far} is out of range"):
            runner.run(dict(inputs))


def test_indices_that_are_looked_up_are_checked_too() -> None:
    def f(x: Value, i: Value, j: Value) -> list[Value]:
        found = apply("gather", i, apply("check_index", j, limit=3), axis=0)
        return [apply("gather", x, apply("check_index", found, limit=4), axis=0)]

    runner = executor(trace(f, tensor(4), tensor(3, dtype="i64"), tensor("N", dtype="i64")), {})
    x = f32(4)
    np.testing.assert_array_equal(
        runner.run({"x0": x, "x1": np.array([3, 0, 1]), "x2": np.array([1, 0])})[0], x[[0, 3]]
    )
    for i, j, far in (([3, 0, 2**40], [0, 2], 2**40), ([3, 0, 2**40], [0, -(2**40)], -(2**40))):
        with pytest.raises(IndexRangeError, match=f"index {far} is out of range"):
            runner.run({"x0": x, "x1": np.array(i), "x2": np.array(j)})
    runner.run({"x0": x, "x1": np.array([3, 0, 2**40]), "x2": np.array([1, 0])})  # nobody looks there


def test_a_long_sum_of_what_is_gathered() -> None:
    """It is cut into chunks, and only some of the reads stay behind."""
    graph = trace(
        lambda x, i, y, s: apply("sum", apply("gather", x, i, axis=0) * y, axes=(0,)) * s,
        tensor(50), tensor(20000, dtype="i64"), tensor(20000), tensor(),
    )  # fmt: skip
    assert kernels(graph) == ["gather_mul_sum_mul_partial", "gather_mul_sum_mul"]
    check(graph, {"x0": f32(50), "x1": index(50, 20000), "x2": f32(20000), "x3": f32()}, levels=[2])


def test_loops_run_along_the_memory_that_is_gathered_from() -> None:
    def f(table: Value, tokens: Value) -> Value:
        rows = apply(
            "gather", apply("reshape", table, shape=(9, 1, 5)), apply("reshape", tokens, shape=(4, 3, 1)), axis=0
        )
        return apply("sum", rows, axes=(0, 1, 2))

    stages: dict[str, Any] = {}
    graph = trace(f, tensor(9, 5), tensor(4, 3, dtype="i64"))
    compile_graph(graph, target(), lower, DEFAULT, stages.__setitem__)
    (spec,) = stages["schedule"].kernels
    assert spec.axes == (4, 3, 5)
    assert [r.strides for r in spec.reads] == [(3, 1, 0), (0, 0, 1)]
    check(graph, {"x0": f32(9, 5), "x1": index(9, 4, 3)}, levels=[2])


@pytest.mark.slow
def test_gathers_follow_reductions_that_find_their_index() -> None:
    def f(x: Value, y: Value) -> list[Value]:
        at = apply("argmax", x, axis=1, keepdims=True)
        found = apply("gather", y, at, axis=1)
        column = apply("gather", y, apply("argmin", x, axis=0, keepdims=True), axis=0)
        return [found, apply("sum", found * 2.0, axes=(0, 1)), apply("softmax", column, axis=1)]

    graph = trace(f, tensor("B", 7), tensor("B", 7))
    check(graph, [{"x0": f32(b, 7), "x1": f32(b, 7)} for b in (5, 1)], levels=[2])


@pytest.mark.slow
def test_every_dtype_is_gathered() -> None:
    names = ("bool", "u8", "i8", "i32", "i64", "f16", "bf16", "f32", "f64")

    def f(*args: Value) -> list[Value]:
        *xs, i = args
        both = [(i, 0), (apply("permute", i, axes=(1, 0)), 1)]
        return [apply("gather", x, at, axis=axis) for x in xs for at, axis in both]

    graph = trace(f, *(tensor(4, 6, dtype=n) for n in names), tensor("N", 1, dtype="i64"))
    arrays = [(rng.normal(size=(4, 6)) * 3).astype(dtypes.as_dtype(n).numpy) for n in names]
    for n in (3, 0):
        check(graph, {**{f"x{i}": a for i, a in enumerate(arrays)}, f"x{len(names)}": index(4, n, 1)}, levels=[2])


@pytest.mark.slow
def test_images_are_gathered_and_windowed_channels_last() -> None:
    def conv(x: Value, w: Value) -> Value:
        return apply("conv2d", x, w, stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1)

    def f(x: Value, w: Value, i: Value) -> list[Value]:
        y = apply("relu", conv(x, w))
        rows = apply("gather", y, apply("reshape", i, shape=(1, 1, 12, 1)), axis=2)
        wide = conv(apply("gather", rows, apply("reshape", i, shape=(1, 1, 1, 12)), axis=3), w)
        windows = apply("window", apply("window", y, axis=2, size=3, step=2), axis=3, size=2, dilation=2)
        pairs = apply("window", y, axis=1, size=2) * 3.0
        slope = apply("grad", apply("sum", apply("square", wide), axes=(0, 1, 2, 3)), x)
        return [wide, apply("max", windows, axes=(4, 5)), apply("sum", pairs, axes=(2, 4)), windows, slope]

    graph = trace(f, tensor("B", 4, 6, 6), tensor(4, 4, 3, 3), tensor(12, dtype="i64"))
    stages: dict[str, Any] = {}
    compile_graph(graph, target(), lower, DEFAULT, stages.__setitem__)
    layout = stages["layout"]
    images = [v for n in layout.nodes if n.op.name == "gather" for v in n.outputs]
    assert len(images) == 2 and all(layout.layouts[v] == (0, 2, 3, 1) for v in images)
    check(graph, {"x0": f32(2, 4, 6, 6), "x1": f32(4, 4, 3, 3), "x2": np.repeat(np.arange(6), 2)}, levels=[2])


def test_state_that_is_gathered_from_is_not_written_over() -> None:
    """The new state is made from other elements of the old one."""
    builder = Builder("turned")
    with builder:
        old = builder.state_input("s", TensorType((6,), dtypes.f32))
        back = constant(np.arange(6)[::-1].copy())
        graph = builder.build([old], {"s": apply("gather", old, back, axis=0)})
    check(graph, {}, {"s": f32(6)}, levels=[2])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["f32", "f64", "f16", "i64", "u8"])
def test_scatters_of_every_kind(dtype: str) -> None:
    kind = dtypes.as_dtype(dtype).numpy

    def numbers(*shape: int) -> np.ndarray:
        return rng.integers(0, 4, shape).astype(kind)

    def f(table: Value, tokens: Value, g: Value, x: Value, each: Value, flat: Value) -> list[Value]:
        rows = apply("reshape", table, shape=(9, 1, 70))
        wide = apply("reshape", tokens, shape=(tokens.shape[0], 3, 1))
        found = [apply("scatter", rows, wide, g, axis=0, mode="add")]
        for mode in ("set", "add", "mul", "max", "min"):
            found.append(apply("scatter", x, each, apply("permute", x, axes=(0, 1)), axis=1, mode=mode))
        all_of = [apply("reshape", v, shape=(12,)) for v in (each, x)]
        found.append(apply("scatter", flat, *all_of, axis=0, mode="add"))
        return found

    graph = trace(f, tensor(9, 70, dtype=dtype), tensor("B", 3, dtype="i64"), tensor("B", 3, 70, dtype=dtype),
                  tensor(3, 4, dtype=dtype), tensor(3, 4, dtype="i32"), tensor(5, dtype=dtype))  # fmt: skip
    cases = [
        {"x0": numbers(9, 70), "x1": index(9, b, 3), "x2": numbers(b, 3, 70), "x3": numbers(3, 4),
         "x4": index(4, 3, 4, dtype="int32"), "x5": numbers(5)}
        for b in (4, 0)
    ]  # fmt: skip
    check(graph, cases, levels=[0, 2])


@pytest.mark.slow
def test_scans_along_every_axis() -> None:
    def f(x: Value, a: Value) -> list[Value]:
        one = constant(1, dtypes.f32)
        found = [apply("linear_scan", one, x, axis=i, reverse=r) for i in range(3) for r in (False, True)]
        found += [apply("linear_scan", a, x, axis=i, reverse=r) for i in range(3) for r in (False, True)]
        whole = apply("cast", x, dtype=dtypes.i64)
        found.append(apply("linear_scan", whole, whole, axis=1, reverse=False))
        found.append(apply("linear_scan", one, apply("permute", x, axes=(2, 0, 1)), axis=2, reverse=False))
        return found

    graph = trace(f, tensor("B", 5, 70), tensor(5, 1))
    check(graph, [{"x0": f32(b, 5, 70), "x1": f32(5, 1) / 2} for b in (3, 1, 0)], levels=[0, 2])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["f32", "f64", "f16", "i32", "u8", "bool"])
def test_sorts(dtype: str) -> None:
    kind = dtypes.as_dtype(dtype).numpy

    def f(x: Value) -> list[Value]:
        return [v for axis in (0, 1) for down in (False, True) for v in apply("sort", x, axis=axis, descending=down)]

    graph = trace(f, tensor("B", "N", dtype=dtype))
    cases = []
    for shape in ((3, 50), (17, 1), (1, 8), (0, 4), (2, 0), (129, 9)):
        x = rng.integers(0, 9 if kind != np.bool_ else 2, shape).astype(kind)
        if x.dtype.kind == "f" and x.size > 20:
            x.flat[3], x.flat[7], x.flat[11], x.flat[12] = NAN, INF, -INF, NAN
        cases.append({"x0": x})
    check(graph, cases, levels=[2])


@pytest.mark.slow
def test_windows_are_views() -> None:
    def f(x: Value) -> list[Value]:
        two = apply("window", apply("window", x, axis=1, size=3, step=2), axis=2, size=2, step=1, dilation=2)
        return [
            apply("max", two, axes=(3, 4)),
            apply("sum", apply("window", x, axis=0, size=2, step=1), axes=(3,)),
            two,
        ]

    graph = trace(f, tensor(4, "H", 9))
    check(graph, [{"x0": f32(4, h, 9)} for h in (3, 8)])
    whole = trace(lambda x: apply("grad", apply("sum", apply("square", f(x)[0]), axes=(0, 1, 2)), x), tensor(4, 8, 9))
    check(whole, {"x0": f32(4, 8, 9)})
