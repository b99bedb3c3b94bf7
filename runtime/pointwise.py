"""Convolutions with a window of one point are matrix products: images as rows of pixels, times the weights.

So are their weight gradients, sums over pixels, where pixels of both images are evenly spaced.
"""

from __future__ import annotations

from dataclasses import replace

from engine.dims import Size, product
from engine.dtypes import DType
from engine.schedule import Access, Contraction, Conv2d, ConvWeightGrad, KernelSpec
from runtime.axes import all_strides, groups, regroup
from runtime.windows import always_inside

_PIXELS = 3
"""The axes of images, rows and columns; channels follow."""


def is_pointwise(core: Conv2d) -> bool:
    """Whether every output reads one pixel."""
    return (
        core.kernel == core.x_dilation == (1, 1) and core.padding == (0, 0) and core.groups == 1
        and _alike(core.x.dtype, core.w.dtype)
        and always_inside(core.in_size, core.out_size, core.kernel, core.stride, core.padding, core.dilation)
    )  # fmt: skip


def as_contraction(spec: KernelSpec) -> KernelSpec:
    """``spec``, whose core is pointwise, over ``(batch..., pixels, channels)``: of the axes of pixels those that every
    access walks as one are one."""
    core = spec.core
    assert isinstance(core, Conv2d)
    n, h, w, channel = core.x.strides
    pixels: tuple[Size, ...] = (n, h * core.stride[0], w * core.stride[1])
    strides = [along[:_PIXELS] for along in all_strides(spec)]
    kept = groups(spec.axes[:_PIXELS], [*strides, pixels]) or [(_PIXELS - 1,)]
    batch = len(kept) - 1
    outputs, inputs = core.w.strides[:2]
    multiplied = Contraction(
        replace(core.x, strides=(*(pixels[g[-1]] for g in kept), channel)),
        Access(core.w.buffer, core.w.dtype, (*(0,) * batch, inputs, outputs), core.w.offset),
        core.in_channels,
    )
    return replace(regroup(spec, [*kept, (_PIXELS,)]), core=multiplied)


def is_pointwise_gradient(core: ConvWeightGrad) -> bool:
    """Whether the weight gradient of ``core`` is one product of all pixels."""
    return (
        core.kernel == core.stride == (1, 1) and core.padding == (0, 0) and core.groups == 1
        and core.in_size == core.out_size and _alike(core.x.dtype, core.dy.dtype)
        and all(_evenly_spaced(core, access.strides) for access in (core.x, core.dy))
    )  # fmt: skip


def gradient_as_contraction(spec: KernelSpec) -> KernelSpec:
    """``spec``, whose core is a pointwise weight gradient, over (inputs, outputs)."""
    core = spec.core
    assert isinstance(core, ConvWeightGrad)
    multiplied = Contraction(
        replace(core.x, strides=(core.x.strides[3], core.x.strides[2])),
        replace(core.dy, strides=(core.dy.strides[2], core.dy.strides[3])),
        core.batch * product(core.out_size),
    )
    return replace(regroup(spec, [(3,), (4,)]), core=multiplied)


def _alike(a: DType, b: DType) -> bool:
    return a == b and a.is_float


def _evenly_spaced(core: ConvWeightGrad, strides: tuple[Size, ...]) -> bool:
    height, width = core.out_size
    n, h, w, _ = strides
    return h == width * w and n == height * h
