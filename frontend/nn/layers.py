"""Layers with PyTorch's arguments, defaults, initialisation and parameter names."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine import dtypes
from engine.dtypes import as_dtype
from engine.errors import TenonError
from frontend import functional as F
from frontend.nn import init
from frontend.nn.module import Module
from frontend.nn.parameter import Parameter
from frontend.sizes import pair_of
from frontend.tensor import Tensor

Pair = int | tuple[int, int]


def _weights(shape: tuple[int, ...], dtype: object) -> Parameter:
    kind = dtypes.f32 if dtype is None else as_dtype(dtype)
    return Parameter(np.empty(shape, kind.numpy), dtype=kind)


def _fill_as_pytorch(weight: Parameter, bias: Parameter | None) -> None:
    """Weights and bias uniform within 1 / sqrt(fan_in): what PyTorch's Linear and Conv2d start from."""
    init.kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        fan_in, _ = init.fan_in_and_fan_out(weight)
        bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
        init.uniform_(bias, -bound, bound)


class Linear(Module):
    """``x @ weight.T + bias`` for x of shape (..., in_features). ``weight`` is (out_features, in_features)."""

    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True, dtype: object = None):
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = _weights((out_features, in_features), dtype)
        self.register_parameter("bias", _weights((out_features,), dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        _fill_as_pytorch(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Conv2d(Module):
    """Two-dimensional convolution of (N, in_channels, H, W).

    ``weight`` is (out_channels, in_channels / groups, KH, KW).
    """

    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair | str = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        dtype: object = None,
    ):
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise TenonError(f"Conv2d: {in_channels} and {out_channels} channels do not split into {groups} groups")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = pair_of(kernel_size, "kernel_size")
        self.stride = pair_of(stride, "stride")
        self.padding = padding if isinstance(padding, str) else pair_of(padding, "padding")
        self.dilation = pair_of(dilation, "dilation")
        self.groups = groups
        self.weight = _weights((out_channels, in_channels // groups, *self.kernel_size), dtype)
        self.register_parameter("bias", _weights((out_channels,), dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        _fill_as_pytorch(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0, 0):
            text += f", padding={self.padding}"
        if self.dilation != (1, 1):
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        return text if self.bias is not None else f"{text}, bias=False"


class MaxPool2d(Module):
    """The maximum of each window. The stride is the window's size unless given."""

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        dilation: Pair = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ):
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Any:
        return F.max_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class ReLU(Module):
    """max(x, 0)."""

    def __init__(self, inplace: bool = False):
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class Softmax(Module):
    """exp(x) / sum of exp(x) along ``dim``."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Softmax):
    """The logarithm of softmax along ``dim``."""

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim)


class Dropout(Module):
    """While training each element is zero with probability ``p`` and the others are divided by 1 - p."""

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        if not 0 <= p <= 1:
            raise TenonError(f"Dropout: p must lie between 0 and 1, not {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Flatten(Module):
    """The axes ``start_dim`` to ``end_dim`` as one; the first, the batch, stays by default."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        return F.flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Identity(Module):
    """What comes in. Any arguments are taken and ignored, so that it can stand for another layer."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        return input
