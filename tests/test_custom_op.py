"""Ops that users add: fused as expressions, compiled from kernels, interpreted from references."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tenon as tn
from engine import op, text
from engine.errors import CompileError, ShapeError, TenonError, UnsupportedError
from engine.user_kernel import standalone_source
from tenon.backends import _identity
from tenon.tracing import trace

rng = np.random.default_rng(2)
SCALE = 3.0


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Ops of one test are not there in the next."""
    before = set(op.all_ops())
    yield
    for name in op.all_ops().keys() - before:
        del op._OPS[name]


def f32(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def graph_of(function: Any, *specs: Any) -> Any:
    return trace(function, specs, "f").graph


def slope(function: Any, x: np.ndarray, target: str = "reference") -> np.ndarray:
    return tn.compile(tn.grad(lambda x: function(x).sum()), tn.spec(*x.shape, dtype=x.dtype), target=target)(x)


def check_slopes(function: Any, x: np.ndarray, exact: Any, second: Any) -> None:
    np.testing.assert_allclose(slope(function, x), exact, rtol=1e-9)
    found = slope(lambda x: tn.grad(lambda x: function(x).sum())(x), x)
    np.testing.assert_allclose(found, second, rtol=1e-9)


# --- expressions ---------------------------------------------------------------------------------------------------


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_an_expression_is_an_op_that_fuses() -> None:
    quick_gelu = tn.custom_op("quick_gelu", expression="x * sigmoid(beta * x)", attrs={"beta": 1.702})
    x = f32(7)
    np.testing.assert_allclose(quick_gelu(tn.Tensor(x)).numpy(), x * sigmoid(1.702 * x), rtol=1e-5)
    exe = tn.compile(lambda x: quick_gelu(x * 2, beta=1.5) + 1, tn.spec("N"))
    assert len(exe.stages["fuse"].groups) == 1
    np.testing.assert_allclose(exe(x), 2 * x * sigmoid(3 * x) + 1, rtol=1e-5)


def test_an_expression_differentiates_itself() -> None:
    quick_gelu = tn.custom_op("quick_gelu", expression="x * sigmoid(beta * x)", attrs={"beta": 2.0})
    x = rng.normal(size=5)
    s = sigmoid(2 * x)
    first, second = s + 2 * x * s * (1 - s), 4 * s * (1 - s) + 4 * x * s * (1 - s) * (1 - 2 * s)
    check_slopes(quick_gelu, x, first, second)


def test_derivatives_as_strings() -> None:
    cube = tn.custom_op("cube_", expression="x * x * x", gradient="3 * g * x * x")
    x = rng.normal(size=5)
    check_slopes(cube, x, 3 * x * x, 6 * x)
    times = tn.custom_op("times_", expression="x * y", gradient=("g * y", None))
    found = tn.compile(tn.grad(lambda x, y: times(x, y).sum(), (0, 1)), tn.spec(2, 3), tn.spec(3), target="reference")
    a, b = f32(2, 3), f32(3)
    np.testing.assert_allclose(found(a, b)[0], np.broadcast_to(b, (2, 3)))
    np.testing.assert_array_equal(found(a, b)[1], np.zeros(3))


def test_a_gradient_as_a_function_and_broadcasting() -> None:
    def gradient(g: Any, x: Any, y: Any, out: Any, *, power: Any) -> Any:
        return g * power * out / x, None if y is None else g * out / y

    scaled = tn.custom_op(
        "scaled_power", lambda x, y, *, power=2.0: x**power * y, expression="x ** power * y", gradient=gradient
    )
    x, y = rng.uniform(1, 2, (2, 3)), rng.uniform(1, 2, 3)
    specs = (tn.spec(2, 3, dtype="f64"), tn.spec(3, dtype="f64"))
    dx, dy = tn.compile(tn.grad(lambda x, y: scaled(x, y, power=3.0).sum(), (0, 1)), *specs, target="reference")(x, y)
    np.testing.assert_allclose(dx, 3 * x * x * y)
    np.testing.assert_allclose(dy, (x**3).sum(0))


# --- kernels -------------------------------------------------------------------------------------------------------


def _double(value: float) -> float:
    return SCALE * value


def wave(x: np.ndarray, *, shift: float = 0.5) -> np.ndarray:
    return 3 * np.exp(x) + np.vectorize(math.erf, [float])(x) + shift


def wave_gradient(g: Any, x: Any, out: Any, *, shift: float) -> Any:
    return g * (3 * tn.exp(x) + 2 / math.sqrt(math.pi) * tn.exp(-x * x))


def wave_kernel(x, out, shift):
    for i in range(x.size):
        out.flat[i] = _double(np.exp(x.flat[i])) + math.erf(x.flat[i]) + shift


@pytest.mark.slow
def test_a_kernel_in_a_few_lines() -> None:
    op_ = tn.custom_op("wave", wave, kernel=wave_kernel, gradient=wave_gradient)
    exe = tn.compile(lambda x: op_(x.transpose(0, 1) * 1.0, shift=2.0) * 2, tn.spec("N", 4))
    for n in (3, 0, 1):
        x = f32(n, 4)
        np.testing.assert_allclose(exe(x), 2 * wave(x.T, shift=2.0), rtol=1e-5)
    x = f32(3, 4)
    expected = 3 * np.exp(x) + 2 / math.sqrt(math.pi) * np.exp(-x * x)
    np.testing.assert_allclose(slope(op_, x, "cpu"), expected, rtol=1e-5)
    wide = rng.normal(size=4)
    check_slopes(op_, wide, 3 * np.exp(wide) + 2 / math.sqrt(math.pi) * np.exp(-wide * wide),
                 3 * np.exp(wide) - 4 / math.sqrt(math.pi) * wide * np.exp(-wide * wide))  # fmt: skip


def rows_kernel(x, weight, total, longest, lo, hi):
    for row in range(lo, hi):
        part = x[row]
        total[row] = 0
        longest[row] = 0
        for j in range(part.size):
            total[row] += part[j] * weight[j]
            longest[row] = max(longest[row], abs(part[j]))


def rows(x: np.ndarray, weight: np.ndarray) -> Any:
    return (x * weight).sum(1), np.abs(x).max(1, initial=0)


@pytest.mark.slow
def test_a_kernel_on_ranges_with_two_outputs() -> None:
    op_ = tn.custom_op(
        "rows", rows, kernel=rows_kernel,
        result=lambda x, w: (tn.spec(x.shape[0], dtype=x.dtype), tn.spec(x.shape[0], dtype=x.dtype)),
        gradient=lambda g, x, w, out: (g[0].unsqueeze(1) * w, (g[0].unsqueeze(1) * x).sum(0)),
    )  # fmt: skip
    exe = tn.compile(lambda x, w: op_(x[:, ::2], w), tn.spec("N", 10), tn.spec(5))
    for n in (700, 0):
        x, w = f32(n, 10), f32(5)
        found = exe(x, w)
        for a, b in zip(found, rows(x[:, ::2], w), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    half = tn.compile(op_, tn.spec("N", 5, dtype="f16"), tn.spec(5, dtype="f16"))
    x, w = f32(6, 5).astype(np.float16), f32(5).astype(np.float16)
    found = half(x, w)[0]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, rows(x.astype(np.float32), w.astype(np.float32))[0], rtol=2e-3, atol=2e-3)


@pytest.mark.slow
def test_a_kernel_of_bools_into_a_scalar() -> None:
    def add_kept(x, keep, out):
        out[()] = 0
        for i in range(x.size):
            if keep.flat[i]:
                out[()] += x.flat[i]

    picked = tn.custom_op("picked", lambda x, keep: x[keep].sum(), kernel=add_kept,
                          result=lambda x, keep: tn.spec(dtype=x.dtype))  # fmt: skip
    x = rng.integers(0, 9, 20)
    assert tn.compile(lambda x: picked(x, x > 4), tn.spec("N", dtype="i64"))(x) == x[x > 4].sum()


def failing_kernel(x, out):
    if x.size > 5:
        raise ValueError("too long")
    for i in range(x.size):
        out[i] = x[i]


def allocating_kernel(x, out):
    copy = np.empty(x.size)
    for i in range(x.size):
        copy[i] = x[i]
    for i in range(x.size):
        out[i] = copy[x.size - 1 - i]


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [failing_kernel, allocating_kernel])
def test_a_kernel_neither_raises_nor_allocates(kernel: Any) -> None:
    op_ = tn.custom_op("bad", lambda x: x, kernel=kernel)
    with pytest.raises(CompileError, match="custom_bad"):
        tn.compile(op_, tn.spec("N"))


