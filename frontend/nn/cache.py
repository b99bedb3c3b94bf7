"""What a model remembers of a text while it writes on: state that programs update in place."""

from __future__ import annotations

import numpy as np

from engine.dtypes import as_dtype
from engine.errors import TenonError
from frontend import creation
from frontend.dispatch import call
from frontend.functional.attention import scaled_dot_product_attention
from frontend.nn.module import Module
from frontend.nn.parameter import Buffer
from frontend.sizes import SizeLike
from frontend.tensor import Tensor

__all__ = ["Cache", "KVCache"]


class Cache(Module):
    """How many tokens a model has seen (``length``, i64), of at most ``capacity``, in each of ``batch`` rows, and with
    how many that mean nothing each row begins (``padding`` (batch,), i64). Further buffers of subclasses, a recurrent
    net's state for instance, are what the model remembers.

    Size and capacity are in the shapes; how far the text has come is data. So one program serves every length.
    """

    length: Buffer
    padding: Buffer

    def __init__(self, batch: int, capacity: int):
        super().__init__()
        for name, size in (("batch", batch), ("capacity", capacity)):
            if size < 1:
                raise TenonError(f"{type(self).__name__}: {name} must be at least 1, not {size}")
        self.batch, self.capacity = batch, capacity
        self.register_buffer("length", np.zeros((), np.int64), persistent=False)
        self.register_buffer("padding", np.zeros(batch, np.int64), persistent=False)

    def start(self, padding: Tensor) -> None:
        """Forget all; a new text begins, with ``padding`` (batch,) tokens that mean nothing in front of each row."""
        self.length.assign(creation.zeros((), dtype=self.length.dtype))
        self.padding.assign(padding)

    def advance(self, count: SizeLike) -> None:
        """The model has seen ``count`` further tokens."""
        self.length.assign(self.length + creation.full((), 1, self.length.dtype) * count)

    def places(self, count: SizeLike) -> Tensor:
        """Where in the cache the next ``count`` tokens stand: (count,), i64."""
        return self.length + creation.arange(count)

    def positions(self, count: SizeLike) -> Tensor:
        """Where in its own text each of the next ``count`` tokens stands, 0 for padding: (batch, count), i64."""
        return (self.places(count) - self.padding.unsqueeze(1)).clamp(min=0)

    def extra_repr(self) -> str:
        return f"batch={self.batch}, capacity={self.capacity}"


class KVCache(Cache):
    """Keys and values (batch, heads, capacity, head_dim) of ``layers`` layers of attention."""

    def __init__(self, layers: int, batch: int, heads: int, capacity: int, head_dim: int, dtype: object = "f32"):
        super().__init__(batch, capacity)
        for name in (f"{kind}{layer}" for layer in range(layers) for kind in ("keys", "values")):
            zeros = np.zeros((batch, heads, capacity, head_dim), as_dtype(dtype).numpy)
            self.register_buffer(name, Buffer(zeros, dtype), persistent=False)

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Remember ``key`` and ``value`` (batch, heads, T, head_dim) of the next T tokens, and let each query look at
        all that its row has seen so far. A query of padding sees nothing, and gets zeros.

        The call fails with IndexRangeError, and changes nothing, where the cache is full.
        """
        keys = self._remember(f"keys{layer}", key)
        values = self._remember(f"values{layer}", value)
        real = creation.arange(self.capacity) >= self.padding.reshape(-1, 1, 1, 1)
        return scaled_dot_product_attention(
            query, keys, values, real, is_causal=True, scale=scale, enable_gqa=enable_gqa, offset=self.length
        )

    def _remember(self, name: str, new: Tensor) -> Tensor:
        places = call("check_index", self.places(new.shape[-2]), limit=self.capacity).reshape(1, 1, -1, 1)
        buffer = getattr(self, name)
        buffer.assign(call("scatter", buffer, places, new.to(buffer.dtype), axis=2, mode="set"))
        return buffer.to(new.dtype)
