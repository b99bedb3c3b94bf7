"""Pooling kernels, and their gradients, against NumPy."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from kernel_harness import load, normal, over, run, store

from engine.dims import dim
from engine.dtypes import f32, u8
from engine.schedule import Access, KernelSpec, MaxPool2d, MaxPool2dGather, MaxPool2dGrad, Stmt
from runtime.cpu.lower import lower

B = dim("B")


POOLS = [  # size, channels, kernel, stride, padding, dilation
    ((8, 10), 5, (2, 2), (2, 2), (0, 0), (1, 1)),
    ((9, 11), 3, (2, 2), (2, 2), (0, 0), (1, 1)),
    ((12, 12), 200, (3, 3), (2, 2), (1, 1), (1, 1)),
    ((11, 9), 4, (3, 2), (1, 2), (1, 0), (2, 1)),
    ((13, 13), 2, (2, 2), (3, 4), (1, 1), (2, 2)),
    ((10, 10), 600, (5, 5), (5, 5), (0, 0), (1, 1)),
    ((7, 7), 1, (7, 7), (1, 1), (3, 3), (1, 1)),
]


def pooled_size(size, kernel, stride, padding, dilation):
    return tuple(
        (h + 2 * p - d * (k - 1) - 1) // s + 1
        for h, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )


def reference_pool(x, kernel, stride, padding, dilation):
    n, h, w, c = x.shape
    oh, ow = pooled_size((h, w), kernel, stride, padding, dilation)
    value, position = np.full((n, oh, ow, c), -np.inf, np.float32), np.full((n, oh, ow, c), -1)
    for y, xx, ky, kx in itertools.product(range(oh), range(ow), range(kernel[0]), range(kernel[1])):
        iy, ix = y * stride[0] - padding[0] + ky * dilation[0], xx * stride[1] - padding[1] + kx * dilation[1]
        if 0 <= iy < h and 0 <= ix < w:
            here, best = x[:, iy, ix], value[:, y, xx]
            take = (position[:, y, xx] < 0) | (here > best) | (np.isnan(here) & ~np.isnan(best))
            value[:, y, xx] = np.where(take, here, best)
            position[:, y, xx] = np.where(take, ky * kernel[1] + kx, position[:, y, xx])
    return value, position.astype(np.uint8)


def reference_scatter(g, position, size, kernel, stride, padding, dilation):
    n, oh, ow, c = g.shape
    dx = np.zeros((n, *size, c), np.float32)
    for b, y, x, ch in itertools.product(range(n), range(oh), range(ow), range(c)):
        ky, kx = divmod(int(position[b, y, x, ch]), kernel[1])
        dx[b, y * stride[0] - padding[0] + ky * dilation[0], x * stride[1] - padding[1] + kx * dilation[1], ch] += g[
            b, y, x, ch
        ]
    return dx


@pytest.mark.parametrize(("batch", "case"), [(2, POOLS[0]), *((B, case) for case in POOLS)], ids=str)
def test_max_pooling_and_its_gradients(batch, case) -> None:
    size, c, kernel, stride, padding, dilation = case
    out = pooled_size(*case[:1], *case[2:])
    x = np.random.default_rng(0).integers(-4, 5, (2, *size, c)).astype(np.float32)  # many ties
    x[0, 1, 2], x[1, 3, 3] = np.nan, -np.inf
    x[1, :3, :3] = -np.inf
    inner = (load("x", 0), Stmt("two", "const", (2.0,), f32), Stmt("xx", "mul", ("x", "two"), f32))
    shape, full = (batch, *out, c), (batch, *size, c)
    core = MaxPool2d(inner, size, kernel, stride, padding, dilation)
    body = (
        Stmt("m", "core", (0,), f32),
        load("r", 1),
        Stmt("y", "add", ("m", "r"), f32),
        store(0, "y"),
        Stmt("p", "core", (1,), u8),
        store(1, "p", u8),
    )
    spec = KernelSpec(
        "pool",
        shape,
        (over("x", full), Access("r", f32, (0, 0, 0, 1))),
        (over("y", shape), over("p", shape, u8)),
        body,
        core,
    )
    y, p, r = np.zeros((2, *out, c), np.float32), np.zeros((2, *out, c), np.uint8), normal(c)
    run(lower(spec), {"x": x, "r": r, "y": y, "p": p}, {"B": 2}, splits=2)
    value, position = reference_pool(2 * x, *case[2:])
    np.testing.assert_array_equal(y, value + r)
    np.testing.assert_array_equal(p, position)

    without = replace(spec, body=(Stmt("m", "core", (0,), f32), store(0, "m")), writes=spec.writes[:1])
    run(lower(without), {"x": x, "r": r, "y": y}, {"B": 2})
    np.testing.assert_array_equal(y, value)

    g = normal(2, *out, c)
    grad_core = MaxPool2dGrad((load("g", 0),), over("p", shape, u8), out, kernel, stride, padding, dilation)
    grad_body = (Stmt("d", "core", (0,), f32), load("x", 1), Stmt("e", "add", ("d", "x"), f32), store(0, "e"))
    grad = KernelSpec("grad", full, (over("g", shape), over("x", full)), (over("dx", full),), grad_body, grad_core)
    clean = normal(2, *size, c, seed=5)
    dx = np.zeros((2, *size, c), np.float32)
    run(lower(grad), {"g": g, "p": p, "x": clean, "dx": dx}, {"B": 2}, splits=2)
    np.testing.assert_allclose(dx - clean, reference_scatter(g, p, size, *case[2:]), rtol=1e-4, atol=1e-5)

    gather_core = MaxPool2dGather((load("v", 0),), over("p", shape, u8), size, kernel, stride, padding, dilation)
    gather = KernelSpec(
        "gather",
        shape,
        (over("v", full),),
        (over("z", shape),),
        (Stmt("z", "core", (0,), f32), store(0, "z")),
        gather_core,
    )
    z = np.zeros((2, *out, c), np.float32)
    run(lower(gather), {"v": clean, "p": p, "z": z}, {"B": 2})
    # the gather is the transpose of the scatter
    np.testing.assert_allclose((z * g).sum(), (clean * (dx - clean)).sum(), rtol=1e-3)
