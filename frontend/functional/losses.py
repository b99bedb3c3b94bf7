"""Losses as functions, with PyTorch's ``reduction``: "mean", "sum", or "none" for one number an element or example."""

from __future__ import annotations

import math
from collections.abc import Callable

from engine.dims import shape_text
from engine.errors import DTypeError, ShapeError, TenonError
from engine.ops.losses import check_reduction, class_axis
from frontend.bounds import clamp
from frontend.dispatch import call
from frontend.functional.normalization import cosine_similarity, pairwise_distance
from frontend.functional.sparse import classes_of
from frontend.sizes import plain, plain_shape
from frontend.tensor import Operand, Tensor, as_tensor

__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "categorical_cross_entropy", "cosine_embedding_loss",
    "cross_entropy", "gaussian_nll_loss", "hinge_embedding_loss", "hinge_loss", "huber_loss", "kl_div", "l1_loss",
    "margin_ranking_loss", "mse_loss", "multi_margin_loss", "multilabel_soft_margin_loss", "nll_loss",
    "poisson_nll_loss", "smooth_l1_loss", "soft_margin_loss", "sparse_categorical_cross_entropy",
    "triplet_margin_loss", "triplet_margin_with_distance_loss",
]  # fmt: skip


def _alike(name: str, input: Operand, target: Operand) -> tuple[Tensor, Tensor]:
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


def _weighted(each: Tensor, weight: Tensor | None) -> Tensor:
    return each if weight is None else each * weight


# --- classes -------------------------------------------------------------------------------------------------------


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log softmax(input)[target]: logits (C), (N, C) or (N, C, d1, ...) and integer classes (), (N) or (N, d1, ...),
    or probabilities in the shape of the logits.

    ``weight`` (C) counts classes more or less, ``label_smoothing`` takes that share from the target and gives it to all
    classes alike (Szegedy et al., 2016), and classes of ``ignore_index`` do not count. Any other class outside 0 .. C-1
    fails the call, before any state is written.

    PyTorch: torch.nn.functional.cross_entropy.
    """
    x = as_tensor(input)
    if x.ndim == 0:
        raise ShapeError("cross_entropy: logits need an axis of classes, and are a scalar")
    if not 0 <= label_smoothing <= 1:
        raise TenonError(f"cross_entropy: label_smoothing must lie between 0 and 1, not {label_smoothing}")
    axis = class_axis(x.ndim)
    given = as_tensor(target)
    if given.dtype.is_float:
        if given.ndim != x.ndim:
            raise DTypeError(
                f"cross_entropy: floating point targets are probabilities in the shape of the input, "
                f"{shape_text(plain_shape(x.shape))}; those of shape {shape_text(plain_shape(given.shape))} were to be "
                f"integer class indices, and are {given.dtype}"
            )
        return _soft_entropy(x, given, weight, reduction, label_smoothing, axis)
    classes, there = _known_classes("cross_entropy", x, given, ignore_index)
    each = call("cross_entropy", x, classes, reduction="none")
    counted = there.to(x.dtype)
    if weight is not None:
        counted = counted * _class_weights(weight, classes)
        each = call("where", there, each, 0.0) * _class_weights(weight, classes)
    else:
        each = call("where", there, each, 0.0)
    if label_smoothing:
        logs = x.log_softmax(axis)
        spread = -_along(weight, logs, axis).sum(axis) / x.shape[axis]
        each = (1 - label_smoothing) * each + label_smoothing * call("where", there, spread, 0.0)
    check_reduction(reduction, "cross_entropy")
    if reduction == "mean":
        return each.sum() / counted.sum()
    return _reduced(each, reduction, "cross_entropy")


def _along(weight: Tensor | None, logs: Tensor, axis: int) -> Tensor:
    """Log-probabilities times the weights of their classes."""
    if weight is None:
        return logs
    return logs * as_tensor(weight).reshape(*(-1 if i == axis else 1 for i in range(logs.ndim)))


def _soft_entropy(
    x: Tensor, target: Tensor, weight: Tensor | None, reduction: str, smoothing: float, axis: int
) -> Tensor:
    x, target = _alike("cross_entropy", x, target)
    if smoothing:
        target = target * (1 - smoothing) + smoothing / x.shape[axis]
    each = -(_along(weight, x.log_softmax(axis), axis) * target).sum(axis)
    check_reduction(reduction, "cross_entropy")
    # PyTorch's mean over probabilities is over examples, whatever the weights.
    return _reduced(each, reduction, "cross_entropy")


def _known_classes(name: str, x: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Classes that are known to exist, 0 in place of the ignored, and where they are not ignored."""
    classes = classes_of(name, target)
    there = classes != ignore_index
    safe = call("where", there, classes, 0)
    axis = class_axis(x.ndim)
    expected = (*x.shape[:axis], *x.shape[axis + 1 :])
    if classes.ndim != len(expected):
        raise ShapeError(
            f"{name}: input of shape {shape_text(plain_shape(x.shape))} needs class indices of shape "
            f"{shape_text(plain_shape(expected))}, not {shape_text(plain_shape(classes.shape))}"
        )
    return call("check_index", safe, limit=plain(x.shape[axis])), there


