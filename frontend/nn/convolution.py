"""Convolutional layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from engine.errors import ShapeError, TenonError
from frontend import functional as F
from frontend.functional.spatial import Numbers, numbers
from frontend.nn.init_parameters import fill_as_pytorch, new_parameter
from frontend.nn.module import Module
from frontend.nn.parameter import Parameter
from frontend.tensor import Tensor

__all__ = [
    "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Fold", "Unfold",
]  # fmt: skip

TAPS_OUTSIDE = (2, 3, 1, 0)
"""The order in which kernels read the weights of a window: tap by tap, with output channels side by side. Of an image
that is a single pixel they read one tap, a ninth of the memory, and what training changes there is changed in place."""
FEW_CHANNELS = 16
"""With fewer channels weights are few, and lie as they are counted."""

_MODES = ("zeros", "reflect", "replicate", "circular")


class _Convolution(Module):
    """What all of them keep: their options, a weight and perhaps a bias."""

    rank: int
    weight: Parameter
    bias: Parameter | None

    def _set_up(
        self,
        channels: tuple[int, int],
        kernel_size: Numbers,
        stride: Numbers,
        padding: Numbers | str,
        dilation: Numbers,
        groups: int,
        padding_mode: str,
    ) -> None:
        name, rank = type(self).__name__, self.rank
        if groups < 1 or any(c % groups for c in channels):
            raise TenonError(f"{name}: {channels[0]} and {channels[1]} channels do not split into {groups} groups")
        if padding_mode not in _MODES:
            raise TenonError(f"{name}: padding_mode must be one of {', '.join(_MODES)}, not {padding_mode!r}")
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise TenonError(f'{name}: padding must be numbers, "same" or "valid", not {padding!r}')
        self.in_channels, self.out_channels = channels
        self.kernel_size = numbers(kernel_size, rank, "kernel_size")
        self.stride = numbers(stride, rank, "stride")
        self.padding = padding if isinstance(padding, str) else numbers(padding, rank, "padding")
        self.dilation = numbers(dilation, rank, "dilation")
        self.groups = groups
        self.padding_mode = padding_mode
        if padding == "same" and set(self.stride) != {1}:
            raise TenonError(f'{name}: padding="same" needs a stride of 1, not {self.stride}')

    def _register(self, shape: tuple[int, ...], bias: bool, dtype: object) -> None:
        self.weight = new_parameter((*shape, *self.kernel_size), dtype, self._order(shape))
        self.register_parameter("bias", new_parameter((self.out_channels,), dtype) if bias else None)
        self.reset_parameters()

    def _order(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """How the axes of a weight of that many channels lie in memory."""
        return None

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        fill_as_pytorch(self.weight, self.bias)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        for name, usual in (("padding", 0), ("dilation", 1), ("output_padding", 0)):
            value = getattr(self, name, None)
            if value is not None and value != (usual,) * self.rank:
                text += f", {name}={value}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        return text if self.padding_mode == "zeros" else f"{text}, padding_mode={self.padding_mode}"


class _Conv(_Convolution):
    function: Callable[..., Tensor]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Numbers,
        stride: Numbers = 1,
        padding: Numbers | str = 0,
        dilation: Numbers = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        dtype: object = None,
    ):
        super().__init__()
        self._set_up((in_channels, out_channels), kernel_size, stride, padding, dilation, groups, padding_mode)
        self._register((out_channels, in_channels // groups), bias, dtype)

    def forward(self, input: Tensor) -> Tensor:
        x: Tensor = input
        padding: Numbers | str = self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(input, self._around(), self.padding_mode), 0
        return type(self).function(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _around(self) -> list[int]:
        """The padding as :func:`F.pad` takes it."""
        if self.padding == "valid":
            return [0, 0] * self.rank
        if self.padding == "same":
            total = [d * (k - 1) for k, d in zip(self.kernel_size, self.dilation, strict=True)]
            sides = [(t // 2, t - t // 2) for t in total]
        else:
            sides = [(p, p) for p in self.padding]  # type: ignore[misc]
        return [n for side in reversed(sides) for n in side]


class Conv1d(_Conv):
    """Convolution of (N, in_channels, L); ``weight`` is (out_channels, in_channels / groups, K). See
    :func:`F.conv1d`.

    PyTorch: torch.nn.Conv1d.
    """

    rank, function = 1, staticmethod(F.conv1d)


class Conv2d(_Conv):
    """Convolution of (N, in_channels, H, W); ``weight`` is (out_channels, in_channels / groups, KH, KW). See
    :func:`F.conv2d`.

    ``padding_mode`` says what is put around the input: zeros, or as :func:`F.pad` "reflect", "replicate", "circular".

    PyTorch: torch.nn.Conv2d.
    """

    rank, function = 2, staticmethod(F.conv2d)

    def _order(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        outputs, inputs = shape
        worth_it = self.groups == 1 and math.prod(self.kernel_size) > 1 and min(outputs, inputs) >= FEW_CHANNELS
        return TAPS_OUTSIDE if worth_it else None


class Conv3d(_Conv):
    """Convolution of (N, in_channels, D, H, W); ``weight`` is (out_channels, in_channels / groups, KD, KH, KW). See
    :func:`F.conv3d`.

    PyTorch: torch.nn.Conv3d.
    """

    rank, function = 3, staticmethod(F.conv3d)


class _ConvTranspose(_Convolution):
    function: Callable[..., Tensor]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Numbers,
        stride: Numbers = 1,
        padding: Numbers = 0,
        output_padding: Numbers = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Numbers = 1,
        padding_mode: str = "zeros",
        dtype: object = None,
    ):
        super().__init__()
        name = type(self).__name__
        if padding_mode != "zeros":
            raise TenonError(f"{name}: padding_mode must be zeros, not {padding_mode!r}")
        if isinstance(padding, str):
            raise TenonError(f"{name}: padding must be numbers, not {padding!r}")
        self._set_up((in_channels, out_channels), kernel_size, stride, padding, dilation, groups, padding_mode)
        self.output_padding = numbers(output_padding, self.rank, "output_padding")
        self._register((in_channels, out_channels // groups), bias, dtype)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        more = self.output_padding if output_size is None else self._more(input, tuple(output_size))
        return type(self).function(
            input, self.weight, self.bias, self.stride, self.padding, more, self.groups, self.dilation
        )

    def _more(self, input: Tensor, size: tuple[int, ...]) -> tuple[int, ...]:
        """The output padding that gives ``size``. Raises ShapeError."""
        wanted = size[-self.rank :]
        options: Any = zip(
            input.shape[-self.rank :], self.kernel_size, self.stride, self.padding, self.dilation, strict=True
        )
        least = tuple((n - 1) * s - 2 * p + d * (k - 1) + 1 for n, k, s, p, d in options)
        known = len(wanted) == self.rank and all(isinstance(n, int) for n in least)
        more = tuple(a - b for a, b in zip(wanted, least, strict=False))
        if not known or len(size) not in (self.rank, self.rank + 2) or any(
            not 0 <= m < s for m, s in zip(more, self.stride, strict=True)
        ):  # fmt: skip
            most = tuple(n + s - 1 for n, s in zip(least, self.stride, strict=True))
            raise ShapeError(f"{type(self).__name__}: output_size must lie between {least} and {most}, not {size}")
        return more


class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution of (N, in_channels, L); ``weight`` is (in_channels, out_channels / groups, K). See
    :func:`F.conv_transpose1d`.

    PyTorch: torch.nn.ConvTranspose1d.
    """

    rank, function = 1, staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution of (N, in_channels, H, W); ``weight`` is (in_channels, out_channels / groups, KH, KW). See
    :func:`F.conv_transpose2d`. Called with an ``output_size`` it chooses the output padding that gives it.

    PyTorch: torch.nn.ConvTranspose2d.
    """

    rank, function = 2, staticmethod(F.conv_transpose2d)


class ConvTranspose3d(_ConvTranspose):
    """Transposed convolution of (N, in_channels, D, H, W); ``weight`` is (in_channels, out_channels / groups, KD, KH,
    KW). See :func:`F.conv_transpose3d`.

    PyTorch: torch.nn.ConvTranspose3d.
    """

    rank, function = 3, staticmethod(F.conv_transpose3d)


class Unfold(Module):
    """Images as columns of patches; see :func:`F.unfold`.

    PyTorch: torch.nn.Unfold.
    """

    def __init__(self, kernel_size: Numbers, dilation: Numbers = 1, padding: Numbers = 0, stride: Numbers = 1):
        super().__init__()
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def forward(self, input: Tensor) -> Tensor:
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, stride={self.stride}"


class Fold(Module):
    """Columns of patches as images; see :func:`F.fold`.

    PyTorch: torch.nn.Fold.
    """

    def __init__(
        self,
        output_size: Numbers,
        kernel_size: Numbers,
        dilation: Numbers = 1,
        padding: Numbers = 0,
        stride: Numbers = 1,
    ):
        super().__init__()
        self.output_size, self.kernel_size = output_size, kernel_size
        self.dilation, self.padding, self.stride = dilation, padding, stride

    def forward(self, input: Tensor) -> Tensor:
        return F.fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, kernel_size={self.kernel_size}, dilation={self.dilation}, "
            f"padding={self.padding}, stride={self.stride}"
        )
