"""Embeddings."""

from __future__ import annotations

from typing import Any

from engine.errors import ShapeError
from frontend import functional as F
from frontend.functional.sparse import padding_index
from frontend.nn import init
from frontend.nn.init_parameters import new_parameter
from frontend.nn.module import Module
from frontend.nn.parameter import Parameter
from frontend.tensor import Tensor, as_tensor

__all__ = ["Embedding", "EmbeddingBag"]


class _Table(Module):
    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None, dtype: object):
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = None if padding_idx is None else padding_index(padding_idx, num_embeddings)
        self.weight = new_parameter((num_embeddings, embedding_dim), dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Rows from the standard normal distribution, the padding's zero."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            array = self.weight.numpy().copy()
            array[self.padding_idx] = 0
            self.weight.data = array

    @classmethod
    def from_pretrained(cls, embeddings: Any, freeze: bool = True, **options: Any) -> Any:
        """A layer with the rows of ``embeddings`` (V, D), not trained unless ``freeze`` is False."""
        given = as_tensor(embeddings)
        if given.ndim != 2:
            raise ShapeError(f"from_pretrained takes a matrix (V, D), not shape {tuple(given.shape)}")
        layer = cls(*given.shape, **options, dtype=given.dtype)  # type: ignore[misc]
        layer.weight = Parameter(given.numpy(), requires_grad=not freeze)
        return layer

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class Embedding(_Table):
    """Rows of ``weight`` (num_embeddings, embedding_dim) by number: integers (...) give (..., embedding_dim).

    PyTorch: torch.nn.Embedding. Differs: max_norm, scale_grad_by_freq and sparse are not there.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, dtype: object = None):
        super().__init__(num_embeddings, embedding_dim, padding_idx, dtype)

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(input, self.weight, self.padding_idx)


class EmbeddingBag(_Table):
    """The sum, mean or maximum of the embeddings in each bag; see :func:`F.embedding_bag`.

    PyTorch: torch.nn.EmbeddingBag. Differs: max_norm, scale_grad_by_freq, sparse and include_last_offset are not there.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        mode: str = "mean",
        padding_idx: int | None = None,
        dtype: object = None,
    ):
        super().__init__(num_embeddings, embedding_dim, padding_idx, dtype)
        self.mode = mode

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        return F.embedding_bag(input, self.weight, offsets, self.mode, per_sample_weights, self.padding_idx)
