"""Copies that exchange axes, at sizes around those of the squares in which they are turned over."""

from __future__ import annotations

import numpy as np
import pytest

import tenon as tn
from tenon import F

SIZES = [(1, 5), (16, 16), (15, 40), (40, 15), (17, 33), (64, 65), (130, 16), (257, 100), (30, 600)]


@pytest.fixture(scope="module", params=["f32", "f64"])
def turned(request):
    return tn.compile(lambda x: x.permute(0, 2, 1).contiguous(), tn.spec("B", "M", "N", dtype=request.param))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_turned_copy_is_a_copy(turned, size):
    x = np.random.default_rng(0).normal(size=(3, *size)).astype(turned.graph.inputs[0].dtype.numpy)
    np.testing.assert_array_equal(turned(x), x.transpose(0, 2, 1))


def test_such_a_copy_goes_by_squares(turned):
    (kernel,) = turned.program.kernels
    assert "transpose" in kernel.source


@pytest.mark.parametrize("axes", [(2, 0, 1), (2, 1, 0), (1, 0, 2), (0, 2, 1)], ids=str)
def test_every_order_of_axes(axes):
    x = np.random.default_rng(1).normal(size=(20, 6, 35)).astype(np.float32)
    got = tn.compile(lambda x: x[1:].permute(*axes).contiguous(), tn.spec(*x.shape))(x)
    np.testing.assert_array_equal(got, x[1:].transpose(axes))


@pytest.mark.parametrize("kernel, copies", [(1, 0), (3, 2)])
def test_images_of_pointwise_convolutions_stay_as_they_are(kernel, copies):
    x, w = np.ones((2, 20, 9, 7), np.float32), np.ones((33, 20, kernel, kernel), np.float32)
    exe = tn.compile(lambda x, w: F.conv2d(x, w, padding=kernel // 2), tn.spec(*x.shape), tn.spec(*w.shape))
    assert sum("copy" in call.label for call in exe.program.main) == copies
    np.testing.assert_allclose(exe(x, w)[:, :, 4, 3], 20 * kernel**2)


@pytest.mark.parametrize("width, copies", [(15, 2), (16, 0)])
def test_a_convolution_turns_long_rows_over_itself(width, copies):
    x, w = np.ones((2, 20, 9, width), np.float32), np.ones((33, 20, 3, 3), np.float32)
    shapes = tn.spec(*x.shape), tn.spec(*w.shape)
    exe = tn.compile(lambda x, w: F.conv2d(x, w, padding=1), *shapes)
    assert sum("copy" in call.label for call in exe.program.main) == copies
    np.testing.assert_allclose(exe(x, w)[:, :, 4, 3], 180)
    pooled = tn.compile(lambda x, w: F.max_pool2d(F.relu(F.conv2d(x, w, padding=1)) + x.mean(1, True), 2), *shapes)
    assert any("copy" in call.label for call in pooled.program.main)


@pytest.mark.slow
@pytest.mark.parametrize("channels, groups", [(20, 1), (32, 4), (20, 20)])
def test_the_gradient_of_a_strided_convolution_hands_out_rows(channels, groups):
    rng = np.random.default_rng(2)
    y, w = rng.normal(size=(2, channels, 7, 18)), rng.normal(size=(channels, channels // groups, 3, 3))

    def gradient(y, w):
        def strided(x):
            return (F.conv2d(x, w, stride=2, padding=1, groups=groups) * y).sum()

        return tn.grad(strided)(tn.zeros(2, channels, 13, 35))

    shapes = tn.spec(*y.shape), tn.spec(*w.shape)
    exe = tn.compile(gradient, *shapes)
    assert not any("copy" in call.label for call in exe.program.main)
    given = y.astype(np.float32), w.astype(np.float32)
    np.testing.assert_allclose(exe(*given), tn.compile(gradient, *shapes, level=0)(*given), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("width, stride", [(14, 1), (16, 1), (39, 2)])
def test_the_gradient_of_depthwise_weights_sums_rows_up(width, stride):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3, 20, 33, width)).astype(np.float32)
    y = rng.normal(size=(3, 20, -(-33 // stride), -(-width // stride))).astype(np.float32)

    def gradient(x, y):
        def convolved(w):
            return (F.conv2d(x, w, stride=stride, padding=1, groups=20) * y).sum()

        return tn.grad(convolved)(tn.zeros(20, 1, 3, 3))

    shapes = tn.spec(*x.shape), tn.spec(*y.shape)
    exe = tn.compile(gradient, *shapes)
    assert [call.label for call in exe.program.main] == ["conv2d_weight_grad_20x3x3"]
    np.testing.assert_allclose(exe(x, y), tn.compile(gradient, *shapes, level=0)(x, y), rtol=1e-4, atol=1e-4)
