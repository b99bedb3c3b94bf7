"""Attention over keys and values."""

from __future__ import annotations

import math

from engine import dims
from engine.dims import shape_text
from engine.errors import DTypeError, ShapeError, TenonError
from engine.graph import current_builder, tracing
from frontend.dispatch import call
from frontend.functional.activations import softmax
from frontend.functional.dropout import dropout
from frontend.sizes import as_size, plain, plain_shape
from frontend.tensor import Tensor, as_tensor
from frontend.trace import current_trace

__all__ = ["scaled_dot_product_attention"]


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    offset: Tensor | None = None,
) -> Tensor:
    """``softmax(query @ key.T * scale + mask) @ value``: (..., H, L, E), (..., H, S, E) and (..., H, S, V) give
    (..., H, L, V). Vaswani et al. (2017), "Attention is all you need".

    ``attn_mask`` broadcasts to (..., H, L, S): bool, True where a query may look, or numbers that are added to the
    scores. ``is_causal`` lets query i look at keys up to i, and goes together with a mask. ``scale`` is 1 / sqrt(E)
    unless given. With ``enable_gqa`` keys and values may have fewer heads, each for a group of query heads. Dropout is
    always applied, at probability ``dropout_p``; pass 0 when not training.

    A query that may look nowhere, all of its scores being masked or minus infinity, gives zeros, and no gradient flows
    from it. No matrix of all scores is made, forward or backward: memory grows with L + S. A mask of numbers that needs
    a gradient is the exception.

    ``offset``, integers, one or one for each of the batch, is the position among the keys of the first query, from
    which ``is_causal`` counts: query i looks at keys up to ``offset + i``. So a cache of keys has its capacity in its
    shape, and what fills it is run-time data; keys behind the last query are not read.

    Raises ShapeError and DTypeError for tensors that do not fit together.

    PyTorch: torch.nn.functional.scaled_dot_product_attention. Differs: a row without keys gives zeros throughout,
    is_causal may be combined with attn_mask, and offset.
    """
    q, k, v = map(as_tensor, (query, key, value))
    _check(q, k, v)
    if not 0 <= dropout_p <= 1:
        raise TenonError(f"scaled_dot_product_attention: dropout_p must lie between 0 and 1, not {dropout_p}")
    if dropout_p == 1 or (dropout_p and not tracing()):  # all weights, or such as a generator draws
        weights, v = attention_weights(q, k, v, attn_mask, is_causal, scale, enable_gqa)
        return dropout(weights, dropout_p) @ v
    lead, (q, k, v) = _of_four_axes(q, k, v, enable_gqa)
    more = {}
    if attn_mask is not None:
        more["mask"] = _mask_of_four_axes(as_tensor(attn_mask), q, lead)
    if offset is not None:
        more["offset"] = as_tensor(offset).reshape(-1)
    stream = 0
    if dropout_p:
        seed, step, stream = current_trace("dropout").random_stream()
        more |= {"seed": Tensor.of(seed), "step": Tensor.of(step)}
    scale = 1 / math.sqrt(_known(q.shape[-1])) if scale is None else scale
    found, _ = call("attention", q, k, v, *more.values(), given=" ".join(more), causal=is_causal, scale=float(scale),
                    dropout=float(dropout_p), stream=stream)  # fmt: skip
    return found if len(lead) == 2 else found.reshape(*lead, *found.shape[-2:])


def _of_four_axes(q: Tensor, k: Tensor, v: Tensor, grouped: bool) -> tuple[dims.Shape, list[Tensor]]:
    """The leading axes of the result, and the tensors (batch, heads, length, features) as the op takes them."""
    leads = [plain_shape(x.shape[:-2]) for x in (q, k, v)]
    if grouped:
        if not all(leads):
            raise ShapeError("attention: enable_gqa needs tensors (..., heads, length, features)")
        batch = dims.broadcast(*(lead[:-1] for lead in leads))
        leads = [(*batch, lead[-1]) for lead in leads]
    else:
        leads = [dims.broadcast(*leads)] * 3
    return leads[0], [_with_lead(x, lead) for x, lead in zip((q, k, v), leads, strict=True)]


def _with_lead(x: Tensor, lead: dims.Shape) -> Tensor:
    """``x``, broadcast to the leading axes ``lead``, with the last of these and all others as two axes."""
    own = plain_shape(x.shape)
    if own[:-2] != lead:
        x = x.expand(*map(as_size, (*lead, *own[-2:])))
    if len(lead) == 2:
        return x
    return _shaped(x, (dims.product(lead[:-1]), *(lead[-1:] or (1,)), *own[-2:]))


