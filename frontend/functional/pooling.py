"""Pooling as functions, in one, two and three dimensions: greatest, mean and p-norm of windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.errors import DTypeError, ShapeError
from frontend import creation, reducing
from frontend.dispatch import call
from frontend.functional.spatial import Numbers, batched, numbers, padded
from frontend.functional.windows import Axis, greatest, product_of, window_axes
from frontend.gathering import checked_index
from frontend.sizes import plain_shape
from frontend.tensor import Tensor, as_tensor

__all__ = [
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "lp_pool1d", "lp_pool2d", "lp_pool3d", "max_pool1d", "max_pool2d",
    "max_pool3d", "max_unpool1d", "max_unpool2d", "max_unpool3d",
]  # fmt: skip


def max_pool1d(
    input: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The maximum of each window of (N, C, L) or (C, L); see :func:`max_pool2d`.

    PyTorch: torch.nn.functional.max_pool1d.
    """
    return greatest("max_pool1d", 1, input, (kernel_size, stride, padding, dilation, ceil_mode), return_indices)


def max_pool2d(
    input: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The maximum of each window of (N, C, H, W) or (C, H, W); NaN wins. The stride is the window's size unless given.

    With ``ceil_mode`` a last window may hang over the end. With ``return_indices`` also where each maximum was, counted
    through its plane (``row * W + column``, i64). Numbers of any dtype; raises ShapeError and DTypeError.

    PyTorch: torch.nn.functional.max_pool2d.
    """
    return greatest("max_pool2d", 2, input, (kernel_size, stride, padding, dilation, ceil_mode), return_indices)


def max_pool3d(
    input: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The maximum of each window of (N, C, D, H, W) or (C, D, H, W); see :func:`max_pool2d`.

    PyTorch: torch.nn.functional.max_pool3d.
    """
    return greatest("max_pool3d", 3, input, (kernel_size, stride, padding, dilation, ceil_mode), return_indices)


# --- and back --------------------------------------------------------------------------------------------------------


def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Maxima put back where ``max_pool1d(..., return_indices=True)`` found them; see :func:`max_unpool2d`.

    PyTorch: torch.nn.functional.max_unpool1d.
    """
    return _max_unpool("max_unpool1d", 1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Maxima put back where ``max_pool2d(..., return_indices=True)`` found them, with zeros elsewhere. Zeiler et al.
    (2011), "Adaptive deconvolutional networks".

    Several sizes are pooled to one; ``output_size`` says which to return to. Where windows overlapped and several
    maxima go to one place, the last stays. Raises ShapeError.

    PyTorch: torch.nn.functional.max_unpool2d.
    """
    return _max_unpool("max_unpool2d", 2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Maxima put back where ``max_pool3d(..., return_indices=True)`` found them; see :func:`max_unpool2d`.

    PyTorch: torch.nn.functional.max_unpool3d.
    """
    return _max_unpool("max_unpool3d", 3, input, indices, kernel_size, stride, padding, output_size)


def _max_unpool(
    op: str,
    rank: int,
    input: Tensor,
    indices: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None,
    padding: Numbers,
    output_size: Sequence[int] | None,
) -> Tensor:
    x, single = batched(op, input, rank)
    where, _ = batched(op, indices, rank)
    if plain_shape(x.shape) != plain_shape(where.shape):
        raise ShapeError(f"{op}: {tuple(x.shape)} has indices of shape {tuple(where.shape)}")
    kernel, pads = numbers(kernel_size, rank, f"{op}: kernel_size"), numbers(padding, rank, f"{op}: padding")
    strides = kernel if stride is None else numbers(stride, rank, f"{op}: stride")
    usual = tuple((n - 1) * s - 2 * p + k for n, s, p, k in zip(x.shape[2:], strides, pads, kernel, strict=True))
    space = usual if output_size is None else tuple(output_size)[-rank:]
    known = [(n, m, s) for n, m, s in zip(space, usual, strides, strict=False) if isinstance(m, int)]
    if len(space) != rank or any(not m - s < n < m + s for n, m, s in known):
        raise ShapeError(f"{op}: output_size must be within a stride {strides} of {usual}, not {output_size}")
    n, c = x.shape[:2]
    total = product_of(space)
    flat = (n, c, product_of(x.shape[2:]))
    places = checked_index(where.reshape(flat), total, op)
    empty = creation.full((n, c, total), 0, dtype=x.dtype)
    out = call("scatter", empty, places, x.reshape(flat), axis=2, mode="set").reshape(n, c, *space)
    return out.squeeze(0) if single else out


# --- the mean --------------------------------------------------------------------------------------------------------


def avg_pool1d(
    input: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window of (N, C, L) or (C, L); see :func:`avg_pool2d`.

    PyTorch: torch.nn.functional.avg_pool1d.
    """
    return _avg_pool("avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window of (N, C, H, W) or (C, H, W). The stride is the window's size unless given.

    The padding's zeros count, unless ``count_include_pad`` is False; ``divisor_override`` divides sums by itself. With
    ``ceil_mode`` a last window may hang over the end, and what lies beyond the padding never counts. Raises ShapeError.

    PyTorch: torch.nn.functional.avg_pool2d.
    """
    return _avg_pool(
        "avg_pool2d", 2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )  # fmt: skip


def avg_pool3d(
    input: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window of (N, C, D, H, W) or (C, D, H, W); see :func:`avg_pool2d`.

    PyTorch: torch.nn.functional.avg_pool3d.
    """
    return _avg_pool(
        "avg_pool3d", 3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )  # fmt: skip


def _avg_pool(
    op: str,
    rank: int,
    input: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None,
    padding: Numbers,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    x, single = batched(op, input, rank)
    if not x.dtype.is_float:
        raise DTypeError(f"{op} takes floating point tensors, not {x.dtype}")
    if divisor_override == 0:
        raise ShapeError(f"{op}: divisor_override must not be 0")
    axes = window_axes(op, x, kernel_size, stride, padding, 1, ceil_mode)
    around = padded(x, [a.padding for a in axes], [a.padding + a.overhang for a in axes])
    divisor: Any = divisor_override
    if divisor is None:
        divisor = 1
        for i, axis in enumerate(axes):
            divisor = divisor * _counted(axis, count_include_pad, rank - i, x)
    out = _sums(around, axes) / divisor
    return out.squeeze(0) if single else out


def _sums(x: Tensor, axes: Sequence[Axis]) -> Tensor:
    """The sum of each window. Windows side by side are axes of a reshape, summed in one kernel. Others are a view; they
    are summed along one axis after the other, because the gradient then adds up as few elements as the sum does."""
    if all(a.stride == a.kernel for a in axes):
        n, c, *_ = x.shape
        whole = x[(slice(None), slice(None), *(slice(0, a.count * a.kernel) for a in axes))]
        parts = [size for a in axes for size in (a.count, a.kernel)]
        return reducing.sum(whole.reshape(n, c, *parts), [2 * i + 3 for i in range(len(axes))])
    for i, a in enumerate(axes):
        x = reducing.sum(call("window", x, axis=2 + i, size=a.kernel, step=a.stride), -1)
    return x


def _counted(axis: Axis, count_include_pad: bool, rank: int, like: Tensor) -> Any:
    """How many elements each window along ``axis`` counts: a number, or a tensor that broadcasts along it."""
    if not axis.overhang and (count_include_pad or not axis.padding):
        return axis.kernel
    start = call("iota", shape=plain_shape((axis.count, *(1,) * (rank - 1))), axis=0) * axis.stride - axis.padding
    margin = axis.padding if count_include_pad else 0
    stop = call("minimum", start + axis.kernel, axis.size + margin)
    return (stop - call("maximum", start, -margin)).to(like.dtype)


def lp_pool1d(
    input: Tensor, norm_type: float, kernel_size: Numbers, stride: Numbers | None = None, ceil_mode: bool = False
) -> Tensor:
    """The p-norm of each window of (N, C, L) or (C, L), ``(sum of x ** p) ** (1 / p)`` with ``norm_type`` as p.

    PyTorch: torch.nn.functional.lp_pool1d.
    """
    return _lp_pool("lp_pool1d", 1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Tensor, norm_type: float, kernel_size: Numbers, stride: Numbers | None = None, ceil_mode: bool = False
) -> Tensor:
    """The p-norm of each window of (N, C, H, W) or (C, H, W), ``(sum of x ** p) ** (1 / p)`` with ``norm_type`` as p.

    PyTorch: torch.nn.functional.lp_pool2d.
    """
    return _lp_pool("lp_pool2d", 2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Tensor, norm_type: float, kernel_size: Numbers, stride: Numbers | None = None, ceil_mode: bool = False
) -> Tensor:
    """The p-norm of each window of (N, C, D, H, W) or (C, D, H, W), ``(sum of x ** p) ** (1 / p)`` with ``norm_type``
    as p.

    PyTorch: torch.nn.functional.lp_pool3d.
    """
    return _lp_pool("lp_pool3d", 3, input, norm_type, kernel_size, stride, ceil_mode)


def _lp_pool(
    op: str,
    rank: int,
    input: Tensor,
    norm_type: float,
    kernel_size: Numbers,
    stride: Numbers | None,
    ceil_mode: bool,
) -> Tensor:
    powers = as_tensor(input) ** norm_type
    mean = _avg_pool(op, rank, powers, kernel_size, stride, 0, ceil_mode, True, None)
    # A window that hangs over the end counts as a whole one, as in PyTorch.
    return (mean * product_of(numbers(kernel_size, rank, f"{op}: kernel_size"))) ** (1.0 / norm_type)
