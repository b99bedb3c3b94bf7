"""Normalisation: batch, layer, group, instance, root mean square and local response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.dims import product, shape_text
from engine.errors import ShapeError, TenonError
from frontend import reducing
from frontend.dispatch import call
from frontend.functional.padding import pad
from frontend.sizes import SizeLike, as_size, plain, plain_shape
from frontend.tensor import Tensor, as_tensor

if TYPE_CHECKING:
    from frontend.nn.parameter import Buffer

__all__ = [
    "batch_norm", "cosine_similarity", "group_norm", "instance_norm", "layer_norm", "local_response_norm", "normalize",
    "pairwise_distance", "rms_norm",
]  # fmt: skip

Dims = tuple[int, ...]


def _moments(x: Tensor, axes: Dims) -> tuple[Tensor, Tensor]:
    """Mean and biased variance with their axes kept."""
    mean, variance = call("moments", x, axes=axes)
    return mean, variance


def _scaled(x: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
    return call("standardise", x, mean, call("rsqrt", variance + eps))


def _scaled_by_channel(
    x: Tensor, mean: Tensor, variance: Tensor, eps: float, weight: Tensor | None, bias: Tensor | None
) -> Tensor:
    """A norm whose statistics are numbers of channels, as its weight is: one factor holds both."""
    shape = _per_channel(x)
    scale = _affine(call("rsqrt", variance + eps), weight, None, shape)
    return _affine(call("standardise", x, mean, scale), None, bias, shape)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: Sequence[SizeLike] | None = None) -> Tensor:
    for parameter, op in ((weight, "mul"), (bias, "add")):
        if parameter is not None:
            fitting = as_tensor(parameter)
            x = call(op, x, fitting if shape is None else fitting.reshape(*shape))
    return x


def _per_channel(x: Tensor) -> tuple[int, ...]:
    """The shape in which one number a channel (axis 1) broadcasts to ``x``."""
    return (-1, *(1,) * (x.ndim - 2))


def batch_norm(
    input: Tensor,
    running_mean: Buffer | Tensor | None,
    running_var: Buffer | Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``(x - mean) / sqrt(variance + eps) * weight + bias`` for each channel (axis 1) of (N, C, ...): Ioffe and Szegedy
    (2015), "Batch normalization".

    While training mean and variance are those of the batch, and running ones that are Buffers move towards them by
    ``momentum`` (the variance as n / (n - 1) of the batch's); else they are the running ones.

    PyTorch: torch.nn.functional.batch_norm.
    """
    from frontend.nn.parameter import Buffer

    x = as_tensor(input)
    if x.ndim < 2:
        raise ShapeError(f"batch_norm takes (N, C, ...), not shape {shape_text(plain_shape(x.shape))}")
    shape = _per_channel(x)
    if not training:
        if running_mean is None or running_var is None:
            raise TenonError("batch_norm needs running_mean and running_var when it is not training")
        mean, variance = (as_tensor(v).reshape(*shape) for v in (running_mean, running_var))
        return _scaled_by_channel(x, mean, variance, eps, weight, bias)
    axes = (0, *range(2, x.ndim))
    mean, variance = _moments(x, axes)
    count = product(plain(x.shape[a]) for a in axes)
    if count == 1:
        raise ShapeError(f"batch_norm: one value a channel in shape {shape_text(plain_shape(x.shape))} has no variance")
    unbiased = variance * as_size(count) / as_size(count - 1)
    for running, batch in ((running_mean, mean), (running_var, unbiased)):
        if isinstance(running, Buffer):
            running.assign((running + momentum * (batch.reshape(-1).detach() - running)).to(running.dtype))
    return _scaled_by_channel(x, mean, variance, eps, weight, bias)