def _shaped(x: Tensor, shape: dims.Shape) -> Tensor:
    return x.reshape(*map(as_size, shape))


def _mask_of_four_axes(mask: Tensor, q: Tensor, lead: dims.Shape) -> Tensor:
    """``mask`` as the op takes it: bool, or in the dtype of the queries; axes that do not vary are of size 1."""
    if mask.dtype.name != "bool" and not mask.dtype.is_float:
        raise DTypeError(f"attention takes a mask of bool or of floating point numbers, not {mask.dtype}")
    missing = len(lead) + 2 - mask.ndim
    if missing < 0:
        raise ShapeError(f"attention: a mask {shape_text(plain_shape(mask.shape))} has more axes than the scores")
    mask = mask if mask.dtype.name == "bool" else mask.to(q.dtype)
    shape = (1,) * missing + plain_shape(mask.shape)
    if len(lead) > 2:
        return _with_lead(_shaped(mask, shape), (*lead[:-1], shape[-3]))
    return _shaped(mask, (*(1,) * (2 - len(lead)), *shape))


def attention_weights(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float | None, grouped: bool = False
) -> tuple[Tensor, Tensor]:
    """How much each query takes from each key (..., H, L, S), and the values with as many heads as the queries."""
    if grouped:
        k, v = _as_many_heads(q, k), _as_many_heads(q, v)
    scores = (q * (1 / math.sqrt(_known(q.shape[-1])) if scale is None else scale)) @ k.transpose(-2, -1)
    seen = None
    if causal:
        shape = (plain(q.shape[-2]), plain(k.shape[-2]))
        seen = call("iota", shape=shape, axis=0) >= call("iota", shape=shape, axis=1)
    if mask is not None:
        mask = as_tensor(mask)
        if mask.dtype.is_float:
            scores = scores + mask.to(scores.dtype)
        elif mask.dtype.name == "bool":
            seen = mask if seen is None else seen & mask
        else:
            raise DTypeError(f"attention takes a mask of bool or of floating point numbers, not {mask.dtype}")
    if seen is not None:
        scores = call("where", seen, scores, float("-inf"))
    if seen is None and mask is None:
        return softmax(scores, -1), v
    nowhere = scores.amax(-1, True) == float("-inf")
    return call("where", nowhere, 0.0, softmax(call("where", nowhere, 0.0, scores), -1)), v


def _known(size: object) -> int:
    if not isinstance(size, int):
        raise ShapeError(f"attention needs a known number of features, not {size}, unless scale is given")
    return size


def _as_many_heads(q: Tensor, x: Tensor) -> Tensor:
    heads, own = q.shape[-3], x.shape[-3]
    if not isinstance(heads, int) or not isinstance(own, int) or not own or heads % own:
        raise ShapeError(f"attention: {heads} query heads cannot share {own} heads of keys and values")
    *batch, _, length, features = x.shape
    spread = x.unsqueeze(-3).expand(*batch, own, heads // own, length, features)
    return spread.reshape(*batch, heads, length, features)


def _check(q: Tensor, k: Tensor, v: Tensor) -> None:
    shapes = [plain_shape(t.shape) for t in (q, k, v)]
    given = ", ".join(map(shape_text, shapes))
    if min(map(len, shapes)) < 2:
        raise ShapeError(f"attention takes queries, keys and values (..., length, features), not shapes {given}")
    if not all(t.dtype == q.dtype and t.dtype.is_float for t in (q, k, v)):
        raise DTypeError(f"attention takes floating point tensors of one dtype, not {q.dtype}, {k.dtype} and {v.dtype}")
    with dims.recording(current_builder().assumptions if tracing() else []):
        features, lengths = shapes[0][-1] - shapes[1][-1], shapes[1][-2] - shapes[2][-2]
        dims.assume(features, "== 0", f"attention: queries and keys differ in features, as of {given}")
        dims.assume(lengths, "== 0", f"attention: keys and values differ in length, as of {given}")


def check_heads(name: str, embed_dim: int, num_heads: int) -> None:
    """Raises TenonError unless the heads share the features evenly."""
    if embed_dim <= 0 or num_heads <= 0 or embed_dim % num_heads:
        raise TenonError(f"{name}: embed_dim {embed_dim} does not divide into {num_heads} heads")