def test_what_a_kernel_refers_to_comes_along() -> None:
    source, functions = standalone_source(wave_kernel)
    assert functions == ("_double", "wave_kernel")
    assert "SCALE = 3.0" in source
    assert "import math" in source
    known: dict[str, Any] = {}
    exec(source, known)
    out = np.zeros(3)
    known["wave_kernel"](np.ones(3), out, 1.0)
    np.testing.assert_allclose(out, wave(np.ones(3), shift=1.0))
    table = [1, 2]

    def lists(x, out):
        out[0] = table[0]

    with pytest.raises(TenonError, match=r"lists.*refers to table, of type list"):
        standalone_source(lists)
    with pytest.raises(TenonError, match="a function with a name"):
        standalone_source(lambda x, out: None)


# --- what every op has ---------------------------------------------------------------------------------------------


def test_it_prints_and_parses_back() -> None:
    quick_gelu = tn.custom_op("quick_gelu", expression="x * sigmoid(beta * x)", attrs={"beta": 1.702})
    op_ = tn.custom_op("wave", wave, kernel=wave_kernel)
    graph = graph_of(lambda x: op_(quick_gelu(x), shift=2.0), tn.spec("N"))
    printed = str(graph)
    assert "quick_gelu(x, 1.702)" in printed
    assert "wave(" in printed
    assert "shift=2.0" in printed
    assert text.structurally_equal(text.parse(printed), graph)


