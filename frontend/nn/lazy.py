"""Layers that learn their input size from the first call, as Keras's all do."""

from __future__ import annotations

import inspect
from typing import Any

from engine.errors import ShapeError
from frontend.nn import convolution, linear, normalization
from frontend.nn.module import Module
from frontend.nn.parameter import UninitializedParameter
from frontend.sizes import plain_shape
from frontend.tensor import Tensor, as_tensor

__all__ = [
    "LazyBatchNorm1d", "LazyBatchNorm2d", "LazyBatchNorm3d", "LazyConv1d", "LazyConv2d", "LazyConv3d",
    "LazyConvTranspose1d", "LazyConvTranspose2d", "LazyConvTranspose3d", "LazyInstanceNorm1d", "LazyInstanceNorm2d",
    "LazyInstanceNorm3d", "LazyLinear",
]  # fmt: skip


class LazyModule(Module):
    """A layer of the class ``becomes``, made without its first argument: the size of the input's ``axis`` gives it at
    the first call, and the layer is then one of that class. Its parameters may be given to an optimizer before."""

    becomes: type[Module]
    axis: int

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()
        self._given = (args, kwargs)
        options = inspect.signature(self.becomes).bind(0, *args, **kwargs)
        options.apply_defaults()
        chosen = options.arguments
        for name in ("weight", "bias"):
            there = chosen.get("affine", True) and chosen.get(name, True)
            parameter = UninitializedParameter(dtype=chosen["dtype"]) if there else None
            self.register_parameter(name, parameter)

    def initialize_parameters(self, input: Tensor) -> None:
        """Become the layer that takes ``input``. Raises ShapeError where its size is symbolic."""
        shape = plain_shape(as_tensor(input).shape)
        size = shape[self.axis] if -len(shape) <= self.axis < len(shape) else None
        if not isinstance(size, int):
            raise ShapeError(
                f"{type(self).__name__} takes its size from axis {self.axis} of the first input, which is {size} in "
                f"shape {shape}; it must be an integer in the spec"
            )
        args, kwargs = self._given
        placeholders, training = dict(self._parameters), self.training
        hooks = {name: self.__dict__[name] for name in ("_forward_hooks", "_forward_pre_hooks")}
        del self._given
        becomes: Any = self.becomes
        self.__class__ = becomes
        becomes.__init__(self, size, *args, **kwargs)
        self.training = training
        self.__dict__.update(hooks)  # the same ones, so that their handles can remove them
        for name, placeholder in placeholders.items():
            if isinstance(placeholder, UninitializedParameter):
                placeholder.become(self._parameters[name])  # type: ignore[arg-type]
                self._parameters[name] = placeholder

    def __call__(self, input: Any, *args: Any, **kwargs: Any) -> Any:
        self.initialize_parameters(input)
        return self(input, *args, **kwargs)

    def extra_repr(self) -> str:
        args, kwargs = self._given
        return ", ".join([*map(repr, args), *(f"{k}={v!r}" for k, v in kwargs.items())])


class LazyLinear(LazyModule):
    """Linear(in_features, ...), in_features being the size of the input's last axis.

    PyTorch: torch.nn.LazyLinear.
    """

    becomes, axis = linear.Linear, -1


class LazyConv1d(LazyModule):
    """Conv1d(in_channels, ...).

    PyTorch: torch.nn.LazyConv1d.
    """

    becomes, axis = convolution.Conv1d, -2


class LazyConv2d(LazyModule):
    """Conv2d(in_channels, ...).

    PyTorch: torch.nn.LazyConv2d.
    """

    becomes, axis = convolution.Conv2d, -3


class LazyConv3d(LazyModule):
    """Conv3d(in_channels, ...).

    PyTorch: torch.nn.LazyConv3d.
    """

    becomes, axis = convolution.Conv3d, -4


class LazyConvTranspose1d(LazyModule):
    """ConvTranspose1d(in_channels, ...).

    PyTorch: torch.nn.LazyConvTranspose1d.
    """

    becomes, axis = convolution.ConvTranspose1d, -2


class LazyConvTranspose2d(LazyModule):
    """ConvTranspose2d(in_channels, ...).

    PyTorch: torch.nn.LazyConvTranspose2d.
    """

    becomes, axis = convolution.ConvTranspose2d, -3


class LazyConvTranspose3d(LazyModule):
    """ConvTranspose3d(in_channels, ...).

    PyTorch: torch.nn.LazyConvTranspose3d.
    """

    becomes, axis = convolution.ConvTranspose3d, -4


class LazyBatchNorm1d(LazyModule):
    """BatchNorm1d(num_features, ...).

    PyTorch: torch.nn.LazyBatchNorm1d.
    """

    becomes, axis = normalization.BatchNorm1d, 1


class LazyBatchNorm2d(LazyModule):
    """BatchNorm2d(num_features, ...).

    PyTorch: torch.nn.LazyBatchNorm2d.
    """

    becomes, axis = normalization.BatchNorm2d, 1


class LazyBatchNorm3d(LazyModule):
    """BatchNorm3d(num_features, ...).

    PyTorch: torch.nn.LazyBatchNorm3d.
    """

    becomes, axis = normalization.BatchNorm3d, 1


class LazyInstanceNorm1d(LazyModule):
    """InstanceNorm1d(num_features, ...).

    PyTorch: torch.nn.LazyInstanceNorm1d.
    """

    becomes, axis = normalization.InstanceNorm1d, 1


class LazyInstanceNorm2d(LazyModule):
    """InstanceNorm2d(num_features, ...).

    PyTorch: torch.nn.LazyInstanceNorm2d.
    """

    becomes, axis = normalization.InstanceNorm2d, 1


class LazyInstanceNorm3d(LazyModule):
    """InstanceNorm3d(num_features, ...).

    PyTorch: torch.nn.LazyInstanceNorm3d.
    """

    becomes, axis = normalization.InstanceNorm3d, 1
