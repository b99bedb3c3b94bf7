"""Arguments on which ops are tried: at least one sample of every op that has a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from samples import (
    Sample,
    activations,
    attention,
    between,
    conditional,
    convolution,
    ctc,
    distinct,
    indexing,
    integers,
    losses,
    normal,
    normalization,
    ordering,
    recurrent,
    shaping,
)

from engine import dtypes


def _unary() -> list[Sample]:
    anywhere = ("neg", "square", "exp", "expm1", "sin", "cos", "tan", "atan", "tanh", "sigmoid", "erf", "abs", "relu")
    positive = ("sqrt", "rsqrt", "reciprocal", "log", "log1p")
    return [
        *(Sample(name, (distinct(2, 5) * 0.9,), torch=name) for name in anywhere),
        *(Sample(name, (between(0.3, 3, 2, 4),), torch=name) for name in positive),
    ]


def _binary() -> list[Sample]:
    def pair(name: str) -> Sample:
        x = distinct(4, 3)
        return Sample(name, (x[:3], x[3]), torch=name)

    return [
        *(pair(name) for name in ("add", "sub", "mul", "maximum", "minimum")),
        Sample("div", (normal(3, 1), between(0.5, 2, 4)), torch="div"),
        Sample("mod", (np.array([3.3, -3.3, 7.1]), np.array([[1.5], [-2.0]])), torch="remainder"),
        Sample("pow", (between(0.2, 3, 2, 3), normal(3)), torch="pow"),
        Sample("pow", (np.array([-1.5, 0.5, 2.0]), np.array([2, 3, -2], np.int32)), torch="pow"),
        Sample("atan2", (distinct(2, 3), distinct(3)), torch="atan2"),
        Sample("where", (np.array([[True], [False]]), normal(2, 3), normal(3)), torch="where"),
    ]


def _views() -> list[Sample]:
    x = normal(2, 3, 4)
    bounds = {"start": (1, 2, 0), "stop": (2, -1, 4), "step": (1, -2, 3)}
    return [
        Sample("identity", (x,)),
        Sample("later", (x,)),
        Sample("cast", (x,), {"dtype": dtypes.f64}),
        Sample("reshape", (x,), {"shape": (4, 6)}, "reshape"),
        Sample("permute", (x,), {"axes": (2, 0, 1)}, lambda t, a, axes: a.permute(axes)),
        Sample("broadcast_to", (normal(3, 1),), {"shape": (2, 3, 4)}, lambda t, a, shape: a.expand(shape)),
        Sample("slice", (x,), bounds, lambda t, a, **_: t.flip(a[1:2, :, ::3], (1,))[:, ::2]),
        Sample("slice", (normal(5),), {"start": (4,), "stop": (0,), "step": (-3,)}),
        Sample("slice", (normal(5),), {"start": (1,), "stop": (1,), "step": (1,)}),
        Sample("slice", (normal(5),), {"start": (3,), "stop": (3,), "step": (-2,)}),
        Sample("pad", (normal(2, 3),), {"low": (1, 0), "high": (0, 2), "step": (3, 1), "value": 0.5}),
        Sample("concat", (normal(2, 3), normal(2, 1), normal(2, 2)), {"axis": 1}, lambda t, *xs, axis: t.cat(xs, axis)),
    ]


def _reductions() -> list[Sample]:
    one_zero, two_zeros = between(0.5, 2, 3, 4), between(0.5, 2, 3, 4)
    one_zero[1, 2] = two_zeros[0, 1] = two_zeros[0, 3] = two_zeros[2, 1] = 0
    over = {"axes": (0, 2)}
    return [
        Sample("sum", (normal(2, 3, 4),), over, lambda t, a, axes: a.sum(axes)),
        Sample("sum", (normal(2, 3),), {"axes": (1,), "keepdims": True}),
        Sample("mean", (normal(2, 3, 4),), over, lambda t, a, axes: a.mean(axes)),
        Sample("max", (distinct(2, 3, 4),), over, lambda t, a, axes: a.amax(axes)),
        Sample("min", (distinct(2, 3),), {"axes": (1,), "keepdims": True}, lambda t, a, **_: a.amin(1, True)),
        Sample("prod", (between(0.5, 2, 3, 4),), {"axes": (0,)}, lambda t, a, axes: a.prod(0)),
        Sample("prod", (one_zero,), {"axes": (0, 1)}, lambda t, a, axes: a.prod()),
        Sample("prod", (two_zeros,), {"axes": (1,), "keepdims": True}),
    ]


def _products() -> list[Sample]:
    conv = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}
    x, w, dy = normal(2, 4, 5, 6), normal(6, 2, 3, 2), normal(2, 6, 3, 8)
    return [
        Sample("matmul", (normal(2, 3), normal(3, 4)), torch="matmul"),
        Sample("matmul", (normal(2, 1, 2, 3), normal(3, 3, 2)), torch="matmul"),
        Sample("conv2d", (normal(2, 1, 4, 4), normal(2, 1, 3, 3)), torch="nn.functional.conv2d"),
        Sample("conv2d", (x, w), conv, "nn.functional.conv2d"),
        Sample("conv2d_input_grad", (dy, w), {"input_size": (5, 6), **conv}),
        Sample("conv2d_weight_grad", (x, dy), {"kernel_size": (3, 2), **conv}),
    ]


def _pools() -> list[Sample]:
    window = {"kernel": (2, 3), "stride": (2, 2), "padding": (1, 1), "dilation": (1, 1)}
    shape, pooled, position = (2, 2, 5, 6), (2, 2, 3, 3), integers(2, 2, 2, 3, 3, dtype="uint8") + np.uint8(4)

    def torch_pool(t: Any, x: Any, kernel: Any, **attrs: Any) -> Any:
        return t.nn.functional.max_pool2d(x, kernel, **attrs)

    return [
        Sample("max_pool2d", (distinct(1, 2, 4, 4),), {"kernel": (2, 2), "stride": (2, 2)}, torch_pool),
        Sample("max_pool2d", (distinct(*shape),), {**window, "ceil_mode": True}, torch_pool),
        Sample("max_pool2d_grad", (normal(*pooled), position), {"input_size": shape[2:], **window}),
        Sample("max_pool2d_gather", (normal(*shape), position), window),
    ]


def _losses() -> list[Sample]:
    f = "nn.functional."

    def along(name: str) -> Callable[..., Any]:
        return lambda t, x, axis, **kw: getattr(t, name)(x, axis, **kw)

    def entropy(t: Any, x: Any, target: Any, reduction: str) -> Any:
        return t.nn.functional.cross_entropy(x, target, reduction=reduction)

    logits = ((normal(3, 4), integers(4, 3)), (normal(2, 3, 4), integers(3, 2, 4)), (normal(4), integers(4)))
    return [
        Sample("softmax", (normal(2, 4),), {"axis": 1}, along("softmax")),
        Sample("log_softmax", (normal(4, 2),), {"axis": 0}, along("log_softmax")),
        Sample("logsumexp", (normal(2, 4),), {"axis": 1}, along("logsumexp")),
        Sample("logsumexp", (normal(2, 4),), {"axis": 0, "keepdims": True}),
        *(Sample("cross_entropy", a, {"reduction": r}, entropy) for a in logits for r in ("mean", "sum", "none")),
        *(Sample("mse_loss", (normal(2, 3), normal(2, 3)), {"reduction": r}, f + "mse_loss") for r in ("mean", "none")),
        Sample("mse_loss", (normal(2, 3), normal(3)), {"reduction": "sum"}),
    ]


_AREAS = (
    activations,
    attention,
    conditional,
    convolution,
    ctc,
    indexing,
    losses,
    normalization,
    ordering,
    recurrent,
    shaping,
)

SAMPLES = (
    *(*_unary(), *_binary(), *_views(), *_reductions(), *_products(), *_pools(), *_losses()),
    *(sample for area in _AREAS for sample in area.SAMPLES),
)
