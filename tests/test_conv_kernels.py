"""Convolution kernels against sums written down from the definition in engine/schedule.py."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from conv_cases import CASES, F32, B, Case, convolution
from kernel_harness import elements, finish, run

from engine import dims, dtypes
from engine.errors import UnsupportedError
from engine.schedule import Access, Conv2d, ConvWeightGrad, KernelSpec, MaxPool2d, Stmt
from runtime.cpu.conv_direct import lower_conv2d
from runtime.cpu.conv_pool import lower_conv2d_pool
from runtime.cpu.lower import lower


def taps(case: Case, x: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """For every tap, what each output reads: (n, oh, ow, c)."""
    (ph, pw), (sh, sw), (dh, dw) = case.padding, case.stride, case.dilation
    padded = np.pad(x.astype(np.float64), ((0, 0), (ph, ph + sh), (pw, pw + sw), (0, 0)))
    oh, ow = case.out_size
    return {
        (i, j): padded[:, i * dh : i * dh + (oh - 1) * sh + 1 : sh, j * dw : j * dw + (ow - 1) * sw + 1 : sw]
        for i, j in product(range(case.kernel[0]), range(case.kernel[1]))
    }


def convolved(case: Case, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """(n, oh, ow, oc) from x over (n, h, w, c) and w over (oc, ic, kh, kw)."""
    parts = []
    outputs, inputs = case.channels[1] // case.groups, case.channels[0] // case.groups
    for g in range(case.groups):
        mine = w[g * outputs : (g + 1) * outputs].astype(np.float64)
        parts.append(sum(
            seen[..., g * inputs : (g + 1) * inputs] @ mine[:, :, i, j].T for (i, j), seen in taps(case, x).items()
        ))  # fmt: skip
    return np.concatenate(parts, -1)


@pytest.mark.parametrize("name", [n for n in CASES if not n.startswith("strides")])
def test_convolution(name: str) -> None:
    case = CASES[name]
    y = Access("y", F32, case.strides(case.out_size, case.channels[1]))
    bias = Access("bias", F32, (0, 0, 0, 1))
    body = (
        Stmt("sum", "core", (0,), F32), Stmt("bias", "load", (0,), F32), Stmt("value", "add", ("sum", "bias"), F32),
        Stmt("stored", "store", (0, "value"), F32),
    )  # fmt: skip
    spec = KernelSpec("conv", (B, *case.out_size, case.channels[1]), (bias,), (y,), body, convolution(case))
    lowered = lower(spec)
    rng = np.random.default_rng(0)
    w = rng.standard_normal(case.weight_shape).astype(np.float32)
    b = rng.standard_normal(case.channels[1]).astype(np.float32)
    for n in (2, 40 if case.size[0] * case.size[1] < 50 else 9, 0):
        stored, x = case.image(rng, n, case.size, case.channels[0])
        written, found = case.empty(n, case.out_size, case.channels[1])
        run(lowered, {"x": stored, "w": w, "bias": b, "y": written}, {"B": n}, splits=2)
        np.testing.assert_allclose(found, convolved(case, x, w) + b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["planes", "planes, pointwise", "planes, pointwise over images"])
def test_planes_are_written_where_they_lie(name: str) -> None:
    case = CASES[name]
    y = Access("y", F32, case.strides(case.out_size, case.channels[1]))
    spec = KernelSpec("conv", (B, *case.out_size, case.channels[1]), (), (y,), finish(F32), convolution(case))
    lowered = lower(spec)
    assert [k.name for k in lowered.kernels] == ["conv2d_planes_f32_kernel"]
    assert ("claim" in lowered.kernels[0].source) == (name != "planes, pointwise over images")
    rng = np.random.default_rng(0)
    w = rng.standard_normal(case.weight_shape).astype(np.float32)
    for n in (1, 5):
        stored, x = case.image(rng, n, case.size, case.channels[0])
        written, found = case.empty(n, case.out_size, case.channels[1])
        run(lowered, {"x": stored, "w": w, "y": written}, {"B": n}, splits=3)
        np.testing.assert_allclose(found, convolved(case, x, w), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["planes, pointwise", "planes, pointwise over images", "planes, pointwise, strided"])
def test_planes_meet_weights_that_lie_by_input(name: str) -> None:
    """As the input gradient of a window of one pixel reads them."""
    case = CASES[name]
    y = Access("y", F32, case.strides(case.out_size, case.channels[1]))
    core = replace(convolution(case), w=Access("w", F32, (1, case.channels[1], 1, 1)), flip=True)
    lowered = lower(KernelSpec("conv", (B, *case.out_size, case.channels[1]), (), (y,), finish(F32), core))
    assert [k.name for k in lowered.kernels] == ["conv2d_planes_f32_kernel"]
    rng = np.random.default_rng(0)
    w = rng.standard_normal(case.weight_shape).astype(np.float32)
    for n in (1, 5):
        stored, x = case.image(rng, n, case.size, case.channels[0])
        written, found = case.empty(n, case.out_size, case.channels[1])
        run(lowered, {"x": stored, "w": w.swapaxes(0, 1).copy(), "y": written}, {"B": n}, splits=3)
        np.testing.assert_allclose(found, convolved(case, x, w), rtol=1e-4, atol=1e-4)


WHOLE = {
    "pixels of rows": Case((4, 6), (640, 520), kernel=(1, 1), padding=(0, 0), channels_last=False),
    "rows": Case((17, 16), (70, 520), channels_last=False),
    "pixels": Case((17, 16), (70, 520)),
}
"""So many channels that a task adds up the whole batch."""


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_weight_gradient_of_many_channels_is_one_call(name: str) -> None:
    assert check_weight_gradient(WHOLE[name]) == 1


@pytest.mark.parametrize("name", [n for n in CASES if not n.startswith(("strides", "wide"))])
def test_weight_gradient(name: str) -> None:
    check_weight_gradient(CASES[name])


def check_weight_gradient(case: Case) -> int:
    """Compare a weight gradient with sums by taps; the number of calls that it takes."""
    outputs, inputs, kh, kw = case.weight_shape
    core = ConvWeightGrad(
        Access("x", F32, case.strides(case.size, case.channels[0])),
        Access("dy", F32, case.strides(case.out_size, outputs)), B, case.size, case.out_size, *case.channels,
        case.kernel, case.stride, case.padding, case.dilation, case.groups,
    )  # fmt: skip
    oc, ic, h, w = elements(case.weight_shape)
    dw = Access("dw", F32, (outputs // case.groups * oc, h, w, ic, oc))
    axes = (case.groups, kh, kw, inputs, outputs // case.groups)
    lowered = lower(KernelSpec("weight_grad", axes, (), (dw,), finish(F32), core))
    rng = np.random.default_rng(0)
    for n in (3, 70 if case.size[0] * case.size[1] < 5 else 5, 0):
        stored, x = case.image(rng, n, case.size, case.channels[0])
        dy_stored, dy = case.image(rng, n, case.out_size, outputs)
        found = np.full(case.weight_shape, np.nan, np.float32)
        run(lowered, {"x": stored, "dy": dy_stored, "dw": found}, {"B": n}, splits=2)
        expected = np.zeros(case.weight_shape)
        for (i, j), seen in taps(case, x).items():
            for o in range(outputs):
                first = o // (outputs // case.groups) * inputs
                expected[o, :, i, j] = np.einsum("nhw,nhwc->c", dy[..., o], seen[..., first : first + inputs])
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    return len(lowered.calls)


@pytest.mark.parametrize("name", [
    "the CNN's second", "three channels, stride 2", "dilated groups", "pointwise", "depthwise, strided and dilated",
    "strides and dilations that share a factor", "rows", "depthwise rows", "depthwise rows, strided and dilated",
    "small groups", "small groups that end within a vector", "small groups of few outputs",
    "small groups of many outputs",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("rows in pieces, strided", "strided pixels of rows")),
])  # fmt: skip
def test_input_gradient_is_a_convolution_of_the_dilated_gradient(name: str) -> None:
    case = CASES[name]
    outputs, inputs, kh, kw = case.weight_shape
    per_group = outputs // case.groups
    oc, ic, h, w = elements(case.weight_shape)
    core = Conv2d(
        Access("dy", F32, case.strides(case.out_size, outputs)), Access("w", F32, (ic, oc, h, w)), case.out_size,
        case.size, outputs, case.channels[0], case.kernel,
        padding=tuple(d * (k - 1) - p for d, k, p in zip(case.dilation, case.kernel, case.padding, strict=True)),
        dilation=case.dilation, x_dilation=case.stride, groups=case.groups, w_group=per_group * oc, flip=True,
    )  # fmt: skip
    dx = Access("dx", F32, case.strides(case.size, case.channels[0]))
    lowered = lower(KernelSpec("dx", (B, *case.size, case.channels[0]), (), (dx,), finish(F32), core))
    rng = np.random.default_rng(0)
    weights = rng.standard_normal(case.weight_shape).astype(np.float32)
    dy_stored, dy = case.image(rng, 2, case.out_size, outputs)
    stored, found = case.image(rng, 2, case.size, case.channels[0])
    _, direction = case.image(rng, 2, case.size, case.channels[0])
    run(lowered, {"dy": dy_stored, "w": weights, "dx": stored}, {"B": 2}, splits=2)
    # The gradient is the adjoint: <dy, conv(v)> = <dx, v>, for any v, and at single points too.
    assert np.vdot(dy, convolved(case, direction, weights)) == pytest.approx(np.vdot(found, direction), rel=1e-4)
    for h_at, w_at in ((0, 0), (1, 1), (case.size[0] - 1, case.size[1] // 2)):
        point = np.zeros_like(direction)
        point[1, h_at, w_at, -1] = 1
        expected = np.vdot(dy, convolved(case, point, weights))
        assert found[1, h_at, w_at, -1] == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_a_batch_of_one_still_makes_tasks_for_several_threads() -> None:
    case = CASES["the CNN's second"]
    y = Access("y", F32, elements((1, *case.out_size, 64)))
    (*_, call) = lower_conv2d(KernelSpec("conv", (B, 14, 14, 64), (), (y,), finish(F32), convolution(case))).calls
    assert dims.evaluate(call.tasks, {"B": 1}) >= 4


def test_tiles_grow_with_the_share_and_give_the_same_bits() -> None:
    """However many threads share the tasks, two of them meeting within a row of points among these."""
    case = replace(CASES["the CNN's second"], channels=(8, 100))
    rng = np.random.default_rng(0)
    stored, x = case.image(rng, 2, case.size, case.channels[0])
    w = rng.standard_normal(case.weight_shape).astype(np.float32)
    y = Access("y", F32, elements((1, *case.out_size, 100)))
    lowered = lower_conv2d(KernelSpec("conv", (B, *case.out_size, 100), (), (y,), finish(F32), convolution(case)))
    results = []
    for splits in (1, 2, 3, 8, 29):
        found = np.full((2, *case.out_size, 100), np.nan, np.float32)
        run(lowered, {"x": stored, "w": w, "y": found}, {"B": 2}, splits)
        results.append(found)
    np.testing.assert_allclose(results[0], convolved(case, x, w), rtol=1e-4, atol=1e-4)
    for found in results[1:]:
        np.testing.assert_array_equal(found, results[0])


def test_symbolic_image_size() -> None:
    case = Case((9, 40), (3, 5), channels_last=False)
    h, w = dims.dim("H"), dims.dim("W")
    core = replace(convolution(case), x=Access("x", F32, (3 * h * w, w, 1, h * w)), in_size=(h, w), out_size=(h, w))
    y = Access("y", F32, elements((B, h, w, 5)))
    lowered = lower_conv2d(KernelSpec("conv", (B, h, w, 5), (), (y,), finish(F32), core))
    rng = np.random.default_rng(0)
    weights = rng.standard_normal(case.weight_shape).astype(np.float32)
    for size in ((9, 40), (1, 1), (70, 33)):
        case = replace(case, size=size)
        stored, x = case.image(rng, 1, size, 3)
        found = np.full((1, *size, 5), np.nan, np.float32)
        run(lowered, {"x": stored, "w": weights, "y": found}, {"B": 1, "H": size[0], "W": size[1]}, splits=3)
        np.testing.assert_allclose(found, convolved(case, x, weights), rtol=1e-4, atol=1e-4)


def test_float64_and_half_precision() -> None:
    case = Case((6, 7), (3, 20))
    rng = np.random.default_rng(0)
    for dtype, tolerance in ((dtypes.f64, 1e-12), (dtypes.f16, 2e-3)):
        y = Access("y", dtype, elements((1, 6, 7, 20)))
        spec = KernelSpec("conv", (2, 6, 7, 20), (), (y,), finish(dtype), convolution(case, dtype))
        stored, x = case.image(rng, 2, case.size, 3, dtype)
        w = rng.standard_normal(case.weight_shape).astype(dtype.numpy)
        found = np.full((2, 6, 7, 20), np.nan, dtype.numpy)
        run(lower_conv2d(spec), {"x": stored, "w": w, "y": found})
        np.testing.assert_allclose(found, convolved(case, x, w), rtol=tolerance, atol=4 * tolerance)


@pytest.mark.parametrize("case", [
    Case((13, 15), (32, 32)), Case((18, 14), (45, 64), padding=(0, 2)), Case((12, 16), (32, 20), channels_last=True),
])  # fmt: skip
def test_winograd_stays_within_its_bound(case: Case) -> None:
    y = Access("y", F32, elements((1, *case.out_size, case.channels[1])))
    exact = convolution(case)
    relaxed = KernelSpec("conv", (B, *case.out_size, case.channels[1]), (), (y,), finish(F32),
                         replace(exact, relaxed=True))  # fmt: skip
    kernels = [k.name for k in lower(relaxed, {"w"}).kernels]
    assert "winograd_products_kernel" in kernels
    for other, lasting in ((relaxed, set()), (replace(relaxed, core=exact), {"w"})):  # weights change, or level 2
        assert "winograd_products_kernel" not in [k.name for k in lower(other, lasting).kernels]
    rng = np.random.default_rng(0)
    w = rng.standard_normal(case.weight_shape).astype(np.float32)
    for n in (1, 3):
        stored, x = case.image(rng, n, case.size, case.channels[0])
        found = np.full((n, *case.out_size, case.channels[1]), np.nan, np.float32)
        run(lower(relaxed, {"w"}), {"x": stored, "w": w, "y": found}, {"B": n}, splits=2)
        largest = np.abs(x).max() * np.abs(w).max()
        bound = 64 * np.finfo(np.float32).eps * (9 * case.channels[0]) ** 0.5 * largest
        assert np.abs(found - convolved(case, x, w)).max() < bound


def test_integers_are_refused() -> None:
    case = CASES["one channel"]
    axes = (1, *case.out_size, 32)
    spec = KernelSpec("conv", axes, (), (), finish(dtypes.i32), convolution(case, dtypes.i32))
    with pytest.raises(UnsupportedError, match="floats only, not i32 with i32"):
        lower_conv2d(spec)


POOLS = {
    "halves": Case((1, 1), (1, 1), (2, 2), (2, 2), (0, 0)),
    "overlapping": Case((1, 1), (1, 1), (3, 3), (1, 2), (0, 0)),
    "padded": Case((1, 1), (1, 1), (3, 2), (2, 2), (1, 1)),
    "dilated": Case((1, 1), (1, 1), (2, 2), (2, 2), (0, 0), (2, 2)),
}


# Where padding is left out, a tile's points come in parts.
PARTED = {
    "the CNN's second": CASES["the CNN's second"],
    "strided": Case((8, 9), (8, 50), (7, 3), (1, 2), (3, 1)),
    "groups": Case((10, 9), (32, 64), (5, 3), (1, 1), (2, 1), groups=2),
}


@pytest.mark.parametrize("name, pool", [
    ("one channel", "halves"), ("three channels, stride 2", "padded"), ("wide", "overlapping"),
    ("many channels", "dilated"), ("the CNN's second", "halves"), ("strided", "padded"), ("groups", "overlapping"),
    ("small groups", "halves"),
])  # fmt: skip
def test_convolution_with_pooling(name: str, pool: str) -> None:
    """The inner body adds a bias and takes the relu; a NaN in the image reaches every window that sees it."""
    case = PARTED.get(name) or CASES[name]
    window = replace(POOLS[pool], size=case.out_size)
    pooled = (*window.out_size, case.channels[1])
    inner = (
        Stmt("sum", "core", (0,), F32), Stmt("bias", "load", (0,), F32), Stmt("shifted", "add", ("sum", "bias"), F32),
        Stmt("relu", "maximum", ("shifted", 0.0), F32),
    )  # fmt: skip
    body = (
        Stmt("most", "core", (0,), F32), Stmt("where", "core", (1,), dtypes.u8),
        Stmt("twice", "mul", ("most", 2.0), F32),
        Stmt("stored", "store", (0, "twice"), F32), Stmt("kept", "store", (1, "where"), dtypes.u8),
    )  # fmt: skip
    writes = Access("y", F32, elements((1, *pooled))), Access("position", dtypes.u8, elements((1, *pooled)))
    core = MaxPool2d(inner, case.out_size, window.kernel, window.stride, window.padding, window.dilation,
                     convolution(case))  # fmt: skip
    reads = (Access("bias", F32, (0, 0, 0, 1)),)
    lowered = lower_conv2d_pool(KernelSpec("pool", (B, *pooled), reads, writes, body, core))
    assert any("part_count" in k.source for k in lowered.kernels) == (name in PARTED)

    rng = np.random.default_rng(0)
    stored, x = case.image(rng, 2, case.size, case.channels[0])
    x[1, 2, 3, 0] = np.nan
    w = rng.standard_normal(case.weight_shape).astype(np.float32)
    b = rng.standard_normal(case.channels[1]).astype(np.float32)
    found = np.full((2, *pooled), np.nan, np.float32)
    position = np.full((2, *pooled), 255, np.uint8)
    run(lowered, {"x": stored, "w": w, "bias": b, "y": found, "position": position}, {"B": 2}, splits=2)

    before = np.maximum(convolved(case, x, w) + b, 0)
    inside = taps(window, np.ones(before.shape))
    seen = taps(window, before)
    candidates = np.stack([np.where(inside[t] > 0, seen[t], -np.inf) for t in seen])
    expected = candidates.max(0)
    np.testing.assert_allclose(found, 2 * expected, rtol=1e-4, atol=1e-4)
    # Ties and near ties aside, the position is that of the value; it is never outside the image.
    chosen = np.take_along_axis(candidates, position[None].astype(np.int64), 0)[0]
    np.testing.assert_allclose(chosen, expected, rtol=1e-4, atol=1e-4)
    ties = np.isfinite(expected) & (expected == 0)
    first = np.argmax(candidates == expected, axis=0)
    np.testing.assert_array_equal(position[ties], first[ties])
