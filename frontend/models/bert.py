"""BERT: Devlin et al. (2019), "BERT: Pre-training of deep bidirectional Transformers for language understanding"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from engine.errors import ShapeError
from engine.records import dataclass
from frontend import creation
from frontend import functional as F
from frontend.functional.attention import check_heads
from frontend.models.config import ModelConfig, activation
from frontend.nn import init
from frontend.nn.containers import ModuleDict, ModuleList
from frontend.nn.dropout import Dropout
from frontend.nn.linear import Linear
from frontend.nn.module import Module
from frontend.nn.normalization import LayerNorm
from frontend.nn.sparse import Embedding
from frontend.tensor import Tensor


@dataclass(frozen=True)
class BERTConfig(ModelConfig):
    """Sizes and rates of a :class:`BERT`; the defaults are bert-base-uncased's. ``add_pooling_layer`` False leaves out
    the pooler, which some checkpoints lack."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    add_pooling_layer: bool = True

    only: ClassVar[Mapping[str, Any]] = {
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "add_cross_attention": False,
    }


class Embeddings(Module):
    """Token, its position and which of two texts it belongs to, added and normalised."""

    def __init__(self, config: BERTConfig):
        super().__init__()
        self.word_embeddings = Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.position_embeddings = Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, tokens: Tensor, types: Tensor | None) -> Tensor:
        kind = self.token_type_embeddings.weight[0] if types is None else self.token_type_embeddings(types)
        x = self.word_embeddings(tokens) + kind + self.position_embeddings(creation.arange(tokens.shape[1]))
        return self.dropout(self.LayerNorm(x))


class SelfAttention(Module):
    """Attention of each token to all, in ``num_attention_heads`` parts of the features."""

    def __init__(self, config: BERTConfig):
        super().__init__()
        size = config.hidden_size
        check_heads("BERT", size, config.num_attention_heads)
        self.heads, self.p = config.num_attention_heads, config.attention_probs_dropout_prob
        self.query, self.key, self.value = (Linear(size, size) for _ in range(3))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        batch, length, features = x.shape
        q, k, v = (
            part(x).reshape(batch, length, self.heads, features // self.heads).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=self.p if self.training else 0.0)
        return mixed.transpose(1, 2).reshape(batch, length, features)


class Output(Module):
    """A linear layer's result added to what came before, and normalised."""

    def __init__(self, in_features: int, config: BERTConfig):
        super().__init__()
        self.dense = Linear(in_features, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + before)


class Layer(Module):
    """Attention and a feed-forward net."""

    def __init__(self, config: BERTConfig):
        super().__init__()
        self.attention = ModuleDict({"self": SelfAttention(config), "output": Output(config.hidden_size, config)})
        self.intermediate = ModuleDict({"dense": Linear(config.hidden_size, config.intermediate_size)})
        self.output = Output(config.intermediate_size, config)
        self.act = activation(config.hidden_act)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attention["output"](self.attention["self"](x, mask), x)
        return self.output(self.act(self.intermediate["dense"](x)), x)


class BERT(Module):
    """Texts read from both sides: token ids (batch, length), i64, give a vector for each token (batch, length,
    hidden_size) and one for each text (batch, hidden_size), the pooler's of the first token, or None without pooler.

    ``attention_mask`` (batch, length) is 1 (or True) for tokens and 0 for padding; ``token_type_ids`` are 0 for the
    first text of a pair, 1 for the second. Keys are those of Hugging Face's BertModel.

    Raises ShapeError for more than ``max_position_embeddings`` tokens where their number is known; else the call fails,
    as it does (IndexRangeError) for an id outside the vocabulary.
    """

    model_type = "bert"
    config_type = BERTConfig

    def __init__(self, config: BERTConfig):
        super().__init__()
        self.config = config
        self.vocab_size, self.max_length = config.vocab_size, config.max_position_embeddings
        self.embeddings = Embeddings(config)
        self.encoder = ModuleDict({"layer": ModuleList(Layer(config) for _ in range(config.num_hidden_layers))})
        dense = Linear(config.hidden_size, config.hidden_size)
        self.pooler = ModuleDict({"dense": dense}) if config.add_pooling_layer else None
        for module in self.modules():
            if isinstance(module, (Linear, Embedding)):
                init.normal_(module.weight, std=config.initializer_range)
            if isinstance(module, Linear) and module.bias is not None:
                init.zeros_(module.bias)

    def forward(
        self, tokens: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        length = tokens.shape[1]
        if isinstance(length, int) and length > self.max_length:
            raise ShapeError(f"BERT has {self.max_length} positions, and was given {length} tokens")
        x = self.embeddings(tokens, token_type_ids)
        mask = None if attention_mask is None else (attention_mask != 0).unsqueeze(1).unsqueeze(1)
        for layer in self.encoder["layer"]:
            x = layer(x, mask)
        return x, None if self.pooler is None else self.pooler["dense"](x[:, 0]).tanh()

    def sentence_embedding(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """The mean over each text's tokens, of length 1: (batch, hidden_size). The product of two is the cosine of
        their angle. Reimers and Gurevych (2019), "Sentence-BERT"."""
        x, _ = self(tokens, attention_mask)
        counted = (attention_mask != 0).unsqueeze(-1).to(x.dtype)
        mean = (x * counted).sum(1) / counted.sum(1).clamp(min=1e-9)
        return F.normalize(mean, dim=-1)

    def adapt(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A published checkpoint under this model's keys: without the prefix ``bert.``, with today's names of scales
        and shifts (``gamma`` and ``beta`` in older files), and without the heads for its first training (``cls.``)."""
        found = {_renamed(k.removeprefix("bert.")): v for k, v in state.items() if not k.startswith("cls.")}
        found.pop("embeddings.position_ids", None)
        return found if self.pooler is not None else {k: v for k, v in found.items() if not k.startswith("pooler.")}


def _renamed(key: str) -> str:
    return key.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
