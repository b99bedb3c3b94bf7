"""Normalisation layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine import dtypes
from engine.dtypes import as_dtype
from engine.errors import ShapeError, TenonError
from frontend import functional as F
from frontend.nn import init
from frontend.nn.init_parameters import new_parameter
from frontend.nn.module import Module
from frontend.tensor import Tensor

__all__ = [
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "CosineSimilarity", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d",
    "InstanceNorm3d", "LayerNorm", "LocalResponseNorm", "PairwiseDistance", "RMSNorm",
]  # fmt: skip


class _Affine(Module):
    """Layers with a weight that starts at one and a bias that starts at zero."""

    def _register(self, shape: tuple[int, ...], weight: bool, bias: bool, dtype: object) -> None:
        self.register_parameter("weight", new_parameter(shape, dtype) if weight else None)
        self.register_parameter("bias", new_parameter(shape, dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights to one and biases to zero."""
        for parameter, value in ((self.weight, 1.0), (self.bias, 0.0)):
            if parameter is not None:
                init.constant_(parameter, value)


class _Running(_Affine):
    """Layers that keep running means and variances of ``num_features`` channels."""

    ranks: tuple[int, ...]

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        dtype: object,
    ):
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        kind = dtypes.f32 if dtype is None else as_dtype(dtype)
        for name, value in (("running_mean", np.zeros), ("running_var", np.ones)):
            self.register_buffer(name, value(num_features, kind.numpy) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64) if track_running_stats else None)
        self._register((num_features,), affine, affine, dtype)

    def reset_running_stats(self) -> None:
        """Means to zero, variances to one, no batch counted."""
        if self.track_running_stats:
            self.running_mean.data = np.zeros_like(self.running_mean.numpy())
            self.running_var.data = np.ones_like(self.running_var.numpy())
            self.num_batches_tracked.data = np.zeros((), np.int64)

    def _check(self, input: Tensor) -> None:
        if input.ndim not in self.ranks:
            wanted = " or ".join(map(str, self.ranks))
            raise ShapeError(f"{type(self).__name__} takes a tensor of {wanted} axes, not shape {tuple(input.shape)}")

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_Running):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: object = None,
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype)

    def forward(self, input: Tensor) -> Tensor:
        self._check(input)
        momentum: Any = self.momentum
        if self.training and self.track_running_stats:
            self.num_batches_tracked.assign(self.num_batches_tracked + 1)
            if momentum is None:  # the mean of all batches so far
                momentum = 1.0 / self.num_batches_tracked.to(self.running_mean.dtype)
        training = self.training or not self.track_running_stats
        moving = 0.0 if momentum is None else momentum
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, training, moving, self.eps
        )


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L); see :func:`F.batch_norm`.

    PyTorch: torch.nn.BatchNorm1d. Differs: ``bias`` is not there: ``affine`` is for both.
    """

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of (N, C, H, W); see :func:`F.batch_norm`.

    PyTorch: torch.nn.BatchNorm2d. Differs: ``bias`` is not there: ``affine`` is for both.
    """

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch normalisation of (N, C, D, H, W); see :func:`F.batch_norm`.

    PyTorch: torch.nn.BatchNorm3d. Differs: ``bias`` is not there: ``affine`` is for both.
    """

    ranks = (5,)


class _InstanceNorm(_Running):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        dtype: object = None,
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype)

    def forward(self, input: Tensor) -> Tensor:
        self._check(input)
        single = input.ndim == self.ranks[0]
        x = input.unsqueeze(0) if single else input
        own = self.training or not self.track_running_stats
        out = F.instance_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, own, self.momentum or 0.0, self.eps
        )
        return out.squeeze(0) if single else out


class InstanceNorm1d(_InstanceNorm):
    """Normalisation of each example of (N, C, L), or of one (C, L).

    PyTorch: torch.nn.InstanceNorm1d. Differs: ``bias`` is not there: ``affine`` is for both.
    """

    ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Normalisation of each example of (N, C, H, W), or of one (C, H, W).

    PyTorch: torch.nn.InstanceNorm2d. Differs: ``bias`` is not there: ``affine`` is for both.
    """

    ranks = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """Normalisation of each example of (N, C, D, H, W), or of one (C, D, H, W).

    PyTorch: torch.nn.InstanceNorm3d. Differs: ``bias`` is not there: ``affine`` is for both.
    """

    ranks = (4, 5)


def _shape(normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    return (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)


class LayerNorm(_Affine):
    """Normalisation over the last axes, which have ``normalized_shape``.

    PyTorch: torch.nn.LayerNorm.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        dtype: object = None,
    ):
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self._register(self.normalized_shape, elementwise_affine, elementwise_affine and bias, dtype)

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class RMSNorm(_Affine):
    """Division by the root of the mean square over the last axes, which have ``normalized_shape``.

    PyTorch: torch.nn.RMSNorm.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        dtype: object = None,
    ):
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self._register(self.normalized_shape, elementwise_affine, False, dtype)
        del self._parameters["bias"]

    def reset_parameters(self) -> None:
        """Weights to one."""
        if self.weight is not None:
            init.constant_(self.weight, 1.0)

    def forward(self, input: Tensor) -> Tensor:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(_Affine):
    """Normalisation over each of ``num_groups`` groups of channels of each example.

    PyTorch: torch.nn.GroupNorm. Differs: ``bias`` is not there: ``affine`` is for both.
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, dtype: object = None
    ):
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise TenonError(f"GroupNorm: {num_channels} channels do not split into {num_groups} groups")
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        self._register((num_channels,), affine, affine, dtype)

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


class LocalResponseNorm(Module):
    """Division by a power of the mean square over ``size`` neighbouring channels.

    PyTorch: torch.nn.LocalResponseNorm.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class CosineSimilarity(Module):
    """The cosine of the angle between two vectors along ``dim``.

    PyTorch: torch.nn.CosineSimilarity.
    """

    def __init__(self, dim: int = 1, eps: float = 1e-8):
        super().__init__()
        self.dim, self.eps = dim, eps

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return F.cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(Module):
    """The p-norm of the difference along the last axis.

    PyTorch: torch.nn.PairwiseDistance.
    """

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False):
        super().__init__()
        self.norm, self.eps, self.keepdim = p, eps, keepdim

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return F.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)
