"""How pooling windows lie, and the greatest over axes of space, pooled one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from engine import dims, dtypes
from engine.errors import DTypeError
from engine.graph import current_builder, tracing
from engine.ops.pooling import pooled_size
from engine.records import dataclass
from frontend import reducing
from frontend.dispatch import call
from frontend.functional.spatial import Numbers, batched, numbers, padded
from frontend.sizes import SizeLike, as_size, plain, plain_shape
from frontend.tensor import Tensor

_OP_POSITIONS = 256  # the op max_pool2d remembers in a byte where a window's maximum was


@dataclass(frozen=True)
class Axis:
    """How windows lie along one axis of space."""

    size: SizeLike
    kernel: int
    stride: int
    padding: int
    dilation: int
    count: SizeLike

    @property
    def overhang(self) -> int:
        """How far the last window reaches beyond the padding, which only ``ceil_mode`` lets it."""
        if not isinstance(self.count, int) or not isinstance(self.size, int):
            return 0
        end = (self.count - 1) * self.stride + self.dilation * (self.kernel - 1) + 1
        return max(0, end - self.size - 2 * self.padding)


def window_axes(
    op: str,
    x: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None,
    padding: Numbers,
    dilation: Numbers,
    ceil_mode: bool,
) -> list[Axis]:
    rank = x.ndim - 2
    kernel = numbers(kernel_size, rank, f"{op}: kernel_size")
    strides = kernel if stride is None else numbers(stride, rank, f"{op}: stride")
    pads, dilations = numbers(padding, rank, f"{op}: padding"), numbers(dilation, rank, f"{op}: dilation")
    found = []
    with dims.recording(current_builder().assumptions if tracing() else []):
        for size, k, s, p, d in zip(x.shape[2:], kernel, strides, pads, dilations, strict=True):
            count = pooled_size(plain(size), k, s, p, d, ceil_mode, op)
            found.append(Axis(size, k, s, p, d, as_size(count)))
    return found


def greatest(op: str, rank: int, input: Tensor, window: tuple[Any, ...], return_indices: bool) -> Any:
    x, single = batched(op, input, rank)
    if x.dtype == dtypes.bool_:
        raise DTypeError(f"{op} takes numbers, not bool")
    best = Best(x, return_indices)
    for first, axes in _stages(window_axes(op, x, *window)):
        long = any(a.kernel > _OP_POSITIONS for a in axes)
        best.pool(first, len(axes), _long_windows(axes[0]) if long else _by_op(axes, return_indices))
    return best.found(single)


def _stages(axes: Sequence[Axis]) -> Iterator[tuple[int, Sequence[Axis]]]:
    """The axes in the order in which they are pooled, from the last: a maximum of maxima is the maximum. The last two
    together where one op can."""
    left = len(axes)
    if left > 1 and axes[-2].kernel * axes[-1].kernel <= _OP_POSITIONS:
        left -= 2
        yield left, axes[-2:]
    for i in range(left - 1, -1, -1):
        yield i, axes[i : i + 1]


Pool = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""From (N, C, A, B) the greatest along A, or A and B, and where they were there, counted row by row."""


class Best:
    """The greatest over the axes of space that are pooled so far, and where it was in those axes, row by row."""

    def __init__(self, x: Tensor, return_indices: bool):
        self.x = x
        self.place: Tensor | None = None
        self.wanted = return_indices
        self._pooled: SizeLike = 1  # the elements of the pooled axes, as they were

    def pool(self, first: int, count: int, pool: Pool) -> None:
        """Pool ``count`` axes of space from number ``first``: one, or the last two."""
        n, c, *space = self.x.shape
        before, over, behind = space[:first], space[first : first + count], space[first + count :]
        flat = (n, c * product_of(before), *over, *((product_of(behind),) if count == 1 else ()))
        best, place = pool(self.x.reshape(flat))
        shape = (n, c, *before, *best.shape[2 : 2 + count], *behind)
        if place is not None:
            if self.place is not None:
                place = place * self._pooled + call("gather", self.place.reshape(flat), place, axis=2)
            self.place = place.reshape(shape)
            self._pooled = self._pooled * product_of(over)
        self.x = best.reshape(shape)

    def found(self, single: bool) -> Any:
        """What a pooling function returns."""
        values = self.x.squeeze(0) if single else self.x
        if not self.wanted:
            return values
        assert self.place is not None
        return values, self.place.squeeze(0) if single else self.place


def _by_op(axes: Sequence[Axis], return_indices: bool) -> Pool:
    """Pooling by the op, over one axis or two."""
    a, b = axes if len(axes) == 2 else (axes[0], Axis(1, 1, 1, 0, 1, 1))
    window = {
        "kernel": (a.kernel, b.kernel),
        "stride": (a.stride, b.stride),
        "padding": (a.padding, b.padding),
        "dilation": (a.dilation, b.dilation),
        "ceil_mode": bool(a.overhang or b.overhang),
    }

    def pool(x: Tensor) -> tuple[Tensor, Tensor | None]:
        best, position = call("max_pool2d", x, **window)
        if not return_indices:
            return best, None
        shape, tap = plain_shape(best.shape), position.long()
        row = call("iota", shape=shape, axis=2) * a.stride - a.padding + tap // b.kernel * a.dilation
        if len(axes) == 1:
            return best, row
        column = call("iota", shape=shape, axis=3) * b.stride - b.padding + tap % b.kernel * b.dilation
        return best, row * b.size + column

    return pool


def _long_windows(axis: Axis) -> Pool:
    """Pooling over one axis with windows of any length, which are a view."""

    def pool(x: Tensor) -> tuple[Tensor, Tensor | None]:
        around = padded(x, (axis.padding, 0), (axis.padding + axis.overhang, 0), lowest(x))
        near = call("window", around, axis=2, size=axis.kernel, step=axis.stride, dilation=axis.dilation)
        best, tap = reducing.max(near, -1)
        place = call("iota", shape=plain_shape(tap.shape), axis=2) * axis.stride - axis.padding + tap * axis.dilation
        # Where all is as low as the padding, the first is in the padding.
        return best, call("minimum", call("maximum", place, 0), axis.size - 1)

    return pool


def lowest(x: Tensor) -> float:
    return -float("inf") if x.dtype.is_float else int(np.iinfo(x.dtype.numpy).min)


def product_of(sizes: Sequence[SizeLike]) -> Any:
    total: Any = 1
    for size in sizes:
        total = total * size
    return total
