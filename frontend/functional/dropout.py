"""Dropout: elements, or whole channels, set to zero by chance while training.

The draws depend on the seed, the call and the element's index alone: they are the same at every optimisation level and
thread count. ``inplace`` changes nothing.
"""

from __future__ import annotations

from engine import dtypes
from engine.errors import ShapeError, TenonError
from frontend import drawing
from frontend.dispatch import call
from frontend.tensor import Tensor, as_tensor

__all__ = ["alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"]


def _check(name: str, p: float) -> None:
    if not 0 <= p <= 1:
        raise TenonError(f"{name}: p must lie between 0 and 1, not {p}")


def _kept(x: Tensor, p: float, channels: bool) -> Tensor:
    """What stays, each element or channel by its own draw."""
    shape = (*x.shape[:2], *(1,) * (x.ndim - 2)) if channels else x.shape
    return drawing.rand(shape, dtype=dtypes.f64 if x.dtype == dtypes.f64 else dtypes.f32) >= p


def _dropped(name: str, input: Tensor, p: float, training: bool, channels: bool = False) -> Tensor:
    _check(name, p)
    x = as_tensor(input)
    if not training or p == 0:
        return x
    if p == 1:
        return x * 0
    return x * (_kept(x, p, channels).to(x.dtype) * (1 / (1 - p)))


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Each element zero with probability ``p``, the others divided by 1 - p; nothing when not training: Srivastava et
    al. (2014).

    PyTorch: torch.nn.functional.dropout.
    """
    return _dropped("dropout", input, p, training)


def _channels(name: str, input: Tensor, p: float, training: bool, rank: int) -> Tensor:
    x = as_tensor(input)
    if x.ndim == rank - 1:
        return _dropped(name, x.unsqueeze(0), p, training, channels=True).squeeze(0)
    if x.ndim != rank:
        raise ShapeError(f"{name} takes a tensor of {rank} axes, or {rank - 1} without a batch, not {tuple(x.shape)}")
    return _dropped(name, x, p, training, channels=True)


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels of (N, C, L) or (C, L) zero with probability ``p``.

    PyTorch: torch.nn.functional.dropout1d.
    """
    return _channels("dropout1d", input, p, training, 3)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels of (N, C, H, W) or (C, H, W) zero with probability ``p``: Tompson et al. (2015).

    PyTorch: torch.nn.functional.dropout2d.
    """
    return _channels("dropout2d", input, p, training, 4)


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels of (N, C, D, H, W) or (C, D, H, W) zero with probability ``p``.

    PyTorch: torch.nn.functional.dropout3d.
    """
    return _channels("dropout3d", input, p, training, 5)


def _alpha(name: str, input: Tensor, p: float, training: bool, channels: bool) -> Tensor:
    _check(name, p)
    x = as_tensor(input)
    if not training or p == 0:
        return x
    if p == 1:
        return x * 0
    lowest = -1.7580993408473766  # what selu goes to far below 0
    a = ((1 - p) * (1 + p * lowest**2)) ** -0.5
    return call("where", _kept(x, p, channels), x, lowest) * a - a * lowest * p


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout that keeps mean and variance of what selu gives: Klambauer et al. (2017).

    PyTorch: torch.nn.functional.alpha_dropout.
    """
    return _alpha("alpha_dropout", input, p, training, channels=False)


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """alpha_dropout of whole channels (axis 1).

    PyTorch: torch.nn.functional.feature_alpha_dropout.
    """
    return _alpha("feature_alpha_dropout", input, p, training, channels=True)
