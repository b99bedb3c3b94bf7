"""The short way from source to IR gives what Numba gives, and knows what it does not know."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from engine.program import Kernel
from runtime.cpu import compile as compiling
from runtime.cpu.objects import link, symbol
from runtime.cpu.translate import Unknown, translate

MIXED = """
from numba import njit
from numpy import float32, int32, uint8, inf
from runtime.cpu.intrinsics import load_f32, load_i64, maximum, select, store_f32, store_i64
from runtime.cpu.mathlib import exp


@njit
def note(counts, slot, value):
    if slot > 9:
        return
    for i in range(1):
        store_i64(counts, slot, value, 2)


@njit
def sign(i, n):
    while i < n:
        if i < 0:
            return i * 2 < -3
        i += n
    return not i


def mixed(x, n, out, counts):
    total = float32(-inf)
    seen = 0
    for i in range(n):
        if i == 2 or i == n - 1:
            continue
        v = load_f32(x, i, 0)
        big = v > float32(0.5) and not (i > 11)
        w = v * 0.5 if not big else exp(v) / 3
        total = maximum(total, float32(w))
        store_f32(out, i, select(big, float32(w), -float32(w)), 1)
        small = uint8(i)
        seen += small * 2 + min(i, 7) - max(3, i)
    j = 1
    while True:
        j += j
        if j >= n or total < j:
            break
    for k in range(0, n, 5):
        seen += k & 6 | 1
    store_f32(out, 2, total, 1)
    for i in range(-4, 4):
        seen += 100 * (i // 3) + 7 * (i % 3) + (i // (i - i)) - (-5 if sign(i, n) else i % -2)
    note(counts, 0, seen)
    note(counts, 10, 1)
    store_i64(counts, 1, j, 2)
    store_i64(counts, 2, int32(-seen) ^ 5, 2)
"""


def run(kernel: Kernel, module) -> tuple[np.ndarray, np.ndarray]:
    code = link(compiling._machine().emit_object(module), symbol(kernel.name))
    x = np.random.default_rng(0).standard_normal(17).astype(np.float32)
    out, counts = np.zeros_like(x), np.zeros(3, np.int64)
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(code.address)
    function(x.ctypes.data, x.size, out.ctypes.data, counts.ctypes.data)
    return out, counts


def test_it_means_what_numba_means():
    kernel = Kernel("mixed", "mixed", MIXED)
    made = compiling.load_source(kernel)
    short = compiling._translated(kernel, made)
    assert short is not None
    found, wanted = (run(kernel, m) for m in (short, compiling._lower(made.mixed, symbol("mixed"))))
    assert np.count_nonzero(wanted[0]) == 16 and wanted[1].all()
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


CALLED = """
from numba import njit

@njit
def nothing(i):
    i += 1

@njit
def sometimes(i):
    if i:
        return 1

@njit
def decorated(i):
    return i

"""


@pytest.mark.parametrize(
    "body",
    [
        "x = 1\n    x = 2.5",  # one variable, two types
        "helper(lo)",
        "for i in range(hi, lo, -1):\n        pass",
        "x = (lo, hi)",
        "x = nothing(lo)",
        "x = lo << 2",
        "x = sometimes(lo)",
        "x = decorated(lo, hi)",
        "x = unheard_of",
        "x = 1 if lo else 1.5",
        "return lo",
    ],
)
def test_what_it_does_not_know(body):
    globals_ = {"helper": compiling.load_source}
    source = f"{CALLED}def kernel(args, lo, hi, scratch):\n    {body}\n"
    exec(source, globals_)
    with pytest.raises(Unknown):
        translate(source, "kernel", globals_, "entry", compiling.FASTMATH)
