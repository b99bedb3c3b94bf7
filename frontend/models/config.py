"""Configurations of models, as the config.json beside a checkpoint spells them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, ClassVar, TypeVar

from engine.errors import TenonError
from engine.records import dataclass
from frontend import functional as F
from frontend.tensor import Tensor

C = TypeVar("C", bound="ModelConfig")

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, "tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, "tanh"),
}


@dataclass(frozen=True)
class ModelConfig:
    """Base of the configurations. Field names are Hugging Face's."""

    only: ClassVar[Mapping[str, Any]] = {}
    """Settings that config.json may have, and the one value of each that the model is built for."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if f.type == "int" and value < 1:
                raise TenonError(f"{type(self).__name__}: {f.name} must be at least 1, not {value}")

    @classmethod
    def of(cls: type[C], settings: Mapping[str, Any], **changes: Any) -> C:
        """The configuration in ``settings`` (a config.json), with ``changes``. Settings that do not concern the
        computation are passed over. Raises TenonError for one that asks for something that the model does not do."""
        for name, value in cls.only.items():
            if settings.get(name, value) != value:
                raise TenonError(f"{cls.__name__}: {name} is {settings[name]!r}; the model has only {value!r}")
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in settings.items() if k in known} | changes)


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The activation function of this name. Raises TenonError."""
    if name not in ACTIVATIONS:
        raise TenonError(f"the activation is {name!r}; expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
