"""Padding as modules."""

from __future__ import annotations

from engine.errors import ShapeError
from frontend import functional as F
from frontend.functional.spatial import AXES, Numbers
from frontend.nn.module import Module
from frontend.tensor import Tensor

__all__ = [
    "CircularPad1d", "CircularPad2d", "CircularPad3d", "ConstantPad1d", "ConstantPad2d", "ConstantPad3d",
    "ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d", "ReplicationPad1d", "ReplicationPad2d",
    "ReplicationPad3d", "ZeroPad1d", "ZeroPad2d", "ZeroPad3d",
]  # fmt: skip


class _Pad(Module):
    rank: int
    mode: str

    def __init__(self, padding: Numbers):
        super().__init__()
        each = (padding,) * (2 * self.rank) if isinstance(padding, int) else tuple(padding)
        if len(each) != 2 * self.rank:
            raise ShapeError(
                f"{type(self).__name__}: padding must be an integer or {2 * self.rank} of them, not {padding!r}"
            )
        self.padding = each

    def forward(self, input: Tensor) -> Tensor:
        if self.mode != "constant" and input.ndim not in (self.rank + 1, self.rank + 2):
            axes = AXES[self.rank]
            raise ShapeError(f"{type(self).__name__} takes (N, C, {axes}) or (C, {axes}), not {tuple(input.shape)}")
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    mode = "constant"

    def __init__(self, padding: Numbers, value: float):
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class _ZeroPad(_ConstantPad):
    def __init__(self, padding: Numbers):
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ConstantPad1d(_ConstantPad):
    """``value`` before and after the last axis; ``padding`` is a number or (left, right).

    PyTorch: torch.nn.ConstantPad1d.
    """

    rank = 1


class ConstantPad2d(_ConstantPad):
    """``value`` around the last two axes; ``padding`` is a number or (left, right, top, bottom).

    PyTorch: torch.nn.ConstantPad2d.
    """

    rank = 2


class ConstantPad3d(_ConstantPad):
    """``value`` around the last three axes; ``padding`` is a number or (left, right, top, bottom, front, back).

    PyTorch: torch.nn.ConstantPad3d.
    """

    rank = 3


class ZeroPad1d(_ZeroPad):
    """Zeros before and after the last axis.

    PyTorch: torch.nn.ZeroPad1d.
    """

    rank = 1


class ZeroPad2d(_ZeroPad):
    """Zeros around the last two axes.

    PyTorch: torch.nn.ZeroPad2d.
    """

    rank = 2


class ZeroPad3d(_ZeroPad):
    """Zeros around the last three axes.

    PyTorch: torch.nn.ZeroPad3d.
    """

    rank = 3


class ReflectionPad1d(_Pad):
    """A signal mirrored at its first and last element; see :func:`F.pad`.

    PyTorch: torch.nn.ReflectionPad1d.
    """

    rank, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """An image mirrored at its first and last rows and columns.

    PyTorch: torch.nn.ReflectionPad2d.
    """

    rank, mode = 2, "reflect"


class ReflectionPad3d(_Pad):
    """A volume mirrored at its first and last planes.

    PyTorch: torch.nn.ReflectionPad3d.
    """

    rank, mode = 3, "reflect"


class ReplicationPad1d(_Pad):
    """A signal with its first and last element repeated.

    PyTorch: torch.nn.ReplicationPad1d.
    """

    rank, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """An image with its first and last rows and columns repeated.

    PyTorch: torch.nn.ReplicationPad2d.
    """

    rank, mode = 2, "replicate"


class ReplicationPad3d(_Pad):
    """A volume with its first and last planes repeated.

    PyTorch: torch.nn.ReplicationPad3d.
    """

    rank, mode = 3, "replicate"


class CircularPad1d(_Pad):
    """A signal that goes on at its other end.

    PyTorch: torch.nn.CircularPad1d.
    """

    rank, mode = 1, "circular"


class CircularPad2d(_Pad):
    """An image that goes on at its other side.

    PyTorch: torch.nn.CircularPad2d.
    """

    rank, mode = 2, "circular"


class CircularPad3d(_Pad):
    """A volume that goes on at its other side.

    PyTorch: torch.nn.CircularPad3d.
    """

    rank, mode = 3, "circular"
