"""Every op, compiled and held to the interpreter: many ops to a program, so that kernels compile side by side."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from compiled import check, executor
from graph_tools import trace
from op_samples import SAMPLES, Sample, distinct, integers, normal

from engine import dims, dtypes
from engine.dtypes import DType
from engine.errors import DTypeError, IndexRangeError
from engine.graph import Builder, Graph, TensorType, Value, apply
from engine.op import all_ops
from engine.ops.activations import ACTIVATIONS

FLOATS = (dtypes.f32, dtypes.f64)
INTEGERS = (dtypes.i8, dtypes.u8, dtypes.i32, dtypes.i64, dtypes.bool_)
NAN, INF = np.nan, np.inf
SPECIAL = np.array([0.0, -0.0, 0.5, 1, -1, 1.5, 2.5, -2.5, 3.7, -3.2, 1e-3, 20, -90, 1e6, INF, -INF, NAN])


# --- a graph from samples ----------------------------------------------------------------------------------------


def together(samples: Iterable[Sample]) -> tuple[Graph, dict[str, np.ndarray]]:
    """One graph with every output of every sample, each of which has inputs of its own; and those inputs."""
    builder = Builder("samples")
    inputs: dict[str, np.ndarray] = {}
    outputs: list[Value] = []
    with builder:
        for i, sample in enumerate(samples):
            values = []
            for j, array in enumerate(sample.arrays):
                name = f"{sample.op}_{i}_{j}"
                inputs[name] = array
                values.append(builder.input(name, TensorType(array.shape, dtypes.as_dtype(array.dtype))))
            found = apply(sample.op, *values, **sample.attrs)
            outputs += [found] if isinstance(found, Value) else found
    return builder.build(outputs), inputs


def of_dtype(sample: Sample, dtype: DType) -> Sample:
    """``sample`` with its floats in ``dtype``."""
    arrays = (a.astype(dtype.numpy) if a.dtype.kind == "f" else a for a in sample.arrays)
    return Sample(sample.op, tuple(arrays), sample.attrs)


# --- what op_samples, made for gradients, leaves out -----------------------------------------------------------


def _others() -> list[Sample]:
    seed, step = np.array(2**40 + 5), np.array(3)
    numbers = distinct(4, 5)
    numbers.flags.writeable = False  # as a constant of a graph must be
    ties = np.array([[3.0, 7, 7, 1], [-1, -1, -5, -1], [0, NAN, 2, NAN]])
    flags = np.array([[True, False, True], [False, False, False], [True, True, True]])
    return [
        *(Sample(name, (ties,), {"axis": axis, "keepdims": keep})
          for name in ("argmax", "argmin") for axis, keep in ((0, False), (1, True))),
        *(Sample(name, (flags,), {"axes": (1,)}) for name in ("any", "all")),
        *(Sample(name, (numbers - numbers[1, 1],), {"axes": (0, 1)}) for name in ("any", "all")),
        *(Sample(name, (integers(5, 3, 4, dtype=t.numpy_name),), {"axes": axes, "keepdims": True})
          for name in ("sum", "prod", "max", "min") for t in INTEGERS[:-1] for axes in ((0,), (0, 1))),
        *(Sample(name, (flags,), {"axes": (0,)}) for name in ("sum", "max", "min", "prod", "mean")),
        Sample("mean", (integers(9, 3, 4, dtype="int32"),), {"axes": (1,)}),
        *(Sample("matmul", (integers(9, 3, 4, dtype=t), integers(9, 4, 2, dtype=t)))
          for t in ("int32", "int64", "uint8")),
        Sample("matmul", (integers(9, 3, 4, dtype="int32"), normal(4, 2))),
        Sample("iota", (), {"shape": (3, 4), "axis": 1}),
        Sample("iota", (), {"shape": (3, 4), "axis": 0, "dtype": dtypes.f32}),
        Sample("size", (), {"size": 7}),
        Sample("check_index", (integers(5, 6),), {"limit": 5}),
        *(Sample("random_uniform", (seed, step), {"stream": k, "shape": s, "dtype": t})
          for k, s, t in ((0, (3, 50), dtypes.f32), (1, (7,), dtypes.f64), (2, (), dtypes.f32))),
        Sample("detach", (numbers,)),
        Sample("isinf", (np.array([1.0, INF, -INF, NAN]),)),
        Sample("signbit", (np.array([1.0, 0.0, -0.0, -2.0, INF, -INF]),)),
        Sample("xor_", (flags, np.array([0.0, 2.0, NAN]))),
        Sample("constant", (), {"value": numbers, "dtype": dtypes.f64}),
        Sample("concat", (normal(2, 3), integers(9, 1, 3, dtype="int32"), normal(0, 3)), {"axis": 0}),
        Sample("pad", (integers(9, 2, 3, dtype="uint8"),), {"low": (0, 2), "high": (1, 0), "step": (1, 2), "value": 7}),
        Sample("pad", (flags,), {"low": (1, 0), "high": (0, 1), "step": (1, 1), "value": True}),
        Sample("slice", (normal(6, 7),), {"start": (5, 0), "stop": (-1, 7), "step": (-1, 2)}),
        Sample("reshape", (np.asfortranarray(normal(4, 6)),), {"shape": (2, 2, 3, 2)}),
        Sample("max_pool2d", (integers(9, 2, 3, 6, 5, dtype="int32"),), {"kernel": (3, 2), "stride": (1, 2)}),
        *(Sample("where", (flags, integers(9, 3, 3, dtype=t), integers(9, 3, dtype=t))) for t in ("int64", "uint8")),
        Sample("where", (flags, flags.T, ~flags)),
    ]  # fmt: skip


OTHERS = _others()
NUMBERS = {
    name: op
    for name, op in all_ops().items()
    if op.kind == "elementwise" and name not in ("where", "merge", "cast") and name not in ACTIVATIONS
}


def _numbers(dtype: DType) -> np.ndarray:
    """Telling numbers of ``dtype``: limits, halves, zeros of both signs, infinity and NaN, where it has them."""
    if dtype.is_float:
        return SPECIAL.astype(dtype.numpy)
    if dtype == dtypes.bool_:
        return np.array([True, False])
    limits = np.iinfo(dtype.numpy)
    return np.array([*range(0 if dtype.kind == "u" else -7, 9), limits.min, limits.max], dtype.numpy)


def every_op(dtype: DType) -> tuple[Graph, dict[str, np.ndarray]]:
    """A graph of every elementwise op that takes ``dtype``, the binary ones on all pairs of numbers. The last output
    counts the results that are not zero, which ties all ops together: with fusion they are one kernel."""
    numbers = _numbers(dtype)
    # What NumPy takes for powers and shifts.
    few = numbers if dtype.is_float else numbers[(numbers >= 0) & (numbers < 8)]
    inputs = {"x": numbers[:, None], "y": numbers, "few": few}
    builder = Builder(f"every_op_of_{dtype}")
    outputs: list[Value] = []
    with builder:
        x, y, powers = (builder.input(k, TensorType(a.shape, dtype)) for k, a in inputs.items())
        count: Value | float = 0
        for name, op in NUMBERS.items():
            second = powers if name in ("pow", "shl", "shr") else y
            try:
                found = apply(name, *(x, second)[: len(op.inputs)])
            except DTypeError:
                continue
            outputs.append(found)
            if found.shape == (len(numbers), len(numbers)):
                count = apply("cast", apply("ne", found, 0), dtype=dtypes.i64) + count
    return builder.build([*outputs, count]), inputs


# --- tests ---------------------------------------------------------------------------------------------------------


def test_every_op_has_a_sample() -> None:
    tried = {s.op for s in (*SAMPLES, *OTHERS)} | NUMBERS.keys() | {"cast"}
    # A scan's body is a graph: tests/test_scan.py.
    assert all_ops().keys() - tried == {"input", "state", "grad", "scan"}


QUICK = (dtypes.f32, dtypes.i64)
OTHER_DTYPES = [pytest.param(d, marks=pytest.mark.slow, id=str(d)) for d in (*FLOATS, *INTEGERS) if d not in QUICK]


@pytest.mark.parametrize("dtype", [*QUICK, *OTHER_DTYPES], ids=str)
def test_elementwise_ops_fused(dtype: DType) -> None:
    graph, inputs = every_op(dtype)
    check(graph, inputs, levels=[2], pointwise=True)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS], ids=str)
def test_elementwise_ops_each_on_its_own(dtype: DType) -> None:
    graph, inputs = every_op(dtype)
    check(graph, inputs, levels=[0, 1], pointwise=True)


@pytest.mark.parametrize("dtype", [dtypes.f16, dtypes.bf16], ids=str)
def test_elementwise_ops_on_floats_that_are_only_stored(dtype: DType) -> None:
    if dtype == dtypes.bf16:
        pytest.importorskip("ml_dtypes")
    x = np.linspace(0.25, 4, 23).astype(dtype.numpy)
    names = ("add", "mul", "div", "exp", "tanh", "maximum", "lt", "sqrt", "floor")
    samples = [Sample(name, (x, x[::-1])[: len(all_ops()[name].inputs)]) for name in names]
    reduced = [Sample(name, (x,), {"axes": (0,)}) for name in ("sum", "max", "mean")]
    product = Sample("matmul", (x[:20].reshape(4, 5), x[3:].reshape(5, 4)))
    check(*together([*samples, *reduced, product]), levels=[2])


@pytest.mark.parametrize("source", dtypes.ALL, ids=str)
def test_casts_to_every_dtype(source: DType) -> None:
    pytest.importorskip("ml_dtypes")
    values = np.array([0, 1, -1, 2, 100, -100, 1.5, -2.5, 0.1] if source.is_float else [0, 1, 2, 100])
    if source.is_float or source in (dtypes.i32, dtypes.i64):
        # What is out of a type's range is left to NumPy's platform for integers, and infinite for floats.
        wide = np.array([-3.0, 70000.0, *([1e30, NAN, INF, -INF] if source.is_float else [])])
    else:
        wide = np.array([])
    floats = [t for t in dtypes.ALL if t.is_float or t == dtypes.bool_]
    with np.errstate(over="ignore"):
        inside, outside = values.astype(source.numpy), wide.astype(source.numpy)
    targets = [t for t in dtypes.ALL if t.kind != "u" or not source.is_float]
    samples = [Sample("cast", (inside,), {"dtype": t}) for t in targets]
    samples += [Sample("cast", (outside,), {"dtype": t}) for t in floats]
    check(*together(samples), levels=[2], pointwise=True)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("level", [0, 2])
def test_samples(dtype: DType, level: int) -> None:
    samples = [of_dtype(s, dtype) for s in (*SAMPLES, *OTHERS) if s.op not in NUMBERS]
    check(*together(samples), levels=[level])


@pytest.mark.parametrize("dtype", [dtypes.f16, dtypes.bf16], ids=str)
def test_casts_round_even_where_they_are_fused(dtype: DType) -> None:
    """A cast to a narrower float is no hint: 1/3 by way of f16 is not 1/3."""
    pytest.importorskip("ml_dtypes")

    def rounding_error(x: Value) -> Value:
        return apply("cast", apply("cast", x, dtype=dtype), dtype=dtypes.f32) - x

    graph = trace(rounding_error, TensorType((5,), dtypes.f32))
    check(graph, {"x0": np.linspace(1, 2, 5, dtype=np.float32) / 3}, levels=[2], pointwise=True)


# --- NaN and infinity --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_nan_and_infinity_pass_as_in_numpy(dtype: DType) -> None:
    x = normal(4, 6)
    x[0, 1], x[1, 2], x[1, 3], x[2, 4] = NAN, INF, -INF, INF
    image = normal(1, 2, 4, 4)
    image[0, 0, 1, 1], image[0, 1, 2, 3], image[0, 1, 0, 0] = NAN, INF, -INF
    below = np.full((2, 3), -INF)
    window = {"kernel": (2, 2), "stride": (2, 2)}
    over = [{"axes": (0,)}, {"axes": (1,)}, {"axes": (0, 1)}]
    samples = [
        *(Sample(name, (x,), axes) for name in ("sum", "max", "min", "mean", "prod") for axes in over),
        *(Sample(name, (below,), {"axes": (1,)}) for name in ("max", "min", "sum")),
        *(Sample(name, (x,), {"axis": axis}) for name in ("argmax", "argmin", "softmax", "log_softmax", "logsumexp")
          for axis in (0, 1)),
        Sample("logsumexp", (below,), {"axis": 1}),
        Sample("cross_entropy", (x, integers(6, 4)), {"reduction": "none"}),
        Sample("matmul", (x, normal(6, 3))),
        Sample("matmul", (normal(3, 4), x)),
        Sample("conv2d", (image, normal(3, 2, 3, 3)), {"padding": (1, 1)}),
        Sample("max_pool2d", (image,), window),
        Sample("max_pool2d", (np.full((1, 1, 2, 2), -INF),), window),
    ]  # fmt: skip
    check(*together([of_dtype(s, dtype) for s in samples]), levels=[2])


# --- symbolic sizes ------------------------------------------------------------------------------------------------


def symbolic() -> Graph:
    """Ops of every kernel class over the dims ``B`` and ``N``."""
    b, n = dims.dim("B"), dims.dim("N")
    builder = Builder("symbolic")
    with builder:
        x, y = builder.input("x", TensorType((b, n), dtypes.f32)), builder.input("y", TensorType((n,), dtypes.f32))
        image = builder.input("image", TensorType((b, 2, 6, 6), dtypes.f32))
        weight = builder.state_input("weight", TensorType((3, 2, 3, 3), dtypes.f32))
        outputs = [
            x * y + 1,
            apply("sum", x, axes=(0,)),
            apply("sum", x, axes=(1,)),
            apply("sum", x * x, axes=(0, 1)),
            apply("mean", x, axes=(0,)),
            apply("prod", x, axes=(1,)),
            apply("softmax", x, axis=1),
            apply("matmul", x, apply("permute", x, axes=(1, 0))),
            apply("matmul", apply("permute", x, axes=(1, 0)), x + 1),
            apply("reshape", apply("exp", x), shape=(b * n,)),
            apply("reshape", apply("permute", x, axes=(1, 0)), shape=(b * n,)),
            apply("concat", x, apply("neg", x), axis=0),
            apply("pad", x, low=(1, 0), high=(0, 2), step=(1, 1), value=3),
            apply("broadcast_to", y, shape=(2, b, n)),
            apply("iota", shape=(b, n), axis=1),
            apply("size", size=b * n + 1),
            apply("conv2d", image, weight, padding=(1, 1)),
            apply("max_pool2d", image, kernel=(2, 2), stride=(2, 2))[0],
            apply("relu", apply("conv2d", image, weight, stride=(2, 2))),
        ]
    return builder.build(outputs)


def test_sizes_bound_at_the_call() -> None:
    graph = symbolic()
    random = np.random.default_rng(5)

    def arrays(b: int, n: int) -> dict[str, np.ndarray]:
        shapes = {"x": (b, n), "y": (n,), "image": (b, 2, 6, 6)}
        return {k: random.normal(size=s).astype(np.float32) for k, s in shapes.items()}

    cases = [arrays(b, n) for b, n in ((3, 5), (1, 1), (0, 4), (2, 0), (70, 33), (1, 257), (0, 0))]
    check(graph, cases, {"weight": random.normal(size=(3, 2, 3, 3)).astype(np.float32)}, levels=[0, 2])


@pytest.mark.parametrize(
    "shapes", [((0, 5), (5, 3)), ((4, 5), (5, 0)), ((4, 0), (0, 3)), ((2, 0, 40), (40, 70))], ids=str
)
def test_products_over_axes_of_the_fixed_size_nothing(shapes: tuple[tuple[int, ...], ...]) -> None:
    arrays = [normal(*shape).astype(np.float32) for shape in shapes]
    graph = trace(lambda a, b: apply("matmul", a, b) + 1.0, *(TensorType(s, dtypes.f32) for s in shapes))
    check(graph, {f"x{i}": a for i, a in enumerate(arrays)}, levels=[2])


def test_an_empty_batch_of_fixed_size() -> None:
    """A convolution, a pool, their gradients, sums and a softmax over no images."""

    def step(x: Value, w: Value) -> list[Value]:
        h = apply("max_pool2d", apply("relu", apply("conv2d", x, w)), kernel=(2, 2), stride=(2, 2))[0]
        flat = apply("reshape", h, shape=(0, 12))
        loss = apply("sum", apply("square", apply("softmax", flat, axis=1)), axes=(0, 1))
        return [h, loss, apply("sum", h, axes=(0, 2, 3)), *apply("grad", loss, x, w)]

    graph = trace(step, TensorType((0, 2, 6, 6), dtypes.f32), TensorType((3, 2, 3, 3), dtypes.f32))
    inputs = {"x0": np.zeros((0, 2, 6, 6), np.float32), "x1": normal(3, 2, 3, 3).astype(np.float32)}
    check(graph, inputs, levels=[0, 2])


def test_a_check_reports_the_value_that_is_out_of_range() -> None:
    builder = Builder("checked")
    with builder:
        labels = builder.input("labels", TensorType((dims.dim("B"),), dtypes.i64))
        graph = builder.build([apply("check_index", labels, limit=10) * 2])
    runner = executor(graph, {})
    (found,) = runner.run({"labels": np.array([0, 9, 3])})
    np.testing.assert_array_equal(found, [0, 18, 6])
    for wrong in (10, -1):
        with pytest.raises(IndexRangeError, match=f"index {wrong} is out of range: expected 0 <= index < 10"):
            runner.run({"labels": np.array([0, 9, wrong])})
