"""Modules and parameters in lists and dicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from frontend.nn.module import Module
from frontend.nn.parameter import Parameter

__all__ = ["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]


class _Numbered(Module):
    """Modules under the names "0", "1", ..."""

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.children())

    def __contains__(self, module: object) -> bool:
        return any(module is child for child in self)

    def _name(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{type(self).__name__} has {len(self)} modules, and no number {index}")
        return list(self._modules)[index]

    def __getitem__(self, key: int | slice) -> Any:
        if isinstance(key, slice):
            return self._of(list(self.named_children())[key])
        return self._modules[self._name(key)]

    def __setitem__(self, key: int, module: Module) -> None:
        self.add_module(self._name(key), module)

    def __delitem__(self, key: int | slice) -> None:
        names = list(self._modules)
        for name in names[key] if isinstance(key, slice) else [self._name(key)]:
            del self._modules[name]
        self._number(list(self._modules.items()))

    def _of(self, named: list[tuple[str, Module]]) -> Module:
        """A container of the same kind with some of the modules."""
        raise NotImplementedError

    def _number(self, named: list[tuple[str, Any]]) -> None:
        """Put the modules in this order; those without a name of their own are numbered anew."""
        self._modules.clear()
        own = {n for n, _ in named if n and not n.isdigit()}
        self._modules.update({n if n in own else str(i): module for i, (n, module) in enumerate(named)})

    def append(self, module: Module) -> Any:
        """One more module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        """More modules at the end."""
        for module in modules:
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> None:
        """One more module before number ``index``."""
        named = list(self._modules.items())
        self.append(module)
        named.insert(index, ("", module))
        self._number(named)


class Sequential(_Numbered):
    """Modules applied one after the other: ``Sequential(a, b)``, or with names ``Sequential({"first": a, ...})``.

    PyTorch: torch.nn.Sequential.
    """

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

    def _of(self, named: list[tuple[str, Module]]) -> Module:
        return Sequential(dict(named))


class ModuleList(_Numbered):
    """A list whose modules belong to the module that holds it. It has no forward of its own.

    PyTorch: torch.nn.ModuleList.
    """

    def __init__(self, modules: Iterable[Module] | None = None):
        super().__init__()
        self.extend(modules or ())

    def __iadd__(self, modules: Iterable[Module]) -> ModuleList:
        return self.extend(modules)

    def _of(self, named: list[tuple[str, Module]]) -> Module:
        return ModuleList(module for _, module in named)


class ModuleDict(Module):
    """A dict whose modules belong to the module that holds it. It has no forward of its own.

    PyTorch: torch.nn.ModuleDict.
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None):
        super().__init__()
        self.update(modules or {})

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        for name, module in dict(modules).items():
            self[name] = module

    def __getitem__(self, key: str) -> Any:
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: object) -> bool:
        return key in self._modules

    def keys(self) -> Iterable[str]:
        return self._modules.keys()

    def values(self) -> Iterable[Any]:
        return self._modules.values()

    def items(self) -> Iterable[tuple[str, Any]]:
        return self._modules.items()

    def pop(self, key: str) -> Any:
        """Take a module out and return it."""
        return self._modules.pop(key)

    def clear(self) -> None:
        self._modules.clear()


class ParameterList(Module):
    """A list whose parameters belong to the module that holds it. Arrays become parameters.

    PyTorch: torch.nn.ParameterList.
    """

    def __init__(self, values: Iterable[Any] | None = None):
        super().__init__()
        self.extend(values or ())

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._parameters.values())

    def __getitem__(self, key: int) -> Any:
        return list(self._parameters.values())[key]

    def append(self, value: Any) -> ParameterList:
        """One more parameter at the end."""
        self.register_parameter(str(len(self)), _as_parameter(value))
        return self

    def extend(self, values: Iterable[Any]) -> ParameterList:
        """More parameters at the end."""
        for value in values:
            self.append(value)
        return self


class ParameterDict(Module):
    """A dict whose parameters belong to the module that holds it. Arrays become parameters.

    PyTorch: torch.nn.ParameterDict.
    """

    def __init__(self, values: Mapping[str, Any] | None = None):
        super().__init__()
        for name, value in (values or {}).items():
            self[name] = value

    def __getitem__(self, key: str) -> Any:
        return self._parameters[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.register_parameter(key, _as_parameter(value))

    def __delitem__(self, key: str) -> None:
        del self._parameters[key]

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __contains__(self, key: object) -> bool:
        return key in self._parameters

    def keys(self) -> Iterable[str]:
        return self._parameters.keys()

    def values(self) -> Iterable[Any]:
        return self._parameters.values()

    def items(self) -> Iterable[tuple[str, Any]]:
        return self._parameters.items()


def _as_parameter(value: Any) -> Parameter:
    return value if isinstance(value, Parameter) else Parameter(value)
