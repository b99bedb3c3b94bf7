"""Pooling to a given number of windows, in one, two and three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine import dtypes
from engine.dims import shape_text
from engine.errors import DTypeError, ShapeError
from frontend import reducing
from frontend.dispatch import call
from frontend.functional.spatial import batched
from frontend.functional.windows import Best, Pool, greatest, lowest
from frontend.sizes import SizeLike, plain, plain_shape
from frontend.tensor import Tensor, as_tensor

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "adaptive_max_pool3d",
]  # fmt: skip

OutputSize = int | None | Sequence[int | None]


def adaptive_avg_pool1d(input: Tensor, output_size: OutputSize) -> Tensor:
    """The means of ``output_size`` windows of (N, C, L) or (C, L); see :func:`adaptive_avg_pool2d`.

    PyTorch: torch.nn.functional.adaptive_avg_pool1d.
    """
    return _adaptive_avg_pool("adaptive_avg_pool1d", 1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: OutputSize) -> Tensor:
    """The means of windows of (N, C, H, W) or (C, H, W), of which there are ``output_size``: one number for both axes,
    or one for each; None keeps an axis.

    Window ``i`` of ``n`` covers ``floor(i * H / n)`` to ``ceil((i + 1) * H / n)``. An axis of symbolic size can be
    pooled to 1. Raises ShapeError.

    PyTorch: torch.nn.functional.adaptive_avg_pool2d.
    """
    return _adaptive_avg_pool("adaptive_avg_pool2d", 2, input, output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: OutputSize) -> Tensor:
    """The means of windows of (N, C, D, H, W) or (C, D, H, W); see :func:`adaptive_avg_pool2d`.

    PyTorch: torch.nn.functional.adaptive_avg_pool3d.
    """
    return _adaptive_avg_pool("adaptive_avg_pool3d", 3, input, output_size)


def adaptive_max_pool1d(input: Tensor, output_size: OutputSize, return_indices: bool = False) -> Any:
    """The maxima of ``output_size`` windows of (N, C, L) or (C, L); see :func:`adaptive_max_pool2d`.

    PyTorch: torch.nn.functional.adaptive_max_pool1d.
    """
    return _adaptive_max_pool("adaptive_max_pool1d", 1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: OutputSize, return_indices: bool = False) -> Any:
    """The maxima of the windows of :func:`adaptive_avg_pool2d`; with ``return_indices`` also where they were, as
    :func:`max_pool2d` says it.

    PyTorch: torch.nn.functional.adaptive_max_pool2d.
    """
    return _adaptive_max_pool("adaptive_max_pool2d", 2, input, output_size, return_indices)


def adaptive_max_pool3d(input: Tensor, output_size: OutputSize, return_indices: bool = False) -> Any:
    """The maxima of windows of (N, C, D, H, W) or (C, D, H, W); see :func:`adaptive_max_pool2d`.

    PyTorch: torch.nn.functional.adaptive_max_pool3d.
    """
    return _adaptive_max_pool("adaptive_max_pool3d", 3, input, output_size, return_indices)


def _wanted(op: str, x: Tensor, output_size: OutputSize) -> list[SizeLike]:
    """The number of windows along each axis of space. Raises ShapeError."""
    space = x.shape[2:]
    rank = len(space)
    given = (output_size,) * rank if output_size is None or isinstance(output_size, int) else tuple(output_size)
    given = given * rank if len(given) == 1 else given
    if len(given) != rank or any(n is not None and (not isinstance(n, int) or n < 1) for n in given):
        wanted = "a positive integer" if rank == 1 else f"a positive integer, or {rank} of them or None"
        raise ShapeError(f"{op}: output_size must be {wanted}, not {output_size!r}")
    for size, n in zip(space, given, strict=True):
        if n not in (None, 1) and not isinstance(size, int):
            raise ShapeError(f"{op}: an axis of symbolic size {size} can only be pooled to 1, not to {n}")
        if size == 0 and n is not None:
            raise ShapeError(f"{op}: {shape_text(plain_shape(x.shape))} has an axis without elements")
    return [size if n is None else n for size, n in zip(space, given, strict=True)]


def _even(size: SizeLike, count: SizeLike) -> bool:
    """Whether ``count`` windows of one size lie side by side."""
    return count == 1 or count is size or size % count == 0


def _adaptive_avg_pool(op: str, rank: int, input: Tensor, output_size: OutputSize) -> Tensor:
    x, single = batched(op, input, rank)
    if not x.dtype.is_float:
        raise DTypeError(f"{op} takes floating point tensors, not {x.dtype}")
    counts = _wanted(op, x, output_size)
    for i, (size, count) in enumerate(zip(x.shape[2:], counts, strict=True)):
        if not _even(size, count):
            windows = _shares(x, 2 + i, int(plain(size)), int(plain(count)), 0)
            start, stop = _bounds(int(plain(size)), int(plain(count)))
            length = (stop - start).reshape(-1, *(1,) * (rank - 1 - i)).astype(x.dtype.numpy)
            x = reducing.sum(windows, 3 + i) / as_tensor(length)
    n, c, *space = x.shape
    parts = [part for size, count in zip(space, counts, strict=True) for part in _divided(size, count)]
    out = reducing.mean(x.reshape(n, c, *parts), [2 * i + 3 for i in range(rank)])
    return out.squeeze(0) if single else out


def _divided(size: SizeLike, count: SizeLike) -> tuple[SizeLike, SizeLike]:
    """``count`` windows of ``size / count`` elements."""
    if count is size:
        return size, 1
    return (1, size) if count == 1 else (count, size // count)


def _adaptive_max_pool(op: str, rank: int, input: Tensor, output_size: OutputSize, return_indices: bool) -> Any:
    x, single = batched(op, input, rank)
    if x.dtype == dtypes.bool_:
        raise DTypeError(f"{op} takes numbers, not bool")
    counts = _wanted(op, x, output_size)
    sizes = [(size, count) for size, count in zip(x.shape[2:], counts, strict=True)]
    if all(isinstance(size, int) and size % count == 0 for size, count in sizes):
        kernel = tuple(int(plain(size // count)) for size, count in sizes)
        return greatest(op, rank, input, (kernel, None, 0, 1, False), return_indices)
    best = Best(x, return_indices)
    for i in range(rank - 1, -1, -1):
        best.pool(i, 1, _adaptively(*sizes[i]))
    return best.found(single)


def _adaptively(size: SizeLike, count: SizeLike) -> Pool:
    """Pooling over one axis to ``count`` windows."""

    def pool(x: Tensor) -> tuple[Tensor, Tensor | None]:
        if _even(size, count):
            n, c, _, behind = x.shape
            number, length = _divided(size, count)
            start = call("iota", shape=plain_shape((number, 1)), axis=0) * length
            best, tap = reducing.max(x.reshape(n, c, number, length, behind), 3)
            return best, tap + start
        whole, number = int(plain(size)), int(plain(count))
        best, tap = reducing.max(_shares(x, 2, whole, number, lowest(x)), 3)
        return best, tap + as_tensor(_bounds(whole, number)[0][:, None])

    return pool


def _bounds(size: int, count: int) -> np.ndarray:
    """Where each of ``count`` windows over ``size`` elements starts and stops."""
    i = np.arange(count)
    return np.stack([i * size // count, -(-(i + 1) * size // count)])


def _shares(x: Tensor, axis: int, size: int, count: int, filler: float) -> Tensor:
    """``axis`` as windows and, a new axis behind it, the elements of each: ``filler`` where a window has fewer."""
    start, stop = _bounds(size, count)
    place = start[:, None] + np.arange((stop - start).max())
    inside = place < stop[:, None]
    behind = (1,) * (x.ndim - 1 - axis)
    index = np.where(inside, place, 0).reshape(*(1,) * axis, *place.shape, *behind)
    near = call("gather", x.unsqueeze(axis + 1), as_tensor(index), axis=axis)
    return call("where", as_tensor(inside.reshape(*inside.shape, *behind)), near, filler)