def _class_weights(weight: Tensor, classes: Tensor) -> Tensor:
    return call("gather", as_tensor(weight), classes.reshape(-1), axis=0).reshape(classes.shape)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """-input[target], for log-probabilities (C), (N, C) or (N, C, d1, ...) and integer classes; ``weight`` and
    ``ignore_index`` as for cross_entropy.

    PyTorch: torch.nn.functional.nll_loss.
    """
    x = as_tensor(input)
    if x.ndim == 0:
        raise ShapeError("nll_loss: log-probabilities need an axis of classes, and are a scalar")
    classes, there = _known_classes("nll_loss", x, as_tensor(target), ignore_index)
    axis = class_axis(x.ndim)
    picked = -call("gather", x, classes.unsqueeze(axis), axis=axis).squeeze(axis)
    counted = there.to(x.dtype)
    if weight is not None:
        counted = counted * _class_weights(weight, classes)
        picked = picked * _class_weights(weight, classes)
    each = call("where", there, picked, 0.0)
    check_reduction(reduction, "nll_loss")
    return each.sum() / counted.sum() if reduction == "mean" else _reduced(each, reduction, "nll_loss")


def categorical_cross_entropy(
    input: Tensor, target: Tensor, reduction: str = "mean", from_logits: bool = False, label_smoothing: float = 0.0
) -> Tensor:
    """-sum of target * log(input) over the last axis, for probabilities (..., C) and targets of the same shape (one-hot
    rows, say). Rows of ``input`` are divided by their sum, and kept between 1e-7 and 1 - 1e-7.

    Keras: keras.losses.categorical_crossentropy.
    """
    x, y = _alike("categorical_cross_entropy", input, target)
    if label_smoothing:
        y = y * (1 - label_smoothing) + label_smoothing / x.shape[-1]
    return _reduced(-(y * _log_probabilities(x, from_logits)).sum(-1), reduction, "categorical_cross_entropy")


def sparse_categorical_cross_entropy(
    input: Tensor, target: Tensor, reduction: str = "mean", from_logits: bool = False
) -> Tensor:
    """As categorical_cross_entropy, for classes (...) in integers.

    Keras: keras.losses.sparse_categorical_crossentropy.
    """
    x = as_tensor(input)
    classes = call("check_index", classes_of("sparse_categorical_cross_entropy", as_tensor(target)),
                   limit=plain(x.shape[-1]))  # fmt: skip
    logs = _log_probabilities(x, from_logits)
    each = -call("gather", logs, classes.unsqueeze(-1), axis=x.ndim - 1).squeeze(-1)
    return _reduced(each, reduction, "sparse_categorical_cross_entropy")


def _log_probabilities(x: Tensor, from_logits: bool) -> Tensor:
    if from_logits:
        return x.log_softmax(-1)
    return call("log", clamp(x / x.sum(-1, keepdim=True), 1e-7, 1 - 1e-7))


# --- numbers -------------------------------------------------------------------------------------------------------


def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The squared difference; the shapes must be equal.

    PyTorch: torch.nn.functional.mse_loss. Differs: shapes do not broadcast, and there is no ``weight``.
    """
    x, y = _alike("mse_loss", input, target)
    return call("mse_loss", x, y, reduction=reduction)


def l1_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The absolute difference; the shapes must be equal.

    PyTorch: torch.nn.functional.l1_loss. Differs: shapes do not broadcast, and there is no ``weight``.
    """
    x, y = _alike("l1_loss", input, target)
    return _reduced(abs(x - y), reduction, "l1_loss")


