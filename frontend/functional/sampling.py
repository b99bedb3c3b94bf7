"""Images and volumes read at the places that a grid names, and the grids of affine transformations: Jaderberg et al.
(2015), "Spatial transformer networks"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.dims import shape_text
from engine.errors import DTypeError, ShapeError, TenonError
from frontend import reducing, shaping
from frontend.dispatch import call
from frontend.functional.spatial import TAPS
from frontend.sizes import SizeLike, plain, plain_shape
from frontend.tensor import Tensor, as_tensor

__all__ = ["affine_grid", "grid_sample"]

_PADDINGS = ("zeros", "border", "reflection")


def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """(N, C, H, W) read at the places in a grid (N, OH, OW, 2): (N, C, OH, OW). Or a volume (N, C, D, H, W) and a grid
    (N, OD, OH, OW, 3).

    A place is (x, y) or (x, y, z), from -1 to 1 across the input: between the centres of the first and last elements
    with ``align_corners``, else between their outer edges. ``mode`` is "bilinear" (also for volumes), "nearest", or
    "bicubic" (images only). Beyond the input there are zeros, with ``padding_mode`` "border" its last elements, with
    "reflection" its mirror image. Floats; gradients flow to both arguments. Raises ShapeError, DTypeError, TenonError.

    PyTorch: torch.nn.functional.grid_sample.
    """
    x, places = as_tensor(input), as_tensor(grid)
    rank = x.ndim - 2
    if rank not in (2, 3) or places.ndim != x.ndim or places.shape[-1] != rank:
        shapes = f"{shape_text(plain_shape(x.shape))} and {shape_text(plain_shape(places.shape))}"
        raise ShapeError(
            f"grid_sample takes (N, C, H, W) and (N, OH, OW, 2), or one more axis of space each, not {shapes}"
        )
    if not x.dtype.is_float or places.dtype != x.dtype:
        raise DTypeError(f"grid_sample takes two tensors of one floating point dtype, not {x.dtype}, {places.dtype}")
    if mode not in ("bilinear", "nearest", "bicubic") or (mode == "bicubic" and rank == 3):
        raise TenonError(f"grid_sample: {mode!r} is no mode for {rank} axes of space")
    if padding_mode not in _PADDINGS:
        raise TenonError(f"grid_sample: padding_mode must be one of {', '.join(_PADDINGS)}, not {padding_mode!r}")
    n, c, *space = x.shape
    _, *out, _ = places.shape
    points: Any = 1
    for size in out:
        points = points * size
    flat = places.reshape(n, points, rank)
    index: Any = 0
    weight: Any = 1
    inside: Any = True
    for axis, size in enumerate(space):
        place = _unnormalised(flat[:, :, rank - 1 - axis], size, bool(align_corners))
        taps, share = _taps(place, size, mode, padding_mode, bool(align_corners))
        # One axis of taps for each axis of space, behind the points.
        shape = (n, 1, points, *(taps.shape[-1] if i == axis else 1 for i in range(rank)))
        valid = call("bitand", taps >= 0, taps <= size - 1)
        index = index * size + call("where", valid, taps, 0).long().reshape(*shape)
        inside = call("bitand", inside, valid.reshape(*shape)) if axis else valid.reshape(*shape)
        weight = weight if share is None else weight * share.reshape(*shape)
    rows = x.reshape(n, c, _product(space), *(1,) * rank)
    near = call("where", inside, call("gather", rows, index, axis=2), 0)
    return reducing.sum(near * weight, tuple(range(3, 3 + rank))).reshape(n, c, *out)


def _product(sizes: Sequence[SizeLike]) -> Any:
    total: Any = 1
    for size in sizes:
        total = total * size
    return total


def _unnormalised(place: Tensor, size: SizeLike, align: bool) -> Tensor:
    """Places between -1 and 1 as positions of elements."""
    return (place + 1) * (size - 1) / 2 if align else ((place + 1) * size - 1) / 2


def _taps(place: Tensor, size: SizeLike, mode: str, padding_mode: str, align: bool) -> tuple[Tensor, Tensor | None]:
    """The positions of the elements along one axis that each place is made of, as whole floats, and their weights."""
    if mode != "bicubic":
        place = _brought_in(place, size, padding_mode, align)
    if mode == "nearest":
        return call("round", place).unsqueeze(-1), None
    first = call("floor", place)
    rest = (place - first).unsqueeze(-1)
    offsets, coefficients = (c.astype(place.dtype.numpy) for c in TAPS["cubic" if mode == "bicubic" else "linear"])
    weights: Any = as_tensor(coefficients[0])
    for c in coefficients[1:]:
        weights = weights * rest + as_tensor(c)
    taps = first.unsqueeze(-1) + as_tensor(offsets)
    return _brought_in(taps, size, padding_mode, align) if mode == "bicubic" else taps, weights


def _brought_in(place: Tensor, size: SizeLike, padding_mode: str, align: bool) -> Tensor:
    """Positions beyond the input moved to where the padding says it reads."""
    if padding_mode == "zeros":
        return place
    if padding_mode == "reflection":
        place = _reflected(place, 0.0, size - 1) if align else _reflected(place, -0.5, size)
    return place.clamp(0, size - 1)


def _reflected(place: Tensor, low: float, span: SizeLike) -> Tensor:
    """Positions mirrored at ``low`` and ``low + span`` until they lie between."""
    if span == 0:
        return place * 0
    away = abs(place - low)
    around = away - call("floor", away / (span * 2)) * (span * 2)
    return span - abs(around - span) + low


def affine_grid(theta: Tensor, size: Sequence[SizeLike], align_corners: bool | None = None) -> Tensor:
    """The grid for :func:`grid_sample` that transforms an output of ``size`` (N, C, H, W) by matrices ``theta``
    (N, 2, 3): (N, H, W, 2). Or for (N, C, D, H, W) by (N, 3, 4): (N, D, H, W, 3). The sizes of space are integers.

    PyTorch: torch.nn.functional.affine_grid.
    """
    matrix, shape = as_tensor(theta), plain_shape(size)
    rank = len(shape) - 2
    if rank not in (2, 3) or matrix.ndim != 3 or plain_shape(matrix.shape[1:]) != (rank, rank + 1):
        given = f"{shape_text(plain_shape(matrix.shape))} for a size of {shape_text(shape)}"
        raise ShapeError(f"affine_grid takes matrices (N, 2, 3) for images and (N, 3, 4) for volumes, not {given}")
    if not matrix.dtype.is_float:
        raise DTypeError(f"affine_grid takes floating point matrices, not {matrix.dtype}")
    space = [n for n in shape[2:] if isinstance(n, int) and n > 0]
    if len(space) != rank:
        raise ShapeError(f"affine_grid: the sizes of space must be positive integers, not {shape_text(shape[2:])}")
    if plain(matrix.shape[0]) != shape[0]:
        raise ShapeError(f"affine_grid: {matrix.shape[0]} matrices do not fit a batch of {shape[0]}")
    axes = [_centres(n, bool(align_corners)) for n in space]
    points = np.stack([*np.meshgrid(*axes, indexing="ij")[::-1], np.ones([len(a) for a in axes])], -1)
    places = as_tensor(points.reshape(-1, rank + 1).astype(matrix.dtype.numpy))
    return shaping.matmul(places, matrix.mT).reshape(matrix.shape[0], *space, rank)


def _centres(count: int, align: bool) -> np.ndarray:
    """Where the elements of an axis lie between -1 and 1."""
    if count == 1:
        return np.zeros(1)
    edge = 1.0 if align else (count - 1) / count
    return np.linspace(-edge, edge, count)
