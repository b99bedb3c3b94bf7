"""Losses as functions."""

from __future__ import annotations

from engine.dims import shape_text
from engine.errors import ShapeError
from engine.ops.losses import check_reduction, class_axis
from frontend.dispatch import call
from frontend.functional.sparse import classes_of
from frontend.sizes import plain, plain_shape
from frontend.tensor import Tensor, as_tensor

__all__ = ["cross_entropy", "nll_loss", "mse_loss", "l1_loss"]


def cross_entropy(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """-log softmax(input)[target]: logits (C), (N, C) or (N, C, d1, ...) and integer classes (), (N) or (N, d1, ...).

    A class outside 0 .. C-1 fails the call, before any state is written.
    """
    x = as_tensor(input)
    if x.ndim == 0:
        raise ShapeError("cross_entropy: logits need an axis of classes, and are a scalar")
    classes = call("check_index", classes_of("cross_entropy", target), limit=plain(x.shape[class_axis(x.ndim)]))
    return call("cross_entropy", x, classes, reduction=reduction)


def nll_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """-input[target], for log-probabilities (C), (N, C) or (N, C, d1, ...) and integer classes."""
    x = as_tensor(input)
    axis = class_axis(x.ndim)
    if x.ndim == 0:
        raise ShapeError("nll_loss: log-probabilities need an axis of classes, and are a scalar")
    classes = classes_of("nll_loss", target)
    expected = (*x.shape[:axis], *x.shape[axis + 1 :])
    if classes.ndim != len(expected):
        raise ShapeError(
            f"nll_loss: input of shape {shape_text(plain_shape(x.shape))} needs classes of shape "
            f"{shape_text(plain_shape(expected))}, not {shape_text(plain_shape(classes.shape))}"
        )
    classes = call("check_index", classes, limit=plain(x.shape[axis]))
    chosen = call("iota", shape=plain_shape(x.shape), axis=axis) == classes.unsqueeze(axis)
    return _reduced(-call("where", chosen, x, 0.0).sum(axis), reduction, "nll_loss")


def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The squared difference; the shapes must be equal."""
    x, y = _alike("mse_loss", input, target)
    return call("mse_loss", x, y, reduction=reduction)


def l1_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The absolute difference; the shapes must be equal."""
    x, y = _alike("l1_loss", input, target)
    return _reduced(abs(x - y), reduction, "l1_loss")


def _alike(name: str, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both as tensors whose shapes agree. Between (N, 1) and (N) broadcasting would pair all with all."""
    x, y = as_tensor(input), as_tensor(target)
    a, b = plain_shape(x.shape), plain_shape(y.shape)
    if len(a) != len(b) or any((p == 1) != (q == 1) for p, q in zip(a, b, strict=True)):
        raise ShapeError(f"{name}: input of shape {shape_text(a)} and target of shape {shape_text(b)} must be alike")
    return x, y


def _reduced(each: Tensor, reduction: str, name: str) -> Tensor:
    check_reduction(reduction, name)
    if reduction == "none":
        return each
    return each.mean() if reduction == "mean" else each.sum()
