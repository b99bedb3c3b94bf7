"""Class indices and embeddings."""

from __future__ import annotations

from engine.errors import DTypeError, ShapeError
from frontend.dispatch import call
from frontend.sizes import plain_shape
from frontend.tensor import Tensor, as_tensor

__all__ = ["one_hot"]


def one_hot(input: Tensor, num_classes: int = -1) -> Tensor:
    """1 at each class index and 0 elsewhere (i64), classes along a new last axis. In a trace ``num_classes`` must be
    given; elsewhere it defaults to one more than the greatest index."""
    x = classes_of("one_hot", input)
    if num_classes < 0:
        if x.is_symbolic:
            raise ShapeError("one_hot: num_classes is needed in a traced function, where the indices are not known")
        num_classes = int(x.max()) + 1 if x.numel() else 0
    x = call("check_index", x, limit=num_classes)
    shape = (*plain_shape(x.shape), num_classes)
    return (x.unsqueeze(-1) == call("iota", shape=shape, axis=x.ndim)).long()


def classes_of(name: str, target: Tensor) -> Tensor:
    target = as_tensor(target)
    if not target.dtype.is_integer:
        raise DTypeError(f"{name} takes integer class indices, not {target.dtype}")
    return target.long()