def smooth_l1_loss(input: Tensor, target: Tensor, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """``0.5 * d * d / beta`` where ``d = |input - target|`` is below ``beta``, else ``d - 0.5 * beta``: Girshick
    (2015).

    PyTorch: torch.nn.functional.smooth_l1_loss. Differs: shapes do not broadcast.
    """
    x, y = _alike("smooth_l1_loss", input, target)
    if beta < 0:
        raise TenonError(f"smooth_l1_loss: beta must be at least 0, not {beta}")
    d = abs(x - y)
    each = d if beta == 0 else call("where", d < beta, d * d * (0.5 / beta), d - 0.5 * beta)
    return _reduced(each, reduction, "smooth_l1_loss")


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """``0.5 * d * d`` where ``d = |input - target|`` is at most ``delta``, else ``delta * (d - 0.5 * delta)``: Huber
    (1964).

    PyTorch: torch.nn.functional.huber_loss. Differs: shapes do not broadcast.
    """
    x, y = _alike("huber_loss", input, target)
    if delta <= 0:
        raise TenonError(f"huber_loss: delta must be above 0, not {delta}")
    d = abs(x - y)
    each = call("where", d <= delta, 0.5 * d * d, delta * (d - 0.5 * delta))
    return _reduced(_weighted(each, weight), reduction, "huber_loss")


def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> Tensor:
    """``exp(input) - target * input``, or with ``log_input=False`` ``input - target * log(input + eps)``; ``full`` adds
    Stirling's approximation of log(target!) where target is above 1.

    PyTorch: torch.nn.functional.poisson_nll_loss.
    """
    x, y = _alike("poisson_nll_loss", input, target)
    each = call("exp", x) - y * x if log_input else x - y * call("log", x + eps)
    if full:
        safe = call("where", y > 1, y, 1.0)
        each = each + call("where", y > 1, y * call("log", safe) - y + 0.5 * call("log", 2 * math.pi * safe), 0.0)
    return _reduced(each, reduction, "poisson_nll_loss")


def gaussian_nll_loss(
    input: Tensor, target: Tensor, var: Tensor | float, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Tensor:
    """``0.5 * (log(var) + (input - target)**2 / var)``, ``var`` being at least ``eps`` (without a gradient there);
    ``full`` adds the constant term.

    PyTorch: torch.nn.functional.gaussian_nll_loss.
    """
    x, y = _alike("gaussian_nll_loss", input, target)
    given = as_tensor(var, x.dtype)
    if 0 < given.ndim == x.ndim - 1:
        given = given.unsqueeze(-1)
    # As in PyTorch, the bound changes the value and not the slope.
    spread = given + (call("maximum", given, eps) - given).detach()
    each = 0.5 * (call("log", spread) + call("square", x - y) / spread)
    if full:
        each = each + 0.5 * math.log(2 * math.pi)
    return _reduced(each, reduction, "gaussian_nll_loss")


# --- probabilities ---------------------------------------------------------------------------------------------------


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """``-(target * log(input) + (1 - target) * log(1 - input))`` for probabilities; logarithms are at least -100.

    PyTorch: torch.nn.functional.binary_cross_entropy.
    """
    x, y = _alike("binary_cross_entropy", input, target)
    # A tiny number beside 0 keeps the slope finite where the logarithm is cut off.
    tiny = 1e-44 if x.dtype.itemsize == 4 else 1e-300
    logs = [call("maximum", call("log", call("maximum", p, tiny)), -100.0) for p in (x, 1 - x)]
    each = -(y * logs[0] + (1 - y) * logs[1])
    return _reduced(_weighted(each, weight), reduction, "binary_cross_entropy")


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """binary_cross_entropy of sigmoid(input), without overflow; ``pos_weight`` counts positive targets more or less.

    PyTorch: torch.nn.functional.binary_cross_entropy_with_logits.
    """
    x, y = _alike("binary_cross_entropy_with_logits", input, target)
    positive = y if pos_weight is None else y * pos_weight
    each = -(positive * call("logsigmoid", x) + (1 - y) * call("logsigmoid", -x))
    return _reduced(_weighted(each, weight), reduction, "binary_cross_entropy_with_logits")


def kl_div(input: Tensor, target: Tensor, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """``target * (log(target) - input)`` for log-probabilities ``input``; with ``log_target`` the target is in
    logarithms too. The reduction "batchmean" divides the sum by the size of axis 0.

    PyTorch: torch.nn.functional.kl_div.
    """
    x, y = _alike("kl_div", input, target)
    each = call("exp", y) * (y - x) if log_target else call("xlogy", y, y) - y * x
    if reduction == "batchmean":
        return each.sum() / each.shape[0]
    return _reduced(each, reduction, "kl_div")


# --- margins -------------------------------------------------------------------------------------------------------


def _at_least_zero(x: Tensor) -> Tensor:
    return call("relu", x)


def hinge_loss(input: Tensor, target: Tensor, reduction: str = "mean", squared: bool = False) -> Tensor:
    """``max(0, 1 - target * input)``, or its square, for targets of -1 and 1.

    Keras: keras.losses.hinge.
    """
    x, y = _alike("hinge_loss", input, target)
    each = _at_least_zero(1 - y * x)
    return _reduced(call("square", each) if squared else each, reduction, "hinge_loss")


def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """``input`` where the target is 1, ``max(0, margin - input)`` where it is -1.

    PyTorch: torch.nn.functional.hinge_embedding_loss.
    """
    x, y = _alike("hinge_embedding_loss", input, target)
    each = call("where", y == 1, x, 0.0) + call("where", y == -1, _at_least_zero(margin - x), 0.0)
    return _reduced(each, reduction, "hinge_embedding_loss")


def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """``max(0, -target * (input1 - input2) + margin)``.

    PyTorch: torch.nn.functional.margin_ranking_loss.
    """
    a, b = as_tensor(input1), as_tensor(input2)
    return _reduced(_at_least_zero(-as_tensor(target) * (a - b) + margin), reduction, "margin_ranking_loss")


def soft_margin_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """``log(1 + exp(-target * input))``.

    PyTorch: torch.nn.functional.soft_margin_loss.
    """
    x, y = _alike("soft_margin_loss", input, target)
    return _reduced(-call("logsigmoid", y * x), reduction, "soft_margin_loss")


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The mean over classes i other than the target y of ``max(0, margin - input[y] + input[i]) ** p``.

    PyTorch: torch.nn.functional.multi_margin_loss.
    """
    x = as_tensor(input)
    if p not in (1, 2):
        raise TenonError(f"multi_margin_loss: p must be 1 or 2, not {p}")
    classes, _ = _known_classes("multi_margin_loss", x, as_tensor(target), -1)
    own = classes.unsqueeze(-1)
    picked = call("gather", x, own, axis=x.ndim - 1)
    each = _at_least_zero(margin - picked + x)
    each = each if p == 1 else each * each
    if weight is not None:
        each = each * _class_weights(weight, classes).unsqueeze(-1)
    other = call("iota", shape=plain_shape(x.shape), axis=x.ndim - 1) != own
    total = call("where", other, each, 0.0).sum(-1) / x.shape[-1]
    return _reduced(total, reduction, "multi_margin_loss")


def multilabel_soft_margin_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """The mean over the last axis of the binary cross-entropy of sigmoid(input).

    PyTorch: torch.nn.functional.multilabel_soft_margin_loss.
    """
    x, y = _alike("multilabel_soft_margin_loss", input, target)
    each = -(y * call("logsigmoid", x) + (1 - y) * call("logsigmoid", -x))
    return _reduced(_weighted(each, weight).mean(-1), reduction, "multilabel_soft_margin_loss")


def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """``1 - cos`` where the target is 1, ``max(0, cos - margin)`` where it is -1.

    PyTorch: torch.nn.functional.cosine_embedding_loss.
    """
    cosine = cosine_similarity(input1, input2, -1)
    y = as_tensor(target)
    each = call("where", y == 1, 1 - cosine, call("where", y == -1, _at_least_zero(cosine - margin), 0.0))
    return _reduced(each, reduction, "cosine_embedding_loss")


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """``max(0, |anchor - positive| - |anchor - negative| + margin)``; ``swap`` takes the distance of positive and
    negative where that is less: Balntas et al. (2016).

    PyTorch: torch.nn.functional.triplet_margin_loss.
    """

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return pairwise_distance(a, b, p, eps)

    return triplet_margin_with_distance_loss(
        anchor, positive, negative, distance_function=distance, margin=margin, swap=swap, reduction=reduction
    )


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """triplet_margin_loss with any distance.

    PyTorch: torch.nn.functional.triplet_margin_with_distance_loss.
    """
    distance = distance_function or pairwise_distance
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = call("minimum", far, distance(positive, negative))
    return _reduced(_at_least_zero(near - far + margin), reduction, "triplet_margin_loss")
