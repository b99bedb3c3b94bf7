"""The math library of the CPU kernels against NumPy and Python's math, by sweeps and at the special values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from kernel_harness import run

from engine import dtypes, scalar
from engine.random import philox4x32, uniform_reference, uniform_scalar
from engine.schedule import Access, KernelSpec, Stmt
from runtime.cpu.loops import lower_loops

F32, F64 = dtypes.f32, dtypes.f64
SPECIAL = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    2.0,
    -2.0,
    3.0,
    -3.0,
    math.inf,
    -math.inf,
    math.nan,
    1e-45,
    -1e-45,
    1e-40,
    1e-38,
    3.4e38,
    -3.4e38,
    88.7,
    88.8,
    -87.4,
    -103.9,
    -104.1,
    89.5,
    1e30,
    -1e30,
    1e5,
    12345.678,
    math.pi,
    math.pi / 2,
]
WIDE = [
    1e300,
    -1e300,
    5e-324,
    1e-310,
    2e-308,
    709.7,
    709.9,
    -708.5,
    -745.2,
    -747.0,
    1e16,
    1e22,
    6381956970095103 * 2.0**797,
]


def apply(op: str, dtype: dtypes.DType, *inputs: np.ndarray, result: dtypes.DType | None = None) -> np.ndarray:
    """``op`` of the vocabulary on arrays of ``dtype``, through a compiled kernel."""
    result = result or dtype
    names = [f"x{i}" for i in range(len(inputs))]
    n = inputs[0].size
    body = [Stmt(x, "load", (i,), dtype) for i, x in enumerate(names)]
    body += [Stmt("y", op, tuple(names), result), Stmt("s", "store", (0, "y"), result)]
    spec = KernelSpec(
        "apply", (n,), tuple(Access(x, dtype, (1,)) for x in names), (Access("y", result, (1,)),), tuple(body)
    )
    y = np.empty(n, result.numpy)
    run(lower_loops(spec), {**dict(zip(names, inputs, strict=True)), "y": y})
    return y


def samples(dtype: dtypes.DType, low: float, high: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    special = SPECIAL + (WIDE if dtype == F64 else [])
    tiny = 10 ** rng.uniform(-30, 0, 4000) * rng.choice([-1, 1], 4000)
    return np.concatenate([special, np.linspace(low, high, 40001), tiny]).astype(dtype.numpy)


def ulps(found: np.ndarray, wanted: np.ndarray, dtype: dtypes.DType) -> np.ndarray:
    """The distance in units of the last place of ``wanted``; 0 where both are the same special value."""
    with np.errstate(over="ignore"):
        rounded = wanted.astype(dtype.numpy)
    same = (found == rounded) | (np.isnan(found) & np.isnan(rounded))
    with np.errstate(all="ignore"):
        distance = np.abs(found.astype(np.longdouble) - wanted) / np.spacing(np.abs(rounded)).astype(np.longdouble)
    return np.where(same, 0, np.where(np.isnan(distance), np.inf, distance).astype(np.float64))


def precise(op: str, *x: np.ndarray) -> np.ndarray:
    """NumPy in long double, where it has the function; erf from Python's math."""
    wide = [a.astype(np.longdouble) for a in x]
    with np.errstate(all="ignore"):
        if op == "sigmoid":
            e = np.exp(-np.abs(wide[0]))
            return np.where(wide[0] >= 0, 1 / (1 + e), e / (1 + e))
        if op == "erf":
            return scalar.VOCABULARY["erf"].numpy(x[0].astype(np.float64)).astype(np.longdouble)
        return scalar.VOCABULARY[op].numpy(*wide)


RANGES = {
    "exp": (-110, 95),
    "expm1": (-20, 95),
    "log": (0, 10),
    "log1p": (-1, 5),
    "tanh": (-12, 12),
    "sigmoid": (-110, 110),
    "erf": (-7, 7),
    "sin": (-100, 100),
    "cos": (-100, 100),
    "tan": (-20, 20),
    "atan": (-20, 20),
}


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("op", RANGES)
def test_unary_function_is_within_a_few_ulps_everywhere(op: str, dtype: dtypes.DType) -> None:
    x = samples(dtype, *RANGES[op])
    wanted = precise(op, x)
    distance = ulps(apply(op, dtype, x), wanted, dtype)
    worst = int(np.argmax(distance))
    bound = 2 if dtype == F32 else {"tan": 4}.get(op, 2.5)
    assert distance[worst] <= bound, (x[worst], wanted[worst])


UNARY = [n for n, f in scalar.VOCABULARY.items() if f.arity == 1 and n not in ("identity", "not_", "invert")]


def check_floats(op: str, chunk: int, stride: int) -> None:
    """Every ``stride``-th float32, ``chunk`` at a time, denormals, infinities and NaNs among them: within 2 units of
    the last place of what float64 gives; rounding, signs and roots exactly NumPy's."""
    result = dtypes.bool_ if scalar.VOCABULARY[op].result == "bool" else F32
    for start in range(0, 2**32, chunk * stride):
        bits = np.arange(start, min(start + chunk * stride, 2**32), stride, np.int64)
        x = bits.astype(np.uint32).view(np.float32)
        found = apply(op, F32, x, result=result)
        with np.errstate(all="ignore"):
            if op not in RANGES:
                np.testing.assert_array_equal(found, scalar.VOCABULARY[op].numpy(x))
                continue
            wide = x.astype(np.float64)
            if op == "sigmoid":
                e = np.exp(-np.abs(wide))
                wanted = np.where(wide >= 0, 1, e) / (1 + e)
            else:
                wanted = scalar.VOCABULARY[op].numpy(wide)
        distance = ulps(found, wanted, F32)
        worst = int(np.argmax(distance))
        assert distance[worst] <= 2, (x[worst], found[worst], wanted[worst])


