"""Attention and Transformers: cases in which Tenon and PyTorch do the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity import Case, ModuleCase, normal
from tenon import F, nn

Q, K, V = normal(2, 4, 5, 8), normal(2, 4, 6, 8), normal(2, 4, 6, 3)
SEEN = normal(5, 6) > -0.5
SEEN[:, 0] = True
ADDED = normal(2, 1, 5, 6)
CAUSAL = np.triu(np.ones((5, 5), bool), 1)
PADDING = np.array([[False, False, False, True, True], [False] * 5])


def sdpa(name: str, *arrays: np.ndarray, compiled: bool = False, tolerance: float = 1.0, **options: Any) -> Case:
    """The fourth array is the mask."""
    return Case(
        f"scaled_dot_product_attention/{name}",
        lambda *x: F.scaled_dot_product_attention(*x, **options),
        lambda t, *x: t.nn.functional.scaled_dot_product_attention(*x, **options),
        arrays,
        compiled=compiled,
        tolerance=tolerance,
    )


def layer(name: str, theirs: str, arrays: tuple[np.ndarray, ...], *args: Any, call: Any = None, mode: bool = False,
          compiled: bool = False, **options: Any) -> ModuleCase:  # fmt: skip
    extra = {"call": call} if call else {}
    return ModuleCase(f"{theirs}/{name}", lambda: getattr(nn, theirs)(*args, **options),
                      lambda t: getattr(t.nn, theirs)(*args, **options), arrays, train=mode, tolerance=5.0,
                      compiled=compiled, **extra)  # fmt: skip


def to(x: Any, value: np.ndarray) -> Any:
    """``value`` as a tensor of the library that ``x`` belongs to."""
    if type(x).__module__.startswith("torch"):
        import torch

        return torch.tensor(value)
    import tenon as tn

    return tn.tensor(value)


def mha(name: str, x: tuple[np.ndarray, ...], call: Any, compiled: bool = False, **options: Any) -> ModuleCase:
    return layer(name, "MultiheadAttention", x, 8, 2, call=call, compiled=compiled, **options)


X, Y = normal(5, 2, 8), normal(6, 2, 8)
FIRST, OTHER = normal(2, 5, 8), normal(2, 6, 8)

CASES: list[Case | ModuleCase] = [
    sdpa("plain", Q, K, V, compiled=True),
    sdpa("scale", Q, K, V, scale=0.3),
    sdpa("causal", Q, K[:, :, :5], V[:, :, :5], is_causal=True, compiled=True),
    sdpa("causal, fewer keys", Q, K[:, :, :3], V[:, :, :3], is_causal=True),
    sdpa("bool mask", Q, K, V, SEEN, compiled=True),
    sdpa("added mask", Q, K, V, ADDED, compiled=True),
    sdpa("mask of padding", Q, K, V, np.array([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]], bool)[:, None, None]),
    sdpa("grouped heads", Q, K[:, :2], V[:, :2], enable_gqa=True),
    sdpa("without heads", Q[0, 0], K[0, 0], V[0, 0]),
    sdpa("one key", Q, K[:, :, :1], V[:, :, :1]),
    sdpa("no queries", Q[:, :, :0], K, V),
    sdpa("large scores", Q * 40, K * 40, V, tolerance=10.0),
    mha("itself", (X,), lambda m, x: m(x, x, x), compiled=True),
    mha("itself, no weights", (X,), lambda m, x: m(x, x, x, need_weights=False)[0]),
    mha("memory", (X, Y), lambda m, x, y: m(x, y, y)),
    mha("three", (X, Y, Y * 2), lambda m, x, y, z: m(x, y, z)),
    mha("batch first", (FIRST, OTHER), lambda m, x, y: m(x, y, y), batch_first=True),
    mha("without a batch", (X[:, 0], Y[:, 0]), lambda m, x, y: m(x, y, y)),
    mha("weights of each head", (X,), lambda m, x: m(x, x, x, average_attn_weights=False)),
    mha("without bias", (X,), lambda m, x: m(x, x, x), bias=False),
    mha("other sizes", (X, normal(6, 2, 3), normal(6, 2, 7)), lambda m, *x: m(*x), kdim=3, vdim=7),
    mha("causal mask", (X,), lambda m, x: m(x, x, x, attn_mask=to(x, CAUSAL))),
    mha("padding", (X,), lambda m, x: m(x, x, x, key_padding_mask=to(x, PADDING))),
    mha("padding and mask", (X,), lambda m, x: m(x, x, x, to(x, PADDING), attn_mask=to(x, CAUSAL), need_weights=False)[0]),
    mha("mask of numbers", (X,), lambda m, x: m(x, x, x, attn_mask=to(x, CAUSAL * np.float32(-1.5)))),
    mha("mask of each head", (X,), lambda m, x: m(x, x, x, attn_mask=to(x, np.stack([CAUSAL, CAUSAL.T] * 2)))),
    mha("learned key", (X,), lambda m, x: m(x, x, x, key_padding_mask=to(x, PADDING)), add_bias_kv=True),
    mha("zero key", (X,), lambda m, x: m(x, x, x, attn_mask=to(x, CAUSAL)), add_zero_attn=True),
    *(layer(f"{options}", "TransformerEncoderLayer", (X,), 8, 2, 16, dropout=0.0, mode=True, **options)
      for options in ({}, {"norm_first": True}, {"activation": "gelu"}, {"bias": False}, {"layer_norm_eps": 0.1})),
    layer("masks", "TransformerEncoderLayer", (FIRST,), 8, 4, 16, batch_first=True, compiled=True,
          call=lambda m, x: m(x, to(x, CAUSAL), to(x, PADDING))),
    *(layer(f"{options}", "TransformerDecoderLayer", (X, Y), 8, 2, 16, dropout=0.0, mode=True, **options)
      for options in ({}, {"norm_first": True}, {"activation": "gelu"})),
    layer("masks", "TransformerDecoderLayer", (FIRST, OTHER), 8, 2, 16, batch_first=True,
          call=lambda m, x, y: m(x, y, to(x, CAUSAL), tgt_key_padding_mask=to(x, PADDING))),
    layer("whole", "Transformer", (X, Y), 8, 2, 1, 2, 16, dropout=0.0, mode=True),
    layer("whole, masks", "Transformer", (FIRST, OTHER), 8, 2, 2, 1, 16, batch_first=True, norm_first=True,
          call=lambda m, x, y: m(x, y, tgt_mask=to(x, np.triu(np.full((6, 6), -np.inf, "f4"), 1)),
                                 memory_key_padding_mask=to(x, PADDING), src_key_padding_mask=to(x, PADDING))),
]  # fmt: skip


def encoder(m: Any, layers: Any) -> Any:
    return layers.TransformerEncoder(layers.TransformerEncoderLayer(8, 2, 16, 0.0), 2, layers.LayerNorm(8))


def decoder(m: Any, layers: Any) -> Any:
    return layers.TransformerDecoder(layers.TransformerDecoderLayer(8, 2, 16, 0.0), 2)


CASES += [
    ModuleCase("TransformerEncoder", lambda: encoder(None, nn), lambda t: encoder(None, t.nn), (X,), tolerance=5.0),
    ModuleCase("TransformerDecoder", lambda: decoder(None, nn), lambda t: decoder(None, t.nn), (X, Y), tolerance=5.0),
]
