"""Small models of Hugging Face's transformers, and what they are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent / "golden"
KINDS = ("gpt2", "bert")
VOCABULARY = 19


def peer(kind: str) -> Any:
    """The model in transformers, with random weights that reach into every nonlinearity."""
    import torch
    import transformers

    torch.manual_seed(0)
    if kind == "gpt2":
        config: Any = transformers.GPT2Config(
            vocab_size=VOCABULARY, n_positions=12, n_embd=8, n_layer=2, n_head=2, initializer_range=0.5
        )
        return transformers.GPT2LMHeadModel(config).eval()
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=12,
        initializer_range=0.5,
    )
    return transformers.BertModel(config).eval()


def inputs(kind: str) -> tuple[np.ndarray, ...]:
    """Token ids (2, 7), and for BERT the mask and the types of tokens."""
    rng = np.random.default_rng(1)
    ids = rng.integers(0, VOCABULARY, (2, 7))
    if kind == "gpt2":
        return (ids,)
    mask = np.ones((2, 7), np.int64)
    mask[1, 4:] = 0
    return ids, mask, rng.integers(0, 2, (2, 7))


def outputs(kind: str, model: Any, given: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
    import torch

    with torch.no_grad():
        found = model(*map(torch.from_numpy, given))
    names = ("logits",) if kind == "gpt2" else ("last_hidden_state", "pooler_output")
    return {name: found[name].numpy() for name in names}
