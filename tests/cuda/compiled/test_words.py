"""The scalar words of generated kernels compile, with integers of their width and 16-byte accesses."""

from __future__ import annotations

import re

import pytest
from cuda_harness import compiled

from engine import dtypes
from runtime.cuda.emit import kernel
from runtime.cuda.intrinsics import VECTORS, has_vector
from runtime.cuda.toolkit import ARCHITECTURES, to_ptx
from runtime.emit import ArgTable

ON_FLOATS = (
    "floor", "ceil", "trunc", "round_even", "absolute", "sqrt", "sign", "exp", "expm1", "log", "log1p", "tanh",
    "sigmoid", "erf", "sin", "cos", "tan", "atan",
)  # fmt: skip
ON_PAIRS = ("maximum", "minimum", "atan2", "float_pow", "float_mod", "float_floordiv")
ON_INTEGERS = ("maximum", "minimum", "integer_floordiv", "integer_mod", "integer_pow", "shift_left", "shift_right")


def of(lines):
    """A kernel of ``lines``: ``p`` and ``q`` are addresses, ``i`` is the number of the thread."""
    table = ArgTable()
    table.declare(p=1, q=1)
    return kernel("words", ["i = cuda.blockIdx.x * 128 + cuda.threadIdx.x", *lines], table, 128)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_math_uses_no_local_memory(dtype, architecture):
    values = [f"{f}(x)" for f in ON_FLOATS] + [f"{f}(x, y)" for f in ON_PAIRS]
    lines = [f"x = load_{dtype}(p, i, 0)", f"y = load_{dtype}(p, i + 1, 0)"]
    lines += [f"store_{dtype}(q, i + {n}, {v}, 1)" for n, v in enumerate(values)]
    lines += ["store_bool(q, i, is_nan(x) | is_finite(y), 1)", f"store_{dtype}(q, i, uniform_{dtype}(i, p, 3, i), 1)"]
    resources = compiled(of(lines), architecture).resources
    assert (resources.stack, resources.spill_stores, resources.spill_loads) == (0, 0, 0)


def test_integers():
    lines = []
    for d in ("i8", "u8", "i32", "i64"):
        lines.append(f"{d} = load_{d}(p, i, 0)")
        lines += [f"store_{d}(q, i, {f}({d}, load_{d}(p, i + 1, 0)), 1)" for f in ON_INTEGERS]
        lines.append(f"store_{d}(q, i, select(i > 3, sign({d}), truncate_{d}(load_f32(p, i, 0))), 1)")
    assert "ld.global.s8" in to_ptx(of(lines), "sm_80")


VECTOR_WORDS = [(c, d) for c in VECTORS for d in dtypes.ALL if has_vector(c, d)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_neighbours_are_one_access(architecture):
    lines = []
    for count, dtype in VECTOR_WORDS:
        given = ", ".join(f"x{k}" for k in range(count))
        lines += [
            f"{given} = load{count}_{dtype}(p, i * {count}, 0)",
            f"store{count}_{dtype}(q, i * {count}, {given}, 0)",
        ]
    text = to_ptx(of(lines), architecture)
    widths = {"v4.u32", "v2.u32", "v4.f32", "v2.f32", "v2.f64", "v2.u64"}
    for access in ("ld", "st"):
        assert set(re.findall(rf"{access}\.global\.(v\d\.\w\d\d)", text)) == widths


def test_a_kernel_may_be_told_not_to_run():
    text = to_ptx(of(["report(p, i > 3, 7, i)"]), "sm_80")
    guard, error, report = map(text.index, ("ld.global.u8", "ld.global.u64", "atom.global.cas.b64"))
    assert guard < error < report
