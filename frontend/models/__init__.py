"""Models with the names of published checkpoints."""

from frontend.models.bert import BERT, BERTConfig
from frontend.models.config import ModelConfig
from frontend.models.gpt import GPT, GPTConfig

__all__ = ["BERT", "BERTConfig", "GPT", "GPTConfig", "ModelConfig"]
