"""Connectionist temporal classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.dims import shape_text
from engine.errors import ShapeError
from engine.ops.losses import check_reduction
from frontend.dispatch import call
from frontend.functional.sparse import classes_of
from frontend.gathering import checked_index
from frontend.sizes import SizeLike, plain, plain_shape
from frontend.tensor import Tensor, as_tensor

__all__ = ["ctc_loss"]

Lengths = Tensor | Sequence[int] | int


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """-log of the probability of a sequence of labels, over all ways to spread it over the steps.

    ``log_probs`` is (T, N, C), or (T, C) for one example: the log-probabilities of each step's classes, of which
    ``blank`` stands for no label. ``targets`` is (N, S), of which the first ``target_lengths`` labels count, or all of
    them one behind the other, (sum(target_lengths)). Both lengths are (N) integers. ``mean`` divides each loss by its
    target's length (at least 1) and takes the mean. A target that cannot fit has an infinite loss and a gradient of
    NaN, or zeros where ``zero_infinity``. (Graves et al., 2006, "Connectionist temporal classification".)

    A length or a label out of range fails the call, before any state is written. Raises ShapeError and DTypeError for
    what does not fit together.

    PyTorch: torch.nn.functional.ctc_loss. Differs: the gradient is that of log_probs itself; PyTorch's is right only
    behind a log_softmax, where both are the same.
    """
    check_reduction(reduction, "ctc_loss")
    x = as_tensor(log_probs)
    single = x.ndim == 2
    if single:
        x = x.unsqueeze(1)
    if x.ndim != 3:
        raise ShapeError(f"ctc_loss takes log_probs (T, N, C) or (T, C), not shape {shape_text(plain_shape(x.shape))}")
    steps, batch, classes = x.shape
    labels = classes_of("ctc_loss", targets)
    in_lengths = _lengths("input_lengths", input_lengths, batch, steps)
    if single and labels.ndim == 1:
        labels = labels.unsqueeze(0)
    if labels.ndim == 1:
        out_lengths = _lengths("target_lengths", target_lengths, batch, labels.shape[0])
        labels = _apart(labels, out_lengths)
    elif labels.ndim == 2:
        out_lengths = _lengths("target_lengths", target_lengths, batch, labels.shape[1])
    else:
        shape = shape_text(plain_shape(labels.shape))
        raise ShapeError(f"ctc_loss takes targets (N, S) or all in one axis, not shape {shape}")
    place = call("iota", shape=(1, plain(labels.shape[1])), axis=1)
    labels = call("where", place < out_lengths.unsqueeze(1), labels, 0)
    labels = checked_index(labels, classes, "ctc_loss")
    each = call("ctc_loss", x, labels, in_lengths, out_lengths, blank=blank)[0]
    if zero_infinity:
        each = call("where", each == float("inf"), 0.0, each)
    if reduction == "mean":
        return (each / out_lengths.clamp(min=1).to(each.dtype)).mean()
    return each.sum() if reduction == "sum" else each.squeeze(0) if single else each


def _lengths(name: str, given: Any, batch: SizeLike, most: SizeLike) -> Tensor:
    """Lengths (N), known to lie in ``0 .. most``."""
    lengths = as_tensor(given)
    if lengths.ndim == 0:
        lengths = lengths.reshape(1)
    if lengths.ndim != 1:
        shape = shape_text(plain_shape(lengths.shape))
        raise ShapeError(f"ctc_loss takes {name} (N), one for each of {batch} examples, not shape {shape}")
    return checked_index(lengths, most + 1, f"ctc_loss's {name}")


def _apart(labels: Tensor, lengths: Tensor) -> Tensor:
    """Targets that stand one behind the other, each in a row of its own. What is behind its length means nothing."""
    size = plain(labels.shape[0])
    if size == 0:
        return labels.reshape(1, 0).expand(lengths.shape[0], 0)
    start = (lengths.cumsum(0) - lengths).unsqueeze(1)
    place = (start + call("iota", shape=(1, size), axis=1)).clamp(max=size - 1)
    return call("gather", labels.unsqueeze(0), call("check_index", place, limit=size), axis=1)
