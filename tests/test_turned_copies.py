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
