"""Modules that hold modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from frontend.nn.module import Module

__all__ = ["Sequential"]


class Sequential(Module):
    """Modules applied one after the other: ``Sequential(a, b)``, or with names ``Sequential({"first": a, ...})``."""

    def __init__(self, *modules: Module | Mapping[str, Module]):
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named: Iterable[tuple[str, Any]] = modules[0].items()
        else:
            named = ((str(i), module) for i, module in enumerate(modules))
        for name, module in named:
            self.add_module(name, module)

    def forward(self, input: Any) -> Any:
        for module in self:
            input = module(input)
        return input

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.children())

    def __getitem__(self, key: int | slice) -> Any:
        if isinstance(key, slice):
            return Sequential(dict(list(self.named_children())[key]))
        return list(self.children())[key]

    def append(self, module: Module) -> Sequential:
        """One more module at the end."""
        self.add_module(str(len(self)), module)
        return self
