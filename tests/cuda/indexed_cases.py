"""Pools, scatters, scans and sorts that the CUDA backend is tried on: each goes a way of its own through lowering."""

from __future__ import annotations

import numpy as np
from cuda_harness import Case
from kernel_harness import finish, load, over
from loop_cases import values

from engine.dims import dim
from engine.dtypes import DType, bf16, f16, f32, f64, i8, i32, i64, u8
from engine.schedule import (
    Access,
    KernelSpec,
    MaxPool2d,
    MaxPool2dGather,
    MaxPool2dGrad,
    RunningExtremum,
    Scan,
    Scatter,
    Sort,
    Stmt,
)

B = dim("B")


def pools() -> list[Case]:
    found = []
    windows = {
        "tiled": ((2, 2), (2, 2), (0, 0), (1, 1)),
        "overlapping": ((3, 2), (2, 1), (1, 0), (1, 2)),
        "apart": ((2, 2), (3, 3), (0, 1), (1, 1)),
    }
    for name, (kernel, stride, padding, dilation) in windows.items():
        size, channels, n = (9, 8), 5, 2
        out = tuple((size[i] + 2 * padding[i] - (kernel[i] - 1) * dilation[i] - 1) // stride[i] + 1 for i in (0, 1))
        window = (kernel, stride, padding, dilation)
        whole, pooled = (n, *size, channels), (n, *out, channels)
        inner = (load("x", 0), Stmt("r", "abs", ("x",), f32))
        body = (*finish(f32), Stmt("at", "core", (1,), u8), Stmt("s1", "store", (1, "at"), u8))
        spec = KernelSpec("pool", pooled, (over("x", whole),), (over("y", pooled), over("p", pooled, u8)), body,
                          MaxPool2d(inner, size, *window))  # fmt: skip
        x = values(whole, f32)
        found.append(Case(f"pool {name}", spec, {"x": x, "y": values(pooled, f32), "p": values(pooled, u8)}))
        positions = np.random.default_rng(1).integers(0, kernel[0] * kernel[1], pooled).astype(np.uint8)
        position = over("p", pooled, u8)
        spec = KernelSpec("pool_grad", whole, (over("g", pooled),), (over("y", whole),), finish(f32),
                          MaxPool2dGrad((load("g", 0),), position, out, *window))  # fmt: skip
        found.append(
            Case(f"gradient {name}", spec, {"g": values(pooled, f32), "p": positions, "y": values(whole, f32)})
        )
        spec = KernelSpec("pool_gather", pooled, (over("x", whole),), (over("y", pooled),), finish(f32),
                          MaxPool2dGather((load("x", 0),), position, size, *window))  # fmt: skip
        found.append(Case(f"gather {name}", spec, {"x": x, "p": positions, "y": values(pooled, f32)}))
    return found


def scatters() -> list[Case]:
    def case(
        name: str, axes: tuple[int, ...], index, out, places: int, stride: int, mode: str, dtype: DType = f32, size=0
    ):
        """``index`` and ``out`` are strides; the source is C-contiguous."""
        spec = KernelSpec("scatter", axes, (Access("at", i64, index), over("x", axes, dtype)),
                          (Access("y", dtype, out),), (), Scatter(mode, stride, places))  # fmt: skip
        count = 1 + sum((n - 1) * s for n, s in zip(axes, index, strict=True))
        at = np.random.default_rng(2).integers(0, places, count)
        return Case(name, spec, {"at": at, "x": values(axes, dtype), "y": values(size, dtype)}, tolerance=1e-5)

    modes = ("add", "set", "max", "min", "mul")
    return [
        *(case(f"rows {m}", (90, 20), (1, 0), (0, 1), 5, 20, m, size=100) for m in modes),
        case("many rows", (150, 20), (1, 0), (0, 1), 3, 20, "add", size=60),
        case("rows of 16 bits", (40, 24), (1, 0), (0, 1), 6, 24, "max", bf16, size=144),
        case("a sum of bytes", (100,), (1,), (0,), 7, 1, "add", i8, size=7),
        case("an index of each element", (6, 40), (40, 1), (9, 0), 9, 1, "add", size=54),
        case("many lines", (5000, 3), (3, 1), (4, 0), 4, 1, "add", i32, size=20000),
        case("few of many", (3, 5), (5, 1), (1, 0), 4, 3, "set", size=12),
    ]


def scans() -> list[Case]:
    found = []

    def scan(name, shape, axis, reverse=False, dtype: DType = f32, dims=None):
        sizes = tuple((dims or {}).get(str(n), n) for n in shape)
        factor = Access("a", dtype, tuple(1 if i == axis else 0 for i in range(len(shape))))
        spec = KernelSpec("scan", shape, (factor, over("b", shape, dtype)), (over("y", shape, dtype),), (),
                          Scan(axis, reverse))  # fmt: skip
        a = (values(sizes[axis], dtype) * 0.5 if dtype.is_float else values(sizes[axis], dtype)).astype(dtype.numpy)
        arrays = {"a": a, "b": values(sizes, dtype), "y": values(sizes, dtype)}
        found.append(Case(name, spec, arrays, dims or {}, 1e-5))

    def running(name, shape, axis, greatest, dtype: DType = f32):
        writes = (over("y", shape, dtype), over("p", shape, i64))
        spec = KernelSpec("running", shape, (over("x", shape, dtype),), writes, (), RunningExtremum(axis, greatest))
        x = np.round(values(shape, dtype) * 2) if dtype.is_float else values(shape, dtype)
        if dtype.is_float:
            x.reshape(-1)[x.size // 2] = np.nan
        arrays = {"x": x.astype(dtype.numpy), "y": values(shape, dtype), "p": values(shape, i64)}
        found.append(Case(name, spec, arrays))

    scan("a long line", (2, 300), 1)
    scan("from behind", (300,), 0, reverse=True)
    scan("down", (40, 3), 0, dtype=f64)
    scan("integers", (5, 33), 1, dtype=i32)
    scan("any length", (3, B), 1, dims={"B": 50})
    scan("many lines", (2, 9, 1100), 1)
    scan("many lines of 16 bits", (3, 2100), 0, dtype=bf16)
    running("greatest so far", (3, 200), 1, True)
    running("least so far", (50, 3), 0, False, i32)
    running("of many lines", (4, 2100), 0, True)
    return found


def sorts() -> list[Case]:
    return _sorts(
        ("a short line", (3, 37), 1, False, f32, {}),
        ("down", (50, 4), 0, True, f32, {}),
        ("bytes, equal ones among them", (2, 100), 1, True, u8, {}),
        ("64 bits", (200,), 0, False, i64, {}),
        ("any length", (2, B), 1, False, f64, {"B": 70}),
        ("longer than shared memory", (1500,), 0, True, f32, {}),
    )


def merged_sorts() -> list[Case]:
    """Lines of some runs, if these are of 64 elements: among them a last run that is short, or has no other."""
    return _sorts(
        ("five runs, equal ones in all", (300,), 0, False, u8, {}),
        ("descending, with NaN", (2, 250), 1, True, f32, {}),
        ("down, of any length, of 16 bits", (B, 3), 0, False, f16, {"B": 129}),
        ("any length that one block sorts", (B,), 0, True, i64, {"B": 64}),
    )


def _sorts(*given) -> list[Case]:
    found = []
    for name, shape, axis, descending, dtype, dims in given:
        sizes = tuple(dims.get(str(n), n) for n in shape)
        writes = (over("y", shape, dtype), over("p", shape, i64))
        spec = KernelSpec("sort", shape, (over("x", shape, dtype),), writes, (), Sort(axis, descending))
        x = values(sizes, dtype)
        if dtype.is_float:
            x = np.round(x * 4)
            x.reshape(-1)[[3, 20, -2]] = np.nan
            x.reshape(-1)[5] = np.inf
        arrays = {"x": x.astype(dtype.numpy), "y": values(sizes, dtype), "p": values(sizes, i64)}
        found.append(Case(f"sort {name}", spec, arrays, dims))
    return found


ALL = (*pools(), *scatters(), *scans(), *sorts())
