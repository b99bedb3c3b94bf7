"""Convolutional layers."""

from __future__ import annotations

from engine.errors import TenonError
from frontend import functional as F
from frontend.nn.init_parameters import fill_as_pytorch, new_parameter
from frontend.nn.module import Module
from frontend.nn.parameter import Parameter
from frontend.sizes import pair_of
from frontend.tensor import Tensor

Pair = int | tuple[int, int]

__all__ = ["Conv2d"]


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
        self.weight = new_parameter((out_channels, in_channels // groups, *self.kernel_size), dtype)
        self.register_parameter("bias", new_parameter((out_channels,), dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        fill_as_pytorch(self.weight, self.bias)

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
