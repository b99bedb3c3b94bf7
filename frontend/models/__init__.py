"""Models with the names of published checkpoints. Each is imported when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frontend.models.bert import BERT, BERTConfig
    from frontend.models.config import ModelConfig
    from frontend.models.gpt import GPT, GPTConfig

__all__ = ["BERT", "BERTConfig", "GPT", "GPTConfig", "ModelConfig"]

_MODULES = {"BERT": "bert", "BERTConfig": "bert", "GPT": "gpt", "GPTConfig": "gpt", "ModelConfig": "config"}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
