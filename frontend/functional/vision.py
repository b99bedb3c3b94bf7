"""Functions on images: resizing, and shuffling of pixels and channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine import dtypes
from engine.dims import shape_text
from engine.dtypes import DType
from engine.errors import DTypeError, ShapeError, TenonError, UnsupportedError
from frontend import reducing
from frontend.dispatch import call
from frontend.functional import adaptive_pooling
from frontend.functional.spatial import TAPS
from frontend.sizes import SizeLike, plain, plain_shape, rely_on
from frontend.tensor import Tensor, as_tensor

__all__ = ["channel_shuffle", "interpolate", "pixel_shuffle", "pixel_unshuffle", "upsample"]

_MODES = {
    "nearest": (1, 2, 3), "nearest-exact": (1, 2, 3), "linear": (1,), "bilinear": (2,), "bicubic": (2,),
    "trilinear": (3,), "area": (1, 2, 3),
}  # fmt: skip
"""The modes of interpolation, each with the axes of space that it takes."""


def interpolate(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """(N, C, ...) with one to three axes of space, resized to ``size``, or by ``scale_factor``, one number for all axes
    or one for each.

    ``mode`` is "nearest", "nearest-exact", "linear" (3 axes), "bilinear", "bicubic" (4), "trilinear" (5) or "area": the
    mean of what an element covers. Cubic convolution has a = -0.75: Keys (1981), "Cubic convolution interpolation for
    digital image processing". With ``align_corners`` the centres of the first and last elements stay in place, else
    their outer edges. Floats of fixed or symbolic sizes, with "nearest" any dtype; raises ShapeError, DTypeError and
    TenonError.

    PyTorch: torch.nn.functional.interpolate. Differs: antialias is not supported.
    """
    x = as_tensor(input)
    rank = x.ndim - 2
    if mode not in _MODES or rank not in _MODES[mode]:
        fitting = [m for m, ranks in _MODES.items() if rank in ranks]
        shape = shape_text(plain_shape(x.shape))
        raise TenonError(
            f"interpolate: {mode!r} is no mode for shape {shape}; {', '.join(fitting)} are"
            if fitting
            else f"interpolate takes (N, C, ...) with one to three axes of space, not shape {shape}"
        )
    if antialias:
        raise UnsupportedError("interpolate: antialias=True is not supported; blur before, or use mode='area'")
    smooth = mode not in ("nearest", "nearest-exact", "area")
    if align_corners is not None and not smooth:
        raise TenonError(f"interpolate: align_corners has no meaning with mode {mode!r}")
    if smooth and not x.dtype.is_float:
        raise DTypeError(f"interpolate: mode {mode!r} takes floating point tensors, not {x.dtype}")
    counts, scales = _resized(x, size, scale_factor, bool(recompute_scale_factor))
    if mode == "area":
        if not all(isinstance(n, int) for n in (*x.shape[2:], *counts)):
            shape = shape_text(plain_shape(x.shape))
            raise ShapeError(f"interpolate: mode 'area' needs axes of space of known sizes, not {shape}")
        function = (adaptive_pooling.adaptive_avg_pool1d, adaptive_pooling.adaptive_avg_pool2d,
                    adaptive_pooling.adaptive_avg_pool3d)[rank - 1]  # fmt: skip
        return function(x, counts)  # type: ignore[arg-type]
    if not smooth:
        times = [_times(*axis) for axis in zip(x.shape[2:], counts, scales, strict=True)]
        if all(times):
            return _repeated(x, times)
    for i, (count, scale) in enumerate(zip(counts, scales, strict=True)):
        x = _along(x, 2 + i, count, scale, mode, bool(align_corners))
    return x


upsample = interpolate


def _resized(x: Tensor, size: Any, scale_factor: Any, recompute: bool) -> tuple[list[SizeLike], list[float | None]]:
    """The new size of each axis of space, and the factor by which coordinates grow where it is not their quotient."""
    space = x.shape[2:]
    shape = shape_text(plain_shape(x.shape))
    rely_on([plain(n) - 1 for n in space], f"interpolate: {shape} must have elements along each axis of space")
    if (size is None) == (scale_factor is None):
        raise TenonError("interpolate: either size or scale_factor is needed, and not both")
    if size is not None:
        if recompute:
            raise TenonError("interpolate: recompute_scale_factor is for a scale_factor, not for a size")
        counts = [size] * len(space) if not isinstance(size, (tuple, list)) else list(size)
        if len(counts) != len(space) or any(isinstance(n, int) and n < 1 for n in counts):
            raise ShapeError(f"interpolate: size must be positive, one number or {len(space)}, not {size!r}")
        return counts, [None] * len(space)
    scales = [scale_factor] * len(space) if isinstance(scale_factor, (int, float)) else list(scale_factor)
    if len(scales) != len(space) or any(s <= 0 for s in scales):
        raise ShapeError(
            f"interpolate: scale_factor must be positive, one number or {len(space)}, not {scale_factor!r}"
        )
    grown = [_grown(n, s) for n, s in zip(space, scales, strict=True)]
    if any(isinstance(n, int) and n < 1 for n in grown):
        raise ShapeError(f"interpolate: scale_factor {scale_factor} leaves nothing of {tuple(space)}")
    return grown, [None if recompute else s for s in scales]


def _grown(size: SizeLike, scale: float) -> SizeLike:
    if isinstance(size, int):
        return math.floor(size * scale)
    from fractions import Fraction  # with it comes the decimal module

    ratio = Fraction(scale).limit_denominator(10_000)
    return size * ratio.numerator // ratio.denominator


class _Graph:
    """The arithmetic of :func:`_taps` on tensors, for sizes that are not known yet."""

    floor = staticmethod(lambda x: call("floor", x))
    minimum = staticmethod(lambda a, b: call("minimum", a, b))
    maximum = staticmethod(lambda a, b: call("maximum", a, b))


def _along(x: Tensor, axis: int, count: SizeLike, scale: float | None, mode: str, align: bool) -> Tensor:
    """One axis resampled: each new element is a weighted sum of a few old ones."""
    size = x.shape[axis]
    if count is size or (isinstance(count, int) and count == size and scale in (None, 1)):
        return x
    places, weights = _taps(size, count, scale, mode, align)
    behind = (1,) * (x.ndim - 1 - axis)
    if weights is None:
        return call("gather", x, _vector(places, (*(1,) * axis, -1, *behind), dtypes.i64), axis=axis)
    shape = (count, *behind, len(TAPS[_kernel(mode)][0]))
    index = _vector(places, (*(1,) * axis, *shape), dtypes.i64)
    near = call("gather", x.unsqueeze(-1), index, axis=axis)
    return reducing.sum(near * _vector(weights, shape, x.dtype), -1)


def _times(size: SizeLike, count: SizeLike, scale: float | None) -> int:
    """How often each element comes, where all come equally often; else 0."""
    if isinstance(size, int) and isinstance(count, int):
        return count // size if count % size == 0 and scale in (None, count / size) else 0
    return int(scale) if scale is not None and float(scale).is_integer() else 0


def _repeated(x: Tensor, times: Sequence[int]) -> Tensor:
    """Each element so often along each axis of space: a view, and one copy."""
    n, c, *space = x.shape
    apart = [part for size in space for part in (size, 1)]
    wide = [part for size, count in zip(space, times, strict=True) for part in (size, count)]
    whole = [size * count for size, count in zip(space, times, strict=True)]
    return x.reshape(n, c, *apart).expand(n, c, *wide).reshape(n, c, *whole)


def _kernel(mode: str) -> str:
    return "cubic" if mode == "bicubic" else "linear"


def _vector(values: Any, shape: tuple[Any, ...], dtype: DType) -> Tensor:
    if isinstance(values, np.ndarray):
        return as_tensor(values.astype(dtype.numpy).reshape(shape))
    return values.to(dtype).reshape(*shape)


def _taps(size: SizeLike, count: SizeLike, scale: float | None, mode: str, align: bool) -> tuple[Any, Any]:
    """For each of ``count`` new elements the positions of the old ones that it is made of, and their weights, both
    (count, taps); or one position, and None. As in PyTorch the nearest is found in f32."""
    nearest = mode in ("nearest", "nearest-exact")
    dtype = dtypes.f32 if nearest else dtypes.f64
    lib: Any = np
    steps: Any
    if isinstance(size, int) and isinstance(count, int):
        steps = np.arange(count, dtype=dtype.numpy)
    else:
        lib, steps = _Graph, call("iota", shape=(plain(count),), axis=0, dtype=dtype)
    half, step = dtype.numpy.type(0.5), _step(size, count, scale, align, dtype)
    if nearest:
        place = (steps + half) * step if mode == "nearest-exact" else steps * step
        return lib.minimum(lib.floor(place), size - 1), None
    place = steps * step if align else (steps + half) * step - half
    if mode != "bicubic":
        place = lib.maximum(place, 0.0)
    first = lib.floor(place)
    rest = (place - first)[:, None]
    offsets, coefficients = TAPS[_kernel(mode)]
    weights: Any = 0.0
    for c in coefficients:
        weights = weights * rest + c
    return lib.minimum(lib.maximum(first[:, None] + offsets, 0.0), size - 1), weights


def _step(size: SizeLike, count: SizeLike, scale: float | None, align: bool, dtype: DType) -> Any:
    """How far apart the new elements are, counted in old ones."""
    if scale is not None and not align:
        return dtype.numpy.type(1.0 / scale)
    old, new = (size - 1, count - 1) if align else (size, count)
    if isinstance(old, int) and isinstance(new, int):
        return dtype.numpy.type(old) / dtype.numpy.type(max(new, 1))
    one = as_tensor(np.ones((), dtype.numpy))
    return one * old / call("maximum", one * new, 1.0)


# --- shuffling -------------------------------------------------------------------------------------------------------


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(..., C * r * r, H, W) as (..., C, H * r, W * r): r * r channels become a square of pixels. Shi et al. (2016),
    "Real-time single image and video super-resolution using an efficient sub-pixel convolutional neural network".

    Raises ShapeError.

    PyTorch: torch.nn.functional.pixel_shuffle.
    """
    x, r = as_tensor(input), upscale_factor
    *front, c, h, w = _image("pixel_shuffle", x, r)
    if not isinstance(c, int) or c % (r * r):
        raise ShapeError(f"pixel_shuffle: {c} channels are no multiple of {r} * {r}")
    rank = len(front)
    apart = x.reshape(*front, c // (r * r), r, r, h, w)
    order = (*range(rank + 1), rank + 3, rank + 1, rank + 4, rank + 2)
    return apart.permute(*order).reshape(*front, c // (r * r), h * r, w * r)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(..., C, H * r, W * r) as (..., C * r * r, H, W): the inverse of :func:`pixel_shuffle`. Raises ShapeError.

    PyTorch: torch.nn.functional.pixel_unshuffle.
    """
    x, r = as_tensor(input), downscale_factor
    *front, c, h, w = _image("pixel_unshuffle", x, r)
    if any(isinstance(n, int) and n % r for n in (h, w)):
        raise ShapeError(f"pixel_unshuffle: an image of {h} x {w} does not divide by {r}")
    rank = len(front)
    apart = x.reshape(*front, c, h // r, r, w // r, r)
    order = (*range(rank + 1), rank + 2, rank + 4, rank + 1, rank + 3)
    return apart.permute(*order).reshape(*front, c * r * r, h // r, w // r)


def _image(op: str, x: Tensor, factor: int) -> Sequence[SizeLike]:
    if x.ndim < 3 or factor < 1:
        shape = shape_text(plain_shape(x.shape))
        raise ShapeError(f"{op} takes (..., C, H, W) and a factor of at least 1, not shape {shape} and {factor}")
    return x.shape


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """The channels (axis 1) of (N, C, ...) in another order: the first of each group, then the second of each, and so
    on. Zhang et al. (2018), "ShuffleNet". Raises ShapeError.

    PyTorch: torch.nn.functional.channel_shuffle.
    """
    x = as_tensor(input)
    c = x.shape[1] if x.ndim > 2 else 0
    if not isinstance(c, int) or groups < 1 or x.ndim < 3 or c % groups:
        raise ShapeError(f"channel_shuffle: shape {tuple(x.shape)} has no channels that split into {groups} groups")
    n, _, *space = x.shape
    return x.reshape(n, groups, c // groups, *space).transpose(1, 2).reshape(n, c, *space)
