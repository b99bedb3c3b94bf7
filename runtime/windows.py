"""What the pooling kernels share: how far windows reach, and which value of a window wins."""

from __future__ import annotations

from collections.abc import Sequence

from engine.dims import Size, product
from engine.dtypes import DType

_MOST_UNROLLED = 16
"""The most positions of a window that are written out."""


def may_unroll(kernel: Sequence[int]) -> bool:
    """Whether a window of this size is small enough for a kernel that writes out its positions."""
    return product(kernel) <= _MOST_UNROLLED


def reach(kernel: int, dilation: int) -> int:
    """The positions of the input that a window spans."""
    return (kernel - 1) * dilation + 1


def always_inside(sizes: Sequence[Size], out: Sequence[Size], kernel: Sequence[int], stride: Sequence[int],
                  padding: Sequence[int], dilation: Sequence[int]) -> bool:  # fmt: skip
    """Whether no window reaches over the border, for all values of symbolic sizes."""
    for have, count, k, s, p, d in zip(sizes, out, kernel, stride, padding, dilation, strict=True):
        span = reach(k, d)
        if p:
            return False
        if isinstance(have, int) and isinstance(count, int):
            if (count - 1) * s + span > have:
                return False
        elif count != (have - span) // s + 1:
            return False
    return True


def better(value: str, best: str, dtype: DType) -> str:
    """Whether ``value`` takes the place of ``best``: greater, or the first NaN."""
    return f"(not ({value} <= {best})) & ({best} == {best})" if dtype.is_float else f"{value} > {best}"
