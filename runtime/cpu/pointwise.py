"""Convolutions with a window of one point are matrix products: images as rows of pixels, times the weights."""

from __future__ import annotations

from dataclasses import replace

from engine.dims import Size
from engine.schedule import Access, Contraction, Conv2d, KernelSpec
from runtime.cpu.axes import all_strides, groups, regroup
from runtime.cpu.windows import always_inside

_PIXELS = 3
"""The axes of images, rows and columns; channels follow."""


def is_pointwise(core: Conv2d) -> bool:
    """Whether every output reads one pixel."""
    return (
        core.kernel == core.x_dilation == (1, 1) and core.padding == (0, 0) and core.groups == 1
        and core.x.dtype == core.w.dtype and core.x.dtype.is_float and not core.x.dtype.storage_only
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
    product = Contraction(
        replace(core.x, strides=(*(pixels[g[-1]] for g in kept), channel)),
        Access(core.w.buffer, core.w.dtype, (*(0,) * batch, inputs, outputs), core.w.offset),
        core.in_channels,
    )
    return replace(regroup(spec, [*kept, (_PIXELS,)]), core=product)
