"""Frozen dataclasses, made in a fifth of the time: ``@dataclass(frozen=True)`` as the standard library means it.

That one writes six methods as text and compiles them, 0.6 ms a class; the sixty classes that a start from the compile
cache meets were a tenth of it. Here only ``__init__`` is text: the other methods need to know no more than the fields'
names, so every class can share them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")


def _frozen(frozen: bool, eq: bool = True, repr: bool = True) -> Callable[[type[T]], type[T]]:
    """What ``dataclasses.dataclass`` makes of these options, among them ``frozen=True``; methods that the class writes
    itself stay."""
    assert frozen

    def make(cls: type[T]) -> type[T]:
        own = set(vars(cls))
        inherits = any(map(dataclasses.is_dataclass, cls.__mro__[1:]))  # from one that counts as frozen, too
        made: Any = dataclasses.dataclass(init=False, eq=False, repr=False, frozen=inherits)(cls)
        made.__dataclass_params__.frozen = True
        fields = dataclasses.fields(made)
        methods: dict[str, Any] = {"__init__": _init(made, fields), "__setattr__": _set, "__delattr__": _delete}
        if repr:
            methods["__repr__"] = _repr
        if eq:
            methods["__eq__"] = _equal(_values([f.name for f in fields if f.compare]))
            methods["__hash__"] = _hash(_values([f.name for f in fields if (f.compare if f.hash is None else f.hash)]))
        for name, method in methods.items():
            if name not in own:
                setattr(made, name, method)
        return made

    return make


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:
    dataclass = _frozen


def _init(cls: type, fields: tuple[Field[Any], ...]) -> Callable[..., None]:
    names: dict[str, Any] = {"_put_": object.__setattr__, "_MISSING_": MISSING}  # no field is called so
    parameters, lines = ["self"], []
    for f in fields:
        default, value = "", f.name
        if f.default is not MISSING:
            default, names[f"_default_{f.name}"] = f"=_default_{f.name}", f.default
        elif f.default_factory is not MISSING:
            default, names[f"_new_{f.name}"] = "=_MISSING_", f.default_factory
            value = f"_new_{f.name}() if {f.name} is _MISSING_ else {f.name}"
        parameters.append(f.name + default)
        lines.append(f" _put_(self, {f.name!r}, {value})\n")
    if hasattr(cls, "__post_init__"):
        lines.append(" self.__post_init__()\n")
    exec(f"def __init__({', '.join(parameters)}):\n{''.join(lines) or ' pass'}", names)
    init: Callable[..., None] = names["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__annotations__ = {f.name: f.type for f in fields} | {"return": "None"}
    return init


def _values(names: list[str]) -> Callable[[object], tuple[Any, ...]]:
    """The function that gives an object's attributes of these names."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda self: tuple([getattr(self, name) for name in names])


def _equal(values: Callable[[object], tuple[Any, ...]]) -> Callable[[object, object], bool]:
    def __eq__(self: object, other: object) -> bool:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    return __eq__


def _hash(values: Callable[[object], tuple[Any, ...]]) -> Callable[[object], int]:
    def __hash__(self: object) -> int:
        return hash(values(self))

    return __hash__


def _repr(self: Any) -> str:
    shown = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self) if f.repr)
    return f"{type(self).__qualname__}({shown})"


def _set(self: object, name: str, value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete(self: object, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")
