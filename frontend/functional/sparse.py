"""Class indices and embeddings."""

from __future__ import annotations

from engine.errors import DTypeError, ShapeError, TenonError, UnsupportedError
from frontend.dispatch import call
from frontend.gathering import checked_index, looked_up
from frontend.sizes import plain, plain_shape
from frontend.tensor import Tensor, as_tensor

__all__ = ["embedding", "embedding_bag", "one_hot"]


def classes_of(name: str, target: Tensor) -> Tensor:
    """``target`` as i64. Raises DTypeError for what are no integers."""
    target = as_tensor(target)
    if not target.dtype.is_integer:
        raise DTypeError(f"{name} takes integer class indices, not {target.dtype}")
    return target.long()


def one_hot(input: Tensor, num_classes: int = -1) -> Tensor:
    """1 at each class index and 0 elsewhere (i64), classes along a new last axis. In a trace ``num_classes`` must be
    given; elsewhere it defaults to one more than the greatest index.

    PyTorch: torch.nn.functional.one_hot.
    """
    x = classes_of("one_hot", input)
    if num_classes < 0:
        if x.is_symbolic:
            raise ShapeError("one_hot: num_classes is needed in a traced function, where the indices are not known")
        num_classes = int(x.max()) + 1 if x.numel() else 0
    x = call("check_index", x, limit=num_classes)
    shape = (*plain_shape(x.shape), num_classes)
    return (x.unsqueeze(-1) == call("iota", shape=shape, axis=x.ndim)).long()


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Row ``input[...]`` of ``weight`` (V, D): integers (...) give (..., D). The row ``padding_idx`` gets no gradient.
    ``sparse`` changes nothing: gradients are added where they belong in any case.

    PyTorch: torch.nn.functional.embedding. Differs: max_norm and scale_grad_by_freq are not there.
    """
    if max_norm is not None or scale_grad_by_freq:
        raise UnsupportedError("embedding has no max_norm and no scale_grad_by_freq; scale the weight or the gradient")
    table = as_tensor(weight)
    if table.ndim != 2:
        raise ShapeError(f"embedding takes a weight (V, D), not shape {tuple(table.shape)}")
    index = checked_index(input, table.shape[0], "embedding")
    found = looked_up(table, 0, index)
    if padding_idx is None:
        return found
    row = padding_index(padding_idx, table.shape[0])
    return call("where", (index == row).unsqueeze(-1), found.detach(), found)


def padding_index(index: int, rows: object) -> int:
    """``index`` counted from the front. Raises TenonError where there is no such row."""
    if isinstance(rows, int) and not -rows <= index < rows:
        raise TenonError(f"padding_idx {index} does not exist in an embedding of {rows} rows")
    return index + rows if index < 0 and isinstance(rows, int) else index


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    mode: str = "mean",
    per_sample_weights: Tensor | None = None,
    padding_idx: int | None = None,
) -> Tensor:
    """The sum, mean or maximum of the embeddings in each row of ``input`` (B, N), or of each part of ``input`` (N) that
    begins at one of ``offsets`` (B): (B, D). Elements of ``padding_idx`` do not count; an empty bag gives zeros.

    PyTorch: torch.nn.functional.embedding_bag. Differs: max_norm, norm_type, scale_grad_by_freq, sparse and
    include_last_offset are not there.
    """
    if mode not in ("sum", "mean", "max"):
        raise TenonError(f'embedding_bag: mode must be "sum", "mean" or "max", not {mode!r}')
    if per_sample_weights is not None and mode != "sum":
        raise TenonError('embedding_bag: per_sample_weights need the mode "sum"')
    index = as_tensor(input)
    if index.ndim == 1 and offsets is not None:
        return _ragged(index, weight, as_tensor(offsets), mode, per_sample_weights, padding_idx)
    if index.ndim != 2 or offsets is not None:
        raise ShapeError(f"embedding_bag takes (B, N), or (N) with offsets (B), not shape {tuple(index.shape)}")
    found = embedding(index, weight, padding_idx)
    there = index != padding_idx if padding_idx is not None else index == index
    each = there.unsqueeze(-1)
    if mode == "max":
        best = call("where", each, found, -float("inf")).amax(1)
        return call("where", there.any(1, keepdim=True), best, 0.0)
    if per_sample_weights is not None:
        found = found * as_tensor(per_sample_weights).unsqueeze(-1)
    total = call("where", each, found, 0.0).sum(1)
    return total if mode == "sum" else total / call("maximum", there.to(found.dtype).sum(1, keepdim=True), 1.0)


def _ragged(
    index: Tensor, weight: Tensor, offsets: Tensor, mode: str, weights: Tensor | None, padding_idx: int | None
) -> Tensor:
    """Bags of different lengths: element i belongs to the last bag that begins at or before i."""
    found = embedding(index, weight, padding_idx)
    places = call("iota", shape=plain_shape(index.shape), axis=0)
    bag = (offsets.long().unsqueeze(0) <= places.unsqueeze(1)).sum(1) - 1
    there = index != padding_idx if padding_idx is not None else index == index
    bags = plain(offsets.shape[0])
    bag = call("check_index", bag, limit=bags).unsqueeze(1)
    shape = (bags, plain(found.shape[1]))
    if weights is not None:
        found = found * as_tensor(weights).unsqueeze(1)
    worst = -float("inf") if mode == "max" else 0.0
    start = call("broadcast_to", as_tensor(worst, found.dtype), shape=shape)
    each = call("where", there.unsqueeze(1), found, worst)
    total = call("scatter", start, bag, each, axis=0, mode="max" if mode == "max" else "add")
    if mode == "sum":
        return total
    none = call("broadcast_to", as_tensor(0.0, found.dtype), shape=(bags, 1))
    count = call("scatter", none, bag, there.to(found.dtype).unsqueeze(1), axis=0, mode="add")
    if mode == "max":
        return call("where", count > 0, total, 0.0)
    return total / call("maximum", count, 1.0)
