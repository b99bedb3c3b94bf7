"""Max pooling, which remembers where each maximum was, and its gradient, which puts it back there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from engine import dims, dtypes
from engine.dims import Size
from engine.errors import DTypeError, ShapeError
from engine.graph import Node, TensorType, Value, apply
from engine.op import REQUIRED, Op, register
from engine.ops.convolution import Pair
from engine.rules import need_rank

_WINDOW = {"kernel": REQUIRED, "stride": REQUIRED, "padding": (0, 0), "dilation": (1, 1)}


def pooled_size(
    size: Size, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool, op: str = "max_pool2d"
) -> Size:
    """Window positions along an axis, PyTorch's rule: with ``ceil_mode`` a last window may hang over the end, if it
    starts inside the input or its left padding. Raises ShapeError, which names ``op``."""
    if kernel < 1 or stride < 1 or dilation < 1 or not 0 <= padding <= kernel // 2:
        raise ShapeError(
            f"{op}: kernel, stride and dilation must be at least 1 and padding between 0 and half the kernel, not "
            f"{kernel}, {stride}, {dilation} and {padding}"
        )
    if padding and (ceil_mode or dilation * (kernel - 2) + 1 < 2 * padding):
        # Its first position in the padding, the second beyond the end: such a window would have no maximum.
        dims.assume(size - dilation, ">= 0", f"{op}: a window with dilation {dilation} may step over an axis of {size}")
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil_mode:
        dims.assume(room, ">= 0", f"{op}: a window of {dilation * (kernel - 1) + 1} does not fit an axis of {size}")
        return room // stride + 1
    count = dims.ceil_div(room, stride) + 1
    if not isinstance(count, int):
        raise ShapeError(f"{op}: ceil_mode needs a fixed image size, not {size}")
    return count - 1 if (count - 1) * stride >= size + padding else count


def _pooled(size: Sequence[Size], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool) -> Any:
    """The output's two sizes, ints where the input's are."""
    return tuple(pooled_size(size[i], kernel[i], stride[i], padding[i], dilation[i], ceil_mode) for i in (0, 1))


def _rule(
    x: TensorType, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> tuple[TensorType, TensorType]:
    need_rank("max_pool2d", "the input", x, 4)
    if x.dtype == dtypes.bool_:
        raise DTypeError("max_pool2d takes numbers, not bool")
    if kernel[0] * kernel[1] > 256:
        raise ShapeError(f"max_pool2d: a window of {kernel[0]} x {kernel[1]} has more than 256 positions")
    shape = (*x.shape[:2], *_pooled(x.shape[2:], kernel, stride, padding, dilation, ceil_mode))
    return TensorType(shape, x.dtype), TensorType(shape, dtypes.u8)


def _positions(
    size: tuple[int, int], out: tuple[int, int], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """For each position of the window: its number, the rows and columns it meets (clipped), and which are inside."""
    for k in range(kernel[0] * kernel[1]):
        rows = np.arange(out[0]) * stride[0] - padding[0] + k // kernel[1] * dilation[0]
        columns = np.arange(out[1]) * stride[1] - padding[1] + k % kernel[1] * dilation[1]
        inside = ((rows >= 0) & (rows < size[0]))[:, None] & ((columns >= 0) & (columns < size[1]))
        yield k, np.clip(rows, 0, max(size[0] - 1, 0)), np.clip(columns, 0, max(size[1] - 1, 0)), inside


def _reference(
    x: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> tuple[np.ndarray, np.ndarray]:
    out = _pooled(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
    lowest = -np.inf if x.dtype.kind not in "iu" else np.iinfo(x.dtype).min
    best = np.full((*x.shape[:2], *out), lowest, x.dtype)
    position = np.zeros(best.shape, np.uint8)
    found = np.zeros(best.shape, bool)
    for k, rows, columns, inside in _positions(x.shape[2:], out, kernel, stride, padding, dilation):
        here = x[:, :, rows[:, None], columns]
        better = inside & (~found | (here > best) | ((here != here) & (best == best)))
        best, position, found = np.where(better, here, best), np.where(better, np.uint8(k), position), found | better
    return best, position


def _gradient(node: Node, g: Value | None, _: Value | None) -> tuple[Value | None]:
    if g is None:
        return (None,)
    attrs = {k: node.attrs[k] for k in _WINDOW}
    return (apply("max_pool2d_grad", g, node.outputs[1], input_size=node.inputs[0].shape[2:], **attrs),)


register(
    Op(
        "max_pool2d",
        "pool",
        ("x",),
        _rule,
        _reference,
        _gradient,
        attrs={**_WINDOW, "ceil_mode": False},
        doc="The maximum of each window (NaN wins), and its first position in it, ``row * KW + column``, as u8.",
    )
)


def _grad_rule(dy: TensorType, position: TensorType, input_size: tuple[Size, Size], **_: object) -> TensorType:
    need_rank("max_pool2d_grad", "the gradient", dy, 4)
    if position.shape != dy.shape:
        raise ShapeError(
            f"max_pool2d_grad: {dims.shape_text(dy.shape)} has positions {dims.shape_text(position.shape)}"
        )
    return TensorType((*dy.shape[:2], *input_size), dy.dtype)


def _grad(
    dy: np.ndarray, position: np.ndarray, input_size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> np.ndarray:
    out = np.zeros((*dy.shape[:2], *input_size), dy.dtype)
    for k, rows, columns, inside in _positions(input_size, dy.shape[2:], kernel, stride, padding, dilation):
        if out.size:
            at: Any = (slice(None), slice(None), rows[:, None], columns)
            np.add.at(out, at, np.where((position == k) & inside, dy, 0))
    return out


def _grad_gradient(node: Node, g: Value) -> tuple[Value, None]:
    attrs = {k: node.attrs[k] for k in _WINDOW}
    return apply("max_pool2d_gather", g, node.inputs[1], **attrs), None


register(
    Op(
        "max_pool2d_grad",
        "pool",
        ("dy", "position"),
        _grad_rule,
        _grad,
        _grad_gradient,
        attrs={"input_size": REQUIRED, **_WINDOW},
        doc="Each window's gradient added at the position of its maximum.",
    )
)


def _gather_rule(x: TensorType, position: TensorType, **_: object) -> TensorType:
    need_rank("max_pool2d_gather", "the input", x, 4)
    return TensorType(position.shape, x.dtype)


def _gather(
    x: np.ndarray, position: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> np.ndarray:
    out = np.zeros(position.shape, x.dtype)
    for k, rows, columns, inside in _positions(x.shape[2:], position.shape[2:], kernel, stride, padding, dilation):
        if x.size:
            out = np.where((position == k) & inside, x[:, :, rows[:, None], columns], out)
    return out


def _gather_gradient(node: Node, g: Value) -> tuple[Value, None]:
    attrs = dict(node.attrs)
    return apply("max_pool2d_grad", g, node.inputs[1], input_size=node.inputs[0].shape[2:], **attrs), None


register(
    Op(
        "max_pool2d_gather",
        "pool",
        ("x", "position"),
        _gather_rule,
        _gather,
        _gather_gradient,
        attrs=_WINDOW,
        doc="The element of x at each window's remembered position.",
    )
)
