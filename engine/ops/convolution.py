"""Two-dimensional convolution and its two gradients, each the gradient of the others.

As the field does, this is cross-correlation: Dumoulin and Visin, "A guide to convolution arithmetic for deep
learning" (2016). x is (N, C, H, W), w is (O, C / groups, KH, KW), the result (N, O, OH, OW) with
``OH = (H + 2 * padding - dilation * (KH - 1) - 1) // stride + 1``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from engine import dims, dtypes
from engine.dims import Size
from engine.errors import ShapeError
from engine.graph import Node, TensorType, Value, apply
from engine.op import REQUIRED, Op, register
from engine.rules import need_equal, need_float, need_rank, widened

Pair = tuple[int, int]

_WINDOW = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}


def window_output(size: Size, kernel: int, stride: int, padding: int, dilation: int, op: str) -> Size:
    """The number of window positions along an axis. Raises ShapeError where the window does not fit."""
    if stride < 1 or dilation < 1 or kernel < 1 or padding < 0:
        raise ShapeError(
            f"{op}: kernel, stride and dilation must be at least 1 and padding at least 0, "
            f"not {kernel}, {stride}, {dilation} and {padding}"
        )
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    dims.assume(
        room,
        ">= 0",
        f"{op}: a window of {dilation * (kernel - 1) + 1} does not fit an axis of {size} padded by {padding}",
    )
    return room // stride + 1


def _output_size(size: Sequence[Size], kernel: Sequence[Any], attrs: dict[str, Any]) -> tuple[Any, Any]:
    h, w = (
        window_output(size[i], kernel[i], attrs["stride"][i], attrs["padding"][i], attrs["dilation"][i], "conv2d")
        for i in (0, 1)
    )
    return h, w


def _rule(x: TensorType, w: TensorType, **attrs: Any) -> TensorType:
    need_rank("conv2d", "the input", x, 4)
    need_rank("conv2d", "the weight", w, 4)
    need_float("conv2d", x, w)
    n, c, h, wd = x.shape
    o, cg, kh, kw = w.shape
    groups = attrs["groups"]
    if not all(isinstance(v, int) for v in (o, cg, kh, kw)):
        raise ShapeError(f"conv2d: the weight's shape must be fixed, not {dims.shape_text(w.shape)}")
    if groups < 1 or o % groups:
        raise ShapeError(f"conv2d: {o} output channels do not split into {groups} groups")
    if not isinstance(c, int):
        raise ShapeError(
            f"conv2d: the input {dims.shape_text(x.shape)} has {c} channels; a fixed number was expected in axis 1, "
            f"as in ({n}, {cg * groups}, ...)"
        )
    need_equal(c, cg * groups, f"conv2d: the input has {c} channels, and the weight expects {cg * groups}")
    return TensorType((n, o, *_output_size((h, wd), (kh, kw), attrs)), dtypes.promote(x.dtype, w.dtype))


def _padded(x: np.ndarray, padding: Pair) -> np.ndarray:
    return np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))


def _taps(padded: np.ndarray, out_size: tuple[int, int], kernel: Pair, stride: Pair, dilation: Pair) -> Iterator[Any]:
    """Each tap of the window with the view of the padded input that it meets."""
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows = slice(i * dilation[0], i * dilation[0] + (out_size[0] - 1) * stride[0] + 1, stride[0])
            columns = slice(j * dilation[1], j * dilation[1] + (out_size[1] - 1) * stride[1] + 1, stride[1])
            yield i, j, padded[:, :, rows, columns]


def _groups(channels: int, groups: int) -> list[slice]:
    each = channels // groups
    return [slice(g * each, (g + 1) * each) for g in range(groups)]


def _conv2d(x: np.ndarray, w: np.ndarray, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> np.ndarray:
    attrs = {"stride": stride, "padding": padding, "dilation": dilation}
    size = _output_size(x.shape[2:], w.shape[2:], attrs)
    x, w = widened(x), widened(w)
    out = np.zeros((x.shape[0], w.shape[0], *size), np.result_type(x, w))
    padded = _padded(x, padding)
    for into, read in zip(_groups(w.shape[0], groups), _groups(x.shape[1], groups), strict=True):
        for i, j, part in _taps(padded, size, w.shape[2:], stride, dilation):
            out[:, into] += np.einsum("nchw,oc->nohw", part[:, read], w[into, :, i, j], optimize=True)
    return out


def _gradient(node: Node, g: Value) -> tuple[Value, Value]:
    x, w = node.inputs
    attrs = dict(node.attrs)
    return (
        apply("conv2d_input_grad", g, w, input_size=x.shape[2:], **attrs),
        apply("conv2d_weight_grad", x, g, kernel_size=w.shape[2:], **attrs),
    )


def _flops(y: Value, w: Value) -> Size:
    """Of a convolution that gives ``y`` with the weight ``w``: a multiply-add for each result, tap and input channel
    of its group. Taps that lie in the padding count too."""
    return 2 * y.type.size * dims.product(w.shape[1:])


register(
    Op(
        "conv2d",
        "conv2d",
        ("x", "w"),
        _rule,
        _conv2d,
        _gradient,
        attrs=_WINDOW,
        flops=lambda node: _flops(node.output, node.inputs[1]),
        doc="``out[n, o, i, j] = sum over c, p, q of x[n, c, i*stride - padding + p*dilation, ...] * w[o, c, p, q]``.",
    )
)


def _need_image(op: str, dy: TensorType, size: tuple[Size, Size]) -> None:
    for a, b in zip(dy.shape[2:], size, strict=True):
        need_equal(a, b, f"{op}: the gradient's size {a} is not the {b} that the convolution gives")


def _input_grad_rule(dy: TensorType, w: TensorType, input_size: tuple[Size, Size], **attrs: Any) -> TensorType:
    need_rank("conv2d_input_grad", "the gradient", dy, 4)
    need_rank("conv2d_input_grad", "the weight", w, 4)
    need_float("conv2d_input_grad", dy, w)
    size = _output_size(input_size, w.shape[2:], attrs)
    _need_image("conv2d_input_grad", dy, size)
    need_equal(dy.shape[1], w.shape[0], "conv2d_input_grad: the channels of the gradient and of the weight differ")
    return TensorType((dy.shape[0], w.shape[1] * attrs["groups"], *input_size), dtypes.promote(dy.dtype, w.dtype))


def _input_grad(
    dy: np.ndarray, w: np.ndarray, input_size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> np.ndarray:
    shape = (dy.shape[0], w.shape[1] * groups, *input_size)
    dy, w = widened(dy), widened(w)
    padded = _padded(np.zeros(shape, np.result_type(dy, w)), padding)
    for into, read in zip(_groups(w.shape[0], groups), _groups(shape[1], groups), strict=True):
        for i, j, part in _taps(padded, dy.shape[2:], w.shape[2:], stride, dilation):
            part[:, read] += np.einsum("nohw,oc->nchw", dy[:, into], w[into, :, i, j], optimize=True)
    h, wd = input_size
    return padded[:, :, padding[0] : padding[0] + h, padding[1] : padding[1] + wd]


def _input_grad_gradient(node: Node, g: Value) -> tuple[Value, Value]:
    dy, w = node.inputs
    attrs = {k: v for k, v in node.attrs.items() if k != "input_size"}
    return apply("conv2d", g, w, **attrs), apply("conv2d_weight_grad", g, dy, kernel_size=w.shape[2:], **attrs)


register(
    Op(
        "conv2d_input_grad",
        "conv2d",
        ("dy", "w"),
        _input_grad_rule,
        _input_grad,
        _input_grad_gradient,
        attrs={"input_size": REQUIRED, **_WINDOW},
        flops=lambda node: _flops(*node.inputs),  # as the convolution, whose result is as large as dy
        doc="The gradient of conv2d with respect to x: a transposed convolution of dy.",
    )
)


def _weight_grad_rule(x: TensorType, dy: TensorType, kernel_size: Pair, **attrs: Any) -> TensorType:
    need_rank("conv2d_weight_grad", "the input", x, 4)
    need_rank("conv2d_weight_grad", "the gradient", dy, 4)
    need_float("conv2d_weight_grad", x, dy)
    need_equal(x.shape[0], dy.shape[0], "conv2d_weight_grad: the batches of the input and the gradient differ")
    size = _output_size(x.shape[2:], kernel_size, attrs)
    _need_image("conv2d_weight_grad", dy, size)
    shape = (dy.shape[1], x.shape[1] // attrs["groups"], *kernel_size)
    return TensorType(shape, dtypes.promote(x.dtype, dy.dtype))


def _weight_grad(
    x: np.ndarray, dy: np.ndarray, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> np.ndarray:
    x, dy = widened(x), widened(dy)
    out = np.zeros((dy.shape[1], x.shape[1] // groups, *kernel_size), np.result_type(x, dy))
    padded = _padded(x, padding)
    for into, read in zip(_groups(dy.shape[1], groups), _groups(x.shape[1], groups), strict=True):
        for i, j, part in _taps(padded, dy.shape[2:], kernel_size, stride, dilation):
            out[into, :, i, j] = np.einsum("nchw,nohw->oc", part[:, read], dy[:, into], optimize=True)
    return out


def _weight_grad_gradient(node: Node, g: Value) -> tuple[Value, Value]:
    x, dy = node.inputs
    attrs = {k: v for k, v in node.attrs.items() if k != "kernel_size"}
    return apply("conv2d_input_grad", dy, g, input_size=x.shape[2:], **attrs), apply("conv2d", x, g, **attrs)


register(
    Op(
        "conv2d_weight_grad",
        "conv2d_weight_grad",
        ("x", "dy"),
        _weight_grad_rule,
        _weight_grad,
        _weight_grad_gradient,
        attrs={"kernel_size": REQUIRED, **_WINDOW},
        flops=lambda node: _flops(node.inputs[1], node.output),
        doc="The gradient of conv2d with respect to w.",
    )
)
