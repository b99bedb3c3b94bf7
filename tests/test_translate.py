"""The short way from source to IR gives what Numba gives, and knows what it does not know."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

import tenon as tn
from engine.options import DEFAULT
from engine.program import Kernel
from runtime.cpu import compile as compiling
from runtime.cpu.driver import driver_kernel, timed_driver_kernel
from runtime.cpu.objects import link, symbol
from runtime.cpu.translate import Unknown, translate
from tenon import backends, nn, optim
from tenon.specs import as_specs
from tenon.tracing import trace

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
    for k in range(n, -2, -3):
        seen += k & 5
    store_f32(out, 2, total, 1)
    for i in range(-4, 4):
        seen += 100 * (i // 3) + 7 * (i % 3) + (i // (i - i)) - (-5 if sign(i, n) else i % -2)
    for i in range(2):
        if i == 1:
            part = seen + 3
            seen += part
        else:
            part = float32(2.5)
            total += part
    note(counts, 0, seen)
    note(counts, 10, 1)
    store_i64(counts, 1, j, 2)
    store_i64(counts, 2, int32(-seen) ^ 5, 2)
"""


def run(kernel: Kernel, module) -> tuple[np.ndarray, np.ndarray]:
    code = link(compiling._machine(1).emit_object(module), symbol(kernel.name))
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
def either(i):
    if i:
        return 1
    return 1.5

@njit
def decorated(i):
    return i

"""


@pytest.mark.parametrize(
    "body",
    [
        "x = 1\n    x = 2.5",  # one variable, two types
        "helper(lo)",
        "for i in range(lo, hi, hi):\n        pass",
        "for i in range(lo, hi, 0):\n        pass",
        "x = (lo, hi)",
        "x = nothing(lo)",
        "x = lo << 2",
        "x = sometimes(lo)",
        "x = decorated(lo, hi)",
        "x = either(lo)",
        "if lo:\n        x = 1\n    hi = x",  # not set on every way
        "if lo:\n        x = 1\n    else:\n        x = 1.5\n    hi = x",
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
        translate(source, "kernel", globals_, "entry", compiling.FASTMATH, {})


class Mixture(nn.Module):
    """A layer of each kind whose kernels are written one by one."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 16, 3, stride=2, groups=2)
        self.attention = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.decoder = nn.MultiheadAttention(16, 2, batch_first=True)
        self.recurrent = nn.LSTM(16, 16, batch_first=True)

    def forward(self, x):
        x = self.grouped(self.depthwise(self.conv(x)))
        x = self.attention(x.flatten(2).transpose(1, 2))
        one, _ = self.decoder(x[:, :1], x, x, need_weights=False)
        sequence, _ = self.recurrent(x)
        return tn.sort(tn.cumsum(sequence + one, 1), -1)[0]


@pytest.mark.slow
def test_kernels_of_models_go_the_short_way():
    """The long one takes ten times as long; nothing but the time shows which way was taken."""
    model = Mixture()
    optimizer = optim.Adam(model.parameters())

    def step(x):
        loss = model(x).square().mean()
        optimizer.minimize(loss)
        return loss

    stages = {}
    traced = trace(step, as_specs([tn.spec("B", 3, 14, 14)], "step"))
    backends.compiling("cpu").observe(traced.graph, DEFAULT, stages.__setitem__)
    kernels = [driver_kernel(), timed_driver_kernel(), *stages["program"].kernels]
    assert len(kernels) > 40
    for kernel in kernels:
        made = vars(compiling.load_source(kernel))
        assert translate(kernel.source, kernel.name, made, symbol(kernel.name), compiling.FASTMATH, {})