@pytest.mark.parametrize("op", UNARY)
def test_unary_function_on_floats_of_every_size(op: str) -> None:
    check_floats(op, 2**18, 2**14 - 3)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("op", UNARY)
def test_unary_function_on_all_floats(op: str) -> None:
    check_floats(op, 2**22, 1)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("op", ["pow", "atan2"])
def test_binary_function_and_all_pairs_of_special_values(op: str, dtype: dtypes.DType) -> None:
    rng = np.random.default_rng(1)
    special = np.array([*SPECIAL[:17], 5.0, -7.0, 1e18, -1e18]).astype(dtype.numpy)
    a, b = (g.ravel() for g in np.meshgrid(special, special))
    x = np.concatenate([a, rng.uniform(0, 30, 20000), rng.uniform(-5, 5, 3000)]).astype(dtype.numpy)
    y = np.concatenate([b, rng.uniform(-20, 20, 20000), np.rint(rng.uniform(-9, 9, 3000))]).astype(dtype.numpy)
    wanted = precise(op, x, y)
    found = apply(op, dtype, x, y)
    distance = ulps(found, wanted, dtype)
    worst = int(np.argmax(distance))
    assert distance[worst] <= 2.5, (x[worst], y[worst], found[worst], wanted[worst])


@pytest.mark.parametrize("dtype", dtypes.ALL[1:5] + dtypes.ALL[7:], ids=str)
@pytest.mark.parametrize("op", ["floordiv", "mod"])
def test_division_with_remainder_is_numpys(op: str, dtype: dtypes.DType) -> None:
    rng = np.random.default_rng(2)
    if dtype.is_float:
        special = np.array(
            [0.0, -0.0, 1.0, -1.0, 0.1, 7.5, -3.0, math.inf, -math.inf, math.nan, 1e30, 1e-30], dtype.numpy
        )
        a, b = (g.ravel() for g in np.meshgrid(special, special))
        x = np.concatenate([a, rng.uniform(-50, 50, 2000)]).astype(dtype.numpy)
        y = np.concatenate([b, rng.uniform(-5, 5, 2000)]).astype(dtype.numpy)
    else:
        info = np.iinfo(dtype.numpy)
        special = np.array([0, 1, 2, 7, info.min, info.max, info.min + 1], dtype.numpy)
        a, b = (g.ravel() for g in np.meshgrid(special, special))
        x = np.concatenate([a, rng.integers(info.min, info.max, 2000, dtype=dtype.numpy)])
        y = np.concatenate([b, rng.integers(-9 if info.min else 0, 9, 2000).astype(dtype.numpy)])
    with np.errstate(all="ignore"):
        wanted = scalar.VOCABULARY[op].numpy(x, y)
    np.testing.assert_array_equal(apply(op, dtype, x, y), wanted)


@pytest.mark.parametrize("dtype", [dtypes.i32, dtypes.i64, dtypes.u8], ids=str)
def test_integer_power_wraps(dtype: dtypes.DType) -> None:
    x = np.arange(-8 if dtype.kind == "i" else 0, 17).astype(dtype.numpy)
    for exponent in (0, 1, 2, 5, 11):
        y = np.full_like(x, exponent)
        np.testing.assert_array_equal(apply("pow", dtype, x, y), np.power(x, y))


def test_one_draw_is_that_of_an_array() -> None:
    index = np.array([0, 1, 2**33 + 7])
    for dtype in (dtypes.f32, dtypes.f64):
        one = np.array([uniform_scalar(2**40 + 5, 3, 7, int(i), dtype) for i in index])
        many = uniform_reference(2**40 + 5, 3, 7, index, dtype)
        assert one.dtype == many.dtype
        np.testing.assert_array_equal(one, many)


def test_philox_known_answers() -> None:
    """Vectors of the Random123 distribution (tests/kat_vectors, philox4x32 10)."""
    vectors = [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ]
    for counter, key, wanted in vectors:
        assert tuple(int(w) for w in philox4x32(np.array(counter), key)) == wanted


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_uniform_is_bit_equal_to_the_reference(dtype: dtypes.DType) -> None:
    n, seed, step, stream = 1000, -(2**40) + 12345, 7, 3
    body = (
        Stmt("seed", "load", (0,), dtypes.i64),
        Stmt("step", "load", (1,), dtypes.i64),
        Stmt("stream", "const", (stream,), dtypes.i64),
        Stmt("at", "index", (), dtypes.i64, (1,)),
        Stmt("far", "const", (2**33,), dtypes.i64),
        Stmt("i", "add", ("at", "far"), dtypes.i64),
        Stmt("u", "uniform", ("seed", "step", "stream", "i"), dtype),
        Stmt("s", "store", (0, "u"), dtype),
    )
    reads = tuple(Access(b, dtypes.i64, (0,)) for b in ("seed", "step"))
    y = np.empty(n, dtype.numpy)
    arrays = {"seed": np.array([seed]), "step": np.array([step]), "y": y}
    run(lower_loops(KernelSpec("draw", (n,), reads, (Access("y", dtype, (1,)),), body)), arrays)
    np.testing.assert_array_equal(y, uniform_reference(seed, step, stream, np.arange(n) + 2**33, dtype))
    assert y.min() >= 0 and y.max() < 1 and abs(y.mean() - 0.5) < 0.05
