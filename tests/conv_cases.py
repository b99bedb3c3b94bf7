"""Convolutions to test kernels with, and their specs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from kernel_harness import elements

from engine import dims, dtypes
from engine.dtypes import DType
from engine.schedule import Access, Conv2d

B = dims.dim("B")
F32 = dtypes.f32


@dataclass(frozen=True)
class Case:
    """A convolution: image size, channels in and out (all groups), window."""

    size: tuple[int, int]
    channels: tuple[int, int]
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    channels_last: bool = True

    @property
    def out_size(self) -> tuple[int, int]:
        h, w = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        )
        return h, w

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        return self.channels[1], self.channels[0] // self.groups, *self.kernel

    def strides(self, size: tuple[int, int], channels: int) -> tuple[int, ...]:
        """Of an image, over (n, h, w, c)."""
        if self.channels_last:
            return elements((1, *size, channels))  # type: ignore[return-value]
        n, c, h, w = elements((1, channels, *size))
        return n, h, w, c  # type: ignore[return-value]

    def empty(self, n: int, size: tuple[int, int], channels: int) -> tuple[np.ndarray, np.ndarray]:
        """An image to be written, as it is stored, and a view of it over (n, h, w, c)."""
        shape = (n, *size, channels) if self.channels_last else (n, channels, *size)
        stored = np.full(shape, np.nan, np.float32)
        return stored, stored if self.channels_last else stored.transpose(0, 2, 3, 1)

    def image(self, rng: np.random.Generator, n: int, size: tuple[int, int], channels: int,
              dtype: DType = F32) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """A random image as it is stored, and a view of it over (n, h, w, c)."""
        if self.channels_last:
            stored = rng.standard_normal((n, *size, channels)).astype(dtype.numpy)
            return stored, stored
        stored = rng.standard_normal((n, channels, *size)).astype(dtype.numpy)
        return stored, stored.transpose(0, 2, 3, 1)


CASES = {
    "planes": Case((12, 20), (3, 24), channels_last=False),
    "planes over images": Case((7, 5), (3, 21), channels_last=False),
    "planes, strided and dilated": Case((19, 23), (4, 33), (3, 5), (2, 3), (2, 3), (2, 1), channels_last=False),
    "planes, many channels": Case((5, 9), (40, 100), channels_last=False),
    "planes, pointwise": Case((8, 12), (40, 25), (1, 1), padding=(0, 0), channels_last=False),
    "planes, pointwise over images": Case((6, 3), (300, 24), (1, 1), padding=(0, 0), channels_last=False),
    "planes, pointwise, strided": Case((15, 31), (150, 40), (1, 1), (2, 2), (0, 0), channels_last=False),
    "one channel": Case((28, 28), (1, 32)),
    "the CNN's second": Case((14, 14), (32, 64)),
    "three channels, stride 2": Case((11, 9), (3, 7), stride=(2, 2), channels_last=False),
    "wide": Case((5, 150), (2, 5), kernel=(3, 5), padding=(0, 2)),
    "many channels": Case((5, 6), (40, 200)),
    "dilated groups": Case((12, 11), (6, 8), dilation=(2, 3), padding=(2, 1), groups=2),
    "small groups": Case((9, 20), (64, 64), groups=16),
    "small groups that end within a vector": Case((12, 21), (36, 36), (3, 5), (2, 1), (1, 2), (1, 2), groups=12),
    "small groups of few outputs": Case((9, 37), (48, 12), stride=(2, 2), groups=6, channels_last=False),
    "small groups of many outputs": Case((8, 19), (10, 40), dilation=(2, 1), groups=10, channels_last=False),
    "depthwise": Case((7, 7), (8, 8), groups=8),
    "depthwise, strided and dilated": Case((12, 41), (80, 80), (5, 3), (2, 1), (3, 2), (1, 2), groups=80),
    "depthwise, too large to unroll": Case((9, 9), (3, 3), (9, 8), padding=(4, 4), groups=3, channels_last=False),
    "pointwise": Case((6, 5), (9, 33), kernel=(1, 1), padding=(0, 0), stride=(2, 1)),
    "strides and dilations that share a factor": Case((16, 13), (3, 6), (3, 4), (4, 3), (2, 4), (2, 2)),
    "pixels times weights": Case((6, 5), (37, 20), kernel=(1, 1), padding=(0, 0)),
    "small, strided": Case((4, 3), (12, 70), (3, 5), (2, 1), (1, 2)),
    "four pixels": Case((2, 2), (33, 32)),
    "one pixel": Case((1, 1), (24, 40), dilation=(2, 1), padding=(2, 1)),
    "rows": Case((9, 37), (20, 33), channels_last=False),
    "rows in pieces, strided": Case((8, 150), (16, 40), stride=(1, 2), padding=(1, 2), channels_last=False),
    "rows that are kept": Case((13, 60), (64, 33), (5, 3), (2, 1), (2, 1), channels_last=False),
    "pixels of rows": Case((7, 19), (24, 50), kernel=(1, 1), padding=(0, 0), channels_last=False),
    "strided pixels of rows": Case((7, 33), (17, 8), (1, 1), (2, 2), (0, 0), channels_last=False),
    "depthwise rows": Case((70, 37), (20, 20), groups=20, channels_last=False),
    "depthwise rows, strided and dilated": Case((12, 75), (16, 16), (5, 3), (2, 2), (3, 2), (1, 2), 16, False),
    "mostly padding": Case((2, 3), (4, 3), kernel=(5, 4), padding=(4, 3)),
}


def convolution(case: Case, dtype: DType = F32) -> Conv2d:
    outputs, inputs, kh, kw = case.weight_shape
    return Conv2d(
        Access("x", dtype, case.strides(case.size, case.channels[0])),
        Access("w", dtype, elements((outputs // case.groups, inputs, kh, kw))), case.size, case.out_size,
        *case.channels, case.kernel, case.stride, case.padding, case.dilation, groups=case.groups,
        w_group=outputs // case.groups * inputs * kh * kw,
    )  # fmt: skip
