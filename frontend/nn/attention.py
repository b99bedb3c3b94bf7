"""Attention layers."""

from __future__ import annotations

from engine.errors import ShapeError
from frontend import creation, shaping
from frontend import functional as F
from frontend.dispatch import call
from frontend.functional.attention import attention_weights, check_heads, scaled_dot_product_attention
from frontend.nn import init
from frontend.nn.init_parameters import new_parameter
from frontend.nn.linear import Linear
from frontend.nn.module import Module
from frontend.nn.parameter import Parameter
from frontend.tensor import Tensor, as_tensor

__all__ = ["MultiheadAttention"]


class MultiheadAttention(Module):
    """Attention in ``num_heads`` parts of the features, between linear layers: Vaswani et al. (2017).

    Queries, keys and values are (L, N, E), (S, N, kdim) and (S, N, vdim), (N, L, E) and so on with ``batch_first``, or
    without N; the result has the shape of the queries. ``key_padding_mask`` (N, S) is True where a key is to be
    ignored, ``attn_mask`` (L, S) or (N * num_heads, L, S) where a query may not look; either may hold numbers to be
    added instead. ``need_weights`` also returns the attention's weights, (N, L, S), or (N, num_heads, L, S) unless
    ``average_attn_weights``; without them the fused kernel runs.

    PyTorch: torch.nn.MultiheadAttention. Differs: a query that may look nowhere gives out_proj.bias instead of NaN.
    """

    in_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    bias_k: Parameter | None
    bias_v: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        dtype: object = None,
    ):
        super().__init__()
        check_heads("MultiheadAttention", embed_dim, num_heads)
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        self.dropout, self.batch_first, self.add_zero_attn = dropout, batch_first, add_zero_attn
        self.kdim, self.vdim = kdim or embed_dim, vdim or embed_dim
        packed = self.kdim == self.vdim == embed_dim
        whole = {"in_proj_weight": embed_dim} if packed else {}
        apart = {} if packed else {"q": embed_dim, "k": self.kdim, "v": self.vdim}
        self.register_parameter("in_proj_weight", new_parameter((3 * embed_dim, embed_dim), dtype) if whole else None)
        for name in "qkv":
            size = apart.get(name)
            weight = None if size is None else new_parameter((embed_dim, size), dtype)
            self.register_parameter(f"{name}_proj_weight", weight)
        self.register_parameter("in_proj_bias", new_parameter((3 * embed_dim,), dtype) if bias else None)
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, dtype=dtype)
        for name in ("bias_k", "bias_v"):
            self.register_parameter(name, new_parameter((1, 1, embed_dim), dtype) if add_bias_kv else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            weight = getattr(self, name)
            if weight is not None:
                init.xavier_uniform_(weight)
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                init.constant_(bias, 0.0)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                init.xavier_normal_(bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        single = as_tensor(query).ndim == 2
        inputs = [self._batched(t, single) for t in (query, key, value)]
        q, k, v = self._projected(inputs, same_key=query is key, same_value=key is value)
        mask = self._mask(q, k, attn_mask, key_padding_mask, single)
        mask, k, v = self._extended(mask, k, v)
        causal = is_causal and attn_mask is None
        p = self.dropout if self.training else 0.0
        if need_weights:
            weights, _ = attention_weights(q, k, v, mask, causal, None)
            weights = F.dropout(weights, p)
            mixed = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights.squeeze(0) if single else weights
        else:
            weights, mixed = None, scaled_dot_product_attention(q, k, v, mask, p, causal)
        batch, _, length, _ = mixed.shape
        out = self.out_proj(mixed.transpose(1, 2).reshape(batch, length, self.embed_dim))
        if single:
            return out.squeeze(0), weights
        return out if self.batch_first else out.transpose(0, 1), weights

    def _batched(self, x: Tensor, single: bool) -> Tensor:
        """``x`` as (N, length, features)."""
        x = as_tensor(x)
        if x.ndim != (2 if single else 3):
            shape = tuple(x.shape)
            raise ShapeError(
                f"MultiheadAttention takes tensors of 3 axes, or all of 2 without a batch, not shape {shape}"
            )
        return x.unsqueeze(0) if single else x if self.batch_first else x.transpose(0, 1)

    def _projected(self, inputs: list[Tensor], same_key: bool, same_value: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (N, heads, length, head_dim). What is projected alike is projected at once."""
        query, key, value = inputs
        for name, x, size in (("query", query, self.embed_dim), ("key", key, self.kdim), ("value", value, self.vdim)):
            if x.shape[-1] != size:
                raise ShapeError(f"MultiheadAttention: {name} has {x.shape[-1]} features, {size} were expected")
        e = self.embed_dim
        bias = self.in_proj_bias
        if self.in_proj_weight is None:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
            parts = [
                F.linear(x, w, None if bias is None else bias[i * e : (i + 1) * e])
                for i, (x, w) in enumerate(zip((query, key, value), weights, strict=True))
            ]
        elif same_key and same_value:
            parts = list(F.linear(query, self.in_proj_weight, bias).split(e, -1))
        else:
            parts = [self._part(query, 0, 1)]
            parts += (
                self._part(key, 1, 3).split(e, -1) if same_value else (self._part(key, 1, 2), self._part(value, 2, 3))
            )
        q, k, v = (p.reshape(*p.shape[:-1], self.num_heads, self.head_dim).transpose(1, 2) for p in parts)
        return q, k, v

    def _part(self, x: Tensor, first: int, last: int) -> Tensor:
        """``x`` through the rows of the packed projection from part ``first`` to ``last``."""
        assert self.in_proj_weight is not None
        rows = slice(first * self.embed_dim, last * self.embed_dim)
        return F.linear(x, self.in_proj_weight[rows], None if self.in_proj_bias is None else self.in_proj_bias[rows])

    def _mask(
        self, q: Tensor, k: Tensor, attn_mask: Tensor | None, padding: Tensor | None, single: bool
    ) -> Tensor | None:
        """Both masks as one that broadcasts to (N, heads, L, S): where a query may look, or numbers to add."""
        batch, heads = q.shape[0], self.num_heads
        found = []
        if attn_mask is not None:
            mask = as_tensor(attn_mask)
            length, keys = q.shape[-2], k.shape[-2]
            sizes = zip(mask.shape[-2:], (length, keys), strict=False)
            if any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in sizes):
                raise ShapeError(
                    f"MultiheadAttention: attn_mask is ({length}, {keys}) or ({batch * heads}, {length}, {keys}), "
                    f"not {tuple(mask.shape)}"
                )
            if mask.ndim == 3:
                mask = mask.reshape(batch, heads, *mask.shape[1:])
            elif mask.ndim != 2:
                raise ShapeError(
                    f"MultiheadAttention: attn_mask is (L, S) or (N * heads, L, S), not {tuple(mask.shape)}"
                )
            found.append(mask)
        if padding is not None:
            mask = as_tensor(padding)
            mask = mask.unsqueeze(0) if single else mask
            if mask.ndim != 2 or mask.shape[-1] != k.shape[-2]:
                raise ShapeError(f"MultiheadAttention: key_padding_mask is (N, {k.shape[-2]}), not {tuple(mask.shape)}")
            found.append(mask.reshape(batch, 1, 1, k.shape[-2]))
        if all(m.dtype.name == "bool" for m in found):
            seen = [~m for m in found]
            return None if not seen else seen[0] if len(seen) == 1 else seen[0] & seen[1]
        scores = [call("where", m, float("-inf"), 0.0).to(q.dtype) if m.dtype.name == "bool" else m for m in found]
        return scores[0] if len(scores) == 1 else scores[0] + scores[1]

    def _extended(self, mask: Tensor | None, k: Tensor, v: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """Keys and values with the learned one (add_bias_kv) and zeros (add_zero_attn), at which all may look."""
        batch = k.shape[0]
        extra: list[tuple[Tensor, Tensor]] = []
        if self.bias_k is not None and self.bias_v is not None:
            shape = (1, self.num_heads, 1, self.head_dim)
            extra.append((self.bias_k.reshape(shape), self.bias_v.reshape(shape)))
        if self.add_zero_attn:
            zeros = k[:, :, :1] * 0
            extra.append((zeros, zeros))
        for more_k, more_v in extra:
            size = (batch, self.num_heads, 1, self.head_dim)
            k, v = (shaping.concat([x, more.expand(*size)], 2) for x, more in ((k, more_k), (v, more_v)))
            if mask is not None:
                free = 1 if mask.dtype.name == "bool" else 0
                column = creation.full((*mask.shape[:-1], 1), free, dtype=mask.dtype)
                mask = shaping.concat([mask, column], -1)
        return mask, k, v

    def extra_repr(self) -> str:
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}"