def instance_norm(
    input: Tensor,
    running_mean: Buffer | Tensor | None = None,
    running_var: Buffer | Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As batch_norm, with mean and variance of each example on its own: Ulyanov et al. (2016), "Instance
    normalization".

    PyTorch: torch.nn.functional.instance_norm.
    """
    from frontend.nn.parameter import Buffer

    x = as_tensor(input)
    if not use_input_stats:
        return batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    if x.ndim < 3:
        raise ShapeError(f"instance_norm takes (N, C, ...), not shape {shape_text(plain_shape(x.shape))}")
    axes = tuple(range(2, x.ndim))
    mean, variance = _moments(x, axes)
    count = product(plain(x.shape[a]) for a in axes)
    if count == 1:
        raise ShapeError(f"instance_norm: one value a channel in {shape_text(plain_shape(x.shape))} has no variance")
    unbiased = variance * as_size(count) / as_size(count - 1)
    for running, each in ((running_mean, mean), (running_var, unbiased)):
        if isinstance(running, Buffer):
            over = reducing.mean(each.reshape(each.shape[0], each.shape[1]).detach(), 0)
            running.assign((running + momentum * (over - running)).to(running.dtype))
    return _affine(_scaled(x, mean, variance, eps), weight, bias, _per_channel(x))


def _last(input: Tensor, normalized_shape: Sequence[SizeLike], op: str) -> tuple[Tensor, Dims]:
    x, shape = as_tensor(input), plain_shape(tuple(normalized_shape))
    own = plain_shape(x.shape)
    if not shape or own[len(own) - len(shape) :] != shape:
        raise ShapeError(f"{op}: the last axes of {shape_text(own)} are not {shape_text(shape)}")
    return x, tuple(range(x.ndim - len(shape), x.ndim))


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[SizeLike],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """``(x - mean) / sqrt(variance + eps) * weight + bias`` over the last axes, which have ``normalized_shape``: Ba et
    al. (2016), "Layer normalization".

    PyTorch: torch.nn.functional.layer_norm.
    """
    x, axes = _last(input, normalized_shape, "layer_norm")
    return _affine(_scaled(x, *_moments(x, axes), eps), weight, bias)


def rms_norm(
    input: Tensor, normalized_shape: Sequence[SizeLike], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """``x / sqrt(mean(x * x) + eps) * weight`` over the last axes: Zhang and Sennrich (2019), "Root mean square layer
    normalization". ``eps`` is the dtype's rounding unit unless given.

    PyTorch: torch.nn.functional.rms_norm.
    """
    import numpy as np

    x, axes = _last(input, normalized_shape, "rms_norm")
    small = float(np.finfo(x.dtype.numpy).eps) if eps is None else eps
    return _affine(x * call("rsqrt", reducing.mean(call("square", x), axes, keepdim=True) + small), weight, None)


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Mean and variance over each of ``num_groups`` groups of channels (axis 1) of each example: Wu and He (2018),
    "Group normalization".

    PyTorch: torch.nn.functional.group_norm.
    """
    x = as_tensor(input)
    channels = x.shape[1] if x.ndim > 1 else 0
    if not isinstance(channels, int) or num_groups < 1 or channels % num_groups or x.ndim < 2:
        raise ShapeError(f"group_norm: {channels} channels do not split into {num_groups} groups")
    grouped = x.reshape(x.shape[0], num_groups, channels // num_groups, *x.shape[2:])
    axes = tuple(range(2, grouped.ndim))
    even = _scaled(grouped, *_moments(grouped, axes), eps).reshape(x.shape)
    return _affine(even, weight, bias, _per_channel(x))


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """``x / (k + alpha * mean of squares over size neighbouring channels) ** beta``: Krizhevsky et al. (2012).

    PyTorch: torch.nn.functional.local_response_norm.
    """
    x = as_tensor(input)
    if x.ndim < 3:
        raise ShapeError(f"local_response_norm takes (N, C, ...), not shape {shape_text(plain_shape(x.shape))}")
    around = pad(call("square", x), (*(0, 0) * (x.ndim - 2), size // 2, (size - 1) // 2))
    near = call("window", around, axis=1, size=size)
    return x / (reducing.sum(near, -1) * (alpha / size) + k) ** beta


def normalize(input: Tensor, p: float = 2.0, dim: int | Sequence[int] = 1, eps: float = 1e-12) -> Tensor:
    """x divided by its p-norm along ``dim``, which counts as ``eps`` at least.

    PyTorch: torch.nn.functional.normalize.
    """
    x = as_tensor(input)
    size = reducing.norm(x, p, dim, keepdim=True)
    return x / call("where", size < eps, eps, size)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between two vectors along ``dim``; norms count as ``eps`` at least.

    PyTorch: torch.nn.functional.cosine_similarity.
    """
    a, b = as_tensor(x1), as_tensor(x2)
    sizes = [reducing.norm(x, 2, dim, keepdim=True) for x in (a, b)]
    safe = [call("where", size < eps, eps, size) for size in sizes]
    return reducing.sum((a / safe[0]) * (b / safe[1]), dim)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The p-norm of ``x1 - x2 + eps`` along the last axis.

    PyTorch: torch.nn.functional.pairwise_distance.
    """
    return reducing.norm(as_tensor(x1) - x2 + eps, p, -1, keepdim)
