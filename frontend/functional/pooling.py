"""Pooling as functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from frontend.dispatch import call
from frontend.functional.convolution import batched
from frontend.sizes import pair_of, plain_shape
from frontend.tensor import Tensor

Pair = int | Sequence[int]

__all__ = ["max_pool2d"]


def max_pool2d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The maximum of each window of (N, C, H, W) or (C, H, W); NaN wins. The stride is the window's size unless given.

    With ``return_indices`` also where each maximum was, counted through its plane (``row * W + column``, i64).
    """
    x, single = batched("max_pool2d", input)
    kernel = pair_of(kernel_size, "max_pool2d: kernel_size")
    strides = kernel if stride is None else pair_of(stride, "max_pool2d: stride")
    pads, dilations = pair_of(padding, "max_pool2d: padding"), pair_of(dilation, "max_pool2d: dilation")
    out, position = call(
        "max_pool2d", x, kernel=kernel, stride=strides, padding=pads, dilation=dilations, ceil_mode=ceil_mode
    )
    if not return_indices:
        return out.squeeze(0) if single else out
    shape = plain_shape(out.shape)
    tap = position.long()
    row = call("iota", shape=shape, axis=2) * strides[0] - pads[0] + tap // kernel[1] * dilations[0]
    column = call("iota", shape=shape, axis=3) * strides[1] - pads[1] + tap % kernel[1] * dilations[1]
    indices = row * x.shape[3] + column
    return (out.squeeze(0), indices.squeeze(0)) if single else (out, indices)