def test_its_code_is_part_of_what_the_cache_knows() -> None:
    def identity(**changed: Any) -> str:
        given: dict[str, Any] = {"reference": wave, "kernel": wave_kernel, "gradient": wave_gradient} | changed
        op_ = tn.custom_op("wave", **given)
        return _identity(graph_of(tn.grad(lambda x: op_(x).sum()), tn.spec(3)))

    def other_kernel(x, out, shift):
        for i in range(x.size):
            out.flat[i] = shift

    factor = 2.0

    def gradient(g: Any, x: Any, out: Any, *, shift: float) -> Any:
        return g * factor

    first = identity()
    assert identity() == first
    assert identity(kernel=other_kernel) != first
    second = identity(gradient=gradient)
    factor = 3.0
    assert len({first, second, identity(gradient=gradient)}) == 3
    keys = set()
    for e in ("x + 1", "x + 2"):
        op_ = tn.custom_op("wave", expression=e)
        keys.add(_identity(graph_of(op_, tn.spec(3))))
    assert len(keys) == 2


def test_without_code_it_runs_on_the_reference_alone() -> None:
    flipped = tn.custom_op("flipped", lambda x: x[::-1])
    assert tn.compile(flipped, tn.spec("N"), target="reference")(f32(3)).shape == (3,)
    with pytest.raises(UnsupportedError, match="backend cpu has no kernel for flipped of f32"):
        tn.compile(flipped, tn.spec("N"))
    with pytest.raises(UnsupportedError, match="'flipped' has no gradient"):
        slope(flipped, f32(3))


def test_a_gradient_may_ask_for_gradients() -> None:
    """The rule differentiates what it is made of, and is differentiated in turn."""
    cubed = tn.custom_op("cubed", lambda x: x**3, gradient=lambda g, x, out: g * tn.grad(lambda x: (x**3).sum())(x))
    x = rng.normal(size=4)
    check_slopes(cubed, x, 3 * x * x, 6 * x)


def test_mistakes_are_named() -> None:
    def takes(x, y, out):
        pass

    for arguments, message in (
        ({}, "needs a reference"),
        ({"expression": "x + foo(x)"}, "foo with 1 arguments is not in the scalar vocabulary"),
        ({"expression": "x +"}, "is no expression"),
        ({"expression": "x + 1", "gradient": ("g", "g")}, "1 inputs .x. and 2 gradients"),
        ({"expression": "x + 1", "gradient": "g * z"}, "z in 'g . z' is none of x, g, out"),
        ({"reference": lambda x: x, "gradient": "g"}, "strings go with an expression"),
        ({"reference": lambda *x: x[0]}, "any number of arguments"),
        ({"reference": lambda x, y, z: x, "kernel": takes}, r"takes \(x, y, out\); expected x, y, z, an array"),
    ):
        with pytest.raises(TenonError, match=message):
            tn.custom_op("mistake", **arguments)
    with pytest.raises(TenonError, match="no name for an op"):
        tn.custom_op("exp", expression="x + 1")
    op_ = tn.custom_op("shrunk", lambda x: x, gradient=lambda g, x, out: g[:2])
    with pytest.raises(ShapeError, match=r"with respect to x has shape \(2,\); expected \(3,\)"):
        slope(op_, f32(3))
    with pytest.raises(TypeError, match="no argument 'beta'"):
        op_(f32(3), beta=1)
