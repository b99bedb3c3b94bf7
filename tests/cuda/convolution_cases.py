"""Convolutions that the CUDA backend is tried on, with what they run on: each takes a way of its own through the
lowering."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
from conv_cases import B, Case, convolution
from cuda_harness import Case as Kernel
from kernel_harness import elements, finish

from engine import dims, dtypes
from engine.dtypes import DType
from engine.schedule import Access, Conv2d, ConvWeightGrad, KernelSpec, MaxPool2d, Stmt

F32, F64, BF16, F16, I32 = dtypes.f32, dtypes.f64, dtypes.bf16, dtypes.f16, dtypes.i32

ONE_CHANNEL = Case((6, 5), (1, 32))
MANY = Case((5, 6), (12, 72))
STRIDED = Case((11, 9), (8, 7), (3, 3), (2, 2))
ROWS_FIRST = Case((7, 5), (12, 20), channels_last=False)
THREE = Case((7, 9), (3, 8), stride=(2, 2), channels_last=False)
DILATED_GROUPS = Case((9, 8), (16, 10), dilation=(2, 3), padding=(2, 1), groups=2)
FEW_A_GROUP = Case((5, 4), (6, 6), groups=3)
DEPTHWISE = Case((6, 11), (40, 40), (5, 3), (2, 1), (3, 2), (1, 2), groups=40)
POINTWISE = Case((4, 3), (9, 33), kernel=(1, 1), padding=(0, 0), stride=(2, 1))


def forward_spec(case: Case, dtype: DType = F32) -> KernelSpec:
    """The convolution with a bias and the relu."""
    axes = (B, *case.out_size, case.channels[1])
    body = (
        Stmt("sum", "core", (0,), dtype), Stmt("bias", "load", (0,), dtype),
        Stmt("value", "add", ("sum", "bias"), dtype),
        Stmt("relu", "maximum", ("value", 0.0), dtype), Stmt("stored", "store", (0, "relu"), dtype),
    )  # fmt: skip
    y = Access("y", dtype, case.strides(case.out_size, case.channels[1]))
    return KernelSpec("conv", axes, (Access("bias", dtype, (0, 0, 0, 1)),), (y,), body, convolution(case, dtype))


def numbers(*shape: int, dtype: DType = F32, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype.is_float:
        return rng.standard_normal(shape).astype(dtype.numpy)
    return rng.integers(-9, 9, shape).astype(dtype.numpy)


def forward(name: str, case: Case, dtype: DType = F32) -> Kernel:
    given = {
        "x": numbers(2 * prod(case.size) * case.channels[0], dtype=dtype),
        "w": numbers(*case.weight_shape, dtype=dtype, seed=1),
        "bias": numbers(case.channels[1], dtype=dtype, seed=2),
        "y": np.zeros(2 * prod(case.out_size) * case.channels[1], dtype.numpy),
    }
    return Kernel(name, forward_spec(case, dtype), given, {"B": 2})


def input_gradient(name: str, case: Case, dtype: DType = F32) -> Kernel:
    outputs, inputs, kh, kw = case.weight_shape
    oc, ic, h, w = elements(case.weight_shape)
    core = Conv2d(
        Access("dy", dtype, case.strides(case.out_size, outputs)), Access("w", dtype, (ic, oc, h, w)), case.out_size,
        case.size, outputs, case.channels[0], case.kernel,
        padding=tuple(d * (k - 1) - p for d, k, p in zip(case.dilation, case.kernel, case.padding, strict=True)),
        dilation=case.dilation, x_dilation=case.stride, groups=case.groups, w_group=outputs // case.groups * oc,
        flip=True,
    )  # fmt: skip
    dx = Access("dx", dtype, case.strides(case.size, case.channels[0]))
    spec = KernelSpec("dx", (B, *case.size, case.channels[0]), (), (dx,), finish(dtype), core)
    given = {
        "dy": numbers(2 * prod(case.out_size) * outputs, dtype=dtype), "w": numbers(*case.weight_shape, dtype=dtype),
        "dx": np.zeros(2 * prod(case.size) * case.channels[0], dtype.numpy),
    }  # fmt: skip
    return Kernel(name, spec, given, {"B": 2})


def weight_gradient(name: str, case: Case, dtype: DType = F32) -> Kernel:
    """The gradient, and a step of gradient descent in the body."""
    outputs, inputs, kh, kw = case.weight_shape
    core = ConvWeightGrad(
        Access("x", dtype, case.strides(case.size, case.channels[0])),
        Access("dy", dtype, case.strides(case.out_size, outputs)), B, case.size, case.out_size, *case.channels,
        case.kernel, case.stride, case.padding, case.dilation, case.groups,
    )  # fmt: skip
    oc, ic, h, w = elements(case.weight_shape)
    each = (outputs // case.groups * oc, h, w, ic, oc)
    body = (
        Stmt("sum", "core", (0,), F32 if dtype.storage_only else dtype), Stmt("w", "load", (0,), dtype),
        Stmt("gradient", "cast", ("sum",), dtype),
        Stmt("step", "mul", ("gradient", 0.5 if dtype.is_float else 2), dtype),
        Stmt("next", "sub", ("w", "step"), dtype), Stmt("stored", "store", (0, "next"), dtype),
    )  # fmt: skip
    axes = (case.groups, kh, kw, inputs, outputs // case.groups)
    weights = Access("w", dtype, each)
    spec = KernelSpec("weight_grad", axes, (weights,), (weights,), body, core)
    given = {
        "x": numbers(3 * prod(case.size) * case.channels[0], dtype=dtype),
        "dy": numbers(3 * prod(case.out_size) * outputs, dtype=dtype, seed=1),
        "w": numbers(*case.weight_shape, dtype=dtype, seed=2),
    }  # fmt: skip
    return Kernel(name, spec, given, {"B": 3})


def pooled(name: str, case: Case, window: Case) -> Kernel:
    """A max pool over the relu of a convolution, with positions."""
    window = replace(window, size=case.out_size)
    axes = (*window.out_size, case.channels[1])
    inner = (
        Stmt("sum", "core", (0,), F32), Stmt("bias", "load", (0,), F32), Stmt("shifted", "add", ("sum", "bias"), F32),
        Stmt("relu", "maximum", ("shifted", 0.0), F32),
    )  # fmt: skip
    body = (
        Stmt("most", "core", (0,), F32), Stmt("where", "core", (1,), dtypes.u8),
        Stmt("stored", "store", (0, "most"), F32), Stmt("kept", "store", (1, "where"), dtypes.u8),
    )  # fmt: skip
    writes = Access("y", F32, elements((1, *axes))), Access("position", dtypes.u8, elements((1, *axes)))
    core = MaxPool2d(inner, case.out_size, window.kernel, window.stride, window.padding, window.dilation,
                     convolution(case))  # fmt: skip
    spec = KernelSpec("pool", (B, *axes), (Access("bias", F32, (0, 0, 0, 1)),), writes, body, core)
    given = dict(forward(name, case).arrays)
    given |= {"y": np.zeros((2, *axes), np.float32), "position": np.zeros((2, *axes), np.uint8)}
    return Kernel(name, spec, given, {"B": 2})


def symbolic(n: int, height: int, width: int) -> Kernel:
    """Images of any size and number."""
    h, w = dims.dim("H"), dims.dim("W")
    case = Case((5, 4), (3, 8))
    core = replace(convolution(case), x=Access("x", F32, (3 * h * w, 3 * w, 3, 1)), in_size=(h, w), out_size=(h, w))
    y = Access("y", F32, elements((B, h, w, 8)))
    given = {"x": numbers(n * height * width * 3), "w": numbers(*case.weight_shape, seed=1),
             "y": np.zeros(n * height * width * 8, np.float32)}  # fmt: skip
    spec = KernelSpec("conv", (B, h, w, 8), (), (y,), finish(F32), core)
    return Kernel(f"{n} images of {height} x {width}", spec, given, {"B": n, "H": height, "W": width})


def _with_place(kernel: Kernel, value: str, at: tuple[int, ...]) -> Kernel:
    """``kernel`` with a number added to its ``value`` that depends on the point."""
    spec = kernel.spec
    assert isinstance(spec, KernelSpec)
    add = (
        Stmt("at", "index", (), dtypes.i64, at), Stmt("number", "cast", ("at",), F32),
        Stmt("more", "add", (value, "number"), F32), Stmt("stored", "store", (0, "more"), F32),
    )  # fmt: skip
    return replace(kernel, spec=replace(spec, body=(*spec.body[:-1], *add)))


def placed() -> list[Kernel]:
    """The axes of pixels cannot be taken as one: the bias differs by row, or the body knows where it is. A convolution
    of a spread-out image then has no phases."""
    by_row = forward("bias by row", Case((4, 5), (8, 12)))
    assert isinstance(by_row.spec, KernelSpec)
    spec = replace(by_row.spec, reads=(Access("bias", F32, (0, 12, 0, 1)),))
    by_row = replace(by_row, spec=spec, arrays={**by_row.arrays, "bias": numbers(4, 12)})
    spread = _with_place(input_gradient("without phases", STRIDED), "value", (0, 10, 1, 100))
    return [by_row, _with_place(forward("index", ONE_CHANNEL), "relu", (100, 10, 1, 1000)), spread]


TENSOR = [
    forward("one channel", ONE_CHANNEL), forward("ragged", MANY), forward("strided", STRIDED),
    forward("rows first", ROWS_FIRST), forward("three channels", THREE), forward("dilated groups", DILATED_GROUPS),
    forward("ragged bf16", MANY, BF16), forward("three channels bf16", THREE, BF16),
    forward("strided f16", STRIDED, F16),
    input_gradient("strided dx", STRIDED), input_gradient("three channels dx", THREE),
    input_gradient("dilated groups dx", DILATED_GROUPS), input_gradient("strided dx bf16", STRIDED, BF16),
    weight_gradient("one channel dw", ONE_CHANNEL), weight_gradient("ragged dw", MANY),
    weight_gradient("strided dw", STRIDED), weight_gradient("rows first dw", ROWS_FIRST),
    weight_gradient("three channels dw", THREE), weight_gradient("dilated groups dw", DILATED_GROUPS),
    weight_gradient("ragged dw bf16", MANY, BF16), weight_gradient("three channels dw bf16", THREE, BF16),
]  # fmt: skip
"""On tensor cores."""
DEPTH = [
    forward("depthwise", DEPTHWISE), forward("depthwise bf16", DEPTHWISE, BF16),
    input_gradient("depthwise dx", DEPTHWISE), weight_gradient("depthwise dw", DEPTHWISE),
]  # fmt: skip
PLAIN = [
    forward("few a group", FEW_A_GROUP), forward("groups f64", DILATED_GROUPS, F64),
    forward("strided i32", STRIDED, I32),
    weight_gradient("few a group dw", FEW_A_GROUP), weight_gradient("strided dw f64", STRIDED, F64),
    weight_gradient("few a group dw i32", FEW_A_GROUP, I32),
]  # fmt: skip
"""By plain sums."""
OTHERS = [
    *placed(), symbolic(2, 5, 4), symbolic(1, 1, 9), symbolic(0, 3, 3), forward("pointwise", POINTWISE),
    input_gradient("pointwise dx", POINTWISE), weight_gradient("pointwise dw", replace(POINTWISE, stride=(1, 1))),
    pooled("pooled", ONE_CHANNEL, Case((1, 1), (1, 1), (2, 2), (2, 2), (0, 0))),
    pooled("pooled over the border", ONE_CHANNEL, Case((1, 1), (1, 1), (3, 2), (2, 2), (1, 1))),
]  # fmt: skip
