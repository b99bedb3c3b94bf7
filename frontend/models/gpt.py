"""GPT: Radford et al. (2019), "Language models are unsupervised multitask learners" (GPT-2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from engine.errors import ShapeError
from engine.records import dataclass
from frontend import creation
from frontend import functional as F
from frontend.functional.attention import check_heads
from frontend.models.config import ModelConfig, activation
from frontend.nn import init
from frontend.nn.cache import KVCache
from frontend.nn.containers import ModuleDict, ModuleList
from frontend.nn.dropout import Dropout
from frontend.nn.init_parameters import new_parameter
from frontend.nn.linear import Linear
from frontend.nn.module import Module
from frontend.nn.normalization import LayerNorm
from frontend.nn.sparse import Embedding
from frontend.tensor import Tensor


@dataclass(frozen=True)
class GPTConfig(ModelConfig):
    """Sizes and rates of a :class:`GPT`; the defaults are the smallest GPT-2's. ``n_inner`` is 4 * ``n_embd`` unless
    given."""

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True

    only: ClassVar[Mapping[str, Any]] = {
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    }


class Conv1D(Module):
    """``x @ weight + bias``: a linear layer whose weight (in, out) lies as GPT-2's checkpoints have it."""

    def __init__(self, in_features: int, out_features: int, std: float = 0.02):
        super().__init__()
        self.weight = new_parameter((in_features, out_features), None)
        self.bias = new_parameter((out_features,), None)
        init.normal_(self.weight, std=std)
        init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Attention(Module):
    """Attention of each token to itself and those before it, in ``n_head`` parts of the features."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        check_heads("GPT", config.n_embd, config.n_head)
        self.heads, self.p = config.n_head, config.attn_pdrop
        std = config.initializer_range
        self.c_attn = Conv1D(config.n_embd, 3 * config.n_embd, std)
        self.c_proj = Conv1D(config.n_embd, config.n_embd, std / math.sqrt(2 * config.n_layer))
        self.resid_dropout = Dropout(config.resid_pdrop)

    def forward(self, x: Tensor, layer: int, cache: KVCache | None) -> Tensor:
        batch, length, features = x.shape
        parts = self.c_attn(x).reshape(batch, length, 3, self.heads, features // self.heads)
        q, k, v = (parts[:, :, i].transpose(1, 2) for i in range(3))
        if cache is None:
            mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=self.p if self.training else 0.0, is_causal=True)
        else:
            mixed = cache.attend(layer, q, k, v)
        return self.resid_dropout(self.c_proj(mixed.transpose(1, 2).reshape(batch, length, features)))


class MLP(Module):
    """Two linear layers with an activation between them, for each token alone."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        inner = config.n_inner or 4 * config.n_embd
        std = config.initializer_range
        self.c_fc = Conv1D(config.n_embd, inner, std)
        self.c_proj = Conv1D(inner, config.n_embd, std / math.sqrt(2 * config.n_layer))
        self.act = activation(config.activation_function)
        self.dropout = Dropout(config.resid_pdrop)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.c_proj(self.act(self.c_fc(x))))


class Block(Module):
    """Attention and the feed-forward net, each added to its input, which is normalised before."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.ln_1 = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.attn = Attention(config)
        self.ln_2 = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, layer: int, cache: KVCache | None) -> Tensor:
        x = x + self.attn(self.ln_1(x), layer, cache)
        return x + self.mlp(self.ln_2(x))


class GPT(Module):
    """What token comes next: token ids (batch, length), i64, give logits (batch, length, vocab_size).

    Keys are those of Hugging Face's GPT2LMHeadModel. The output layer is the embedding, transposed, unless
    ``tie_word_embeddings`` is False. With a ``cache`` (:meth:`make_cache`) the tokens follow those seen before, and
    only the logits behind the last one are computed: (batch, 1, vocab_size).

    Raises ShapeError for more than ``n_positions`` tokens where their number is known; else the call fails, as it does
    (IndexRangeError) for an id outside the vocabulary.
    """

    model_type = "gpt2"
    config_type = GPTConfig

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.vocab_size, self.max_length = config.vocab_size, config.n_positions
        wte = Embedding(config.vocab_size, config.n_embd)
        wpe = Embedding(config.n_positions, config.n_embd)
        for table in (wte, wpe):
            init.normal_(table.weight, std=config.initializer_range)
        blocks = ModuleList(Block(config) for _ in range(config.n_layer))
        norm = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.transformer = ModuleDict({"wte": wte, "wpe": wpe, "h": blocks, "ln_f": norm})
        self.drop = Dropout(config.embd_pdrop)
        self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False)
        init.normal_(self.lm_head.weight, std=config.initializer_range)
        if config.tie_word_embeddings:
            self.lm_head.weight = wte.weight

    def make_cache(self, batch: int, capacity: int) -> KVCache:
        """Room for the keys and values of ``capacity`` tokens in each of ``batch`` rows."""
        c = self.config
        return KVCache(c.n_layer, batch, c.n_head, capacity, c.n_embd // c.n_head)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        length = tokens.shape[1]
        if isinstance(length, int) and length > self.max_length:
            raise ShapeError(f"GPT has {self.max_length} positions, and was given {length} tokens")
        part = self.transformer
        positions = creation.arange(length) if cache is None else cache.positions(length)
        x = self.drop(part["wte"](tokens) + part["wpe"](positions))
        for layer, block in enumerate(part["h"]):
            x = block(x, layer, cache)
        x = x if cache is None else x[:, length - 1 :]
        return self.lm_head(part["ln_f"](x))

    def adapt(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A published checkpoint under this model's keys: the prefix ``transformer.`` may be missing; the masks that
        older files carry are left out; the output layer is the embedding where it is tied."""
        found = {k if k.startswith(("transformer.", "lm_head.")) else f"transformer.{k}": v for k, v in state.items()}
        found = {k: v for k, v in found.items() if not k.endswith((".attn.bias", ".attn.masked_bias"))}
        if self.config.tie_word_embeddings and "transformer.wte.weight" in found:
            found["lm_head.weight"] = found["transformer.wte.weight"]
        return found
