"""A kernel written as a Python function over arrays, and its source as text that stands alone."""

from __future__ import annotations

import ast
import builtins
import inspect
import math
import textwrap
from collections.abc import Callable, Iterator
from functools import cached_property
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import TenonError
from engine.records import dataclass

if TYPE_CHECKING:
    from symtable import SymbolTable


@dataclass(frozen=True)
class UserKernel:
    """``function`` takes the inputs and then the outputs as C-contiguous arrays, with ``ranged`` then ``lo`` and
    ``hi``, and the attributes by name. It neither raises nor allocates.

    With ``ranged`` it fills ``out[lo:hi]`` of each output, and threads share the outputs' first axis. Without it is one
    piece of work, for one thread.

    With ``team``, ranged too, several threads may be called for the same range, as many as the last axis of the last
    output is worth; behind ``hi`` each is told ``lane``, its number, and ``lanes``, how many they are. They share what
    there is to do for an entry, and wait for one another by calling :func:`meet`, all of them.
    """

    function: Callable[..., Any]
    ranged: bool
    team: bool = False

    @cached_property
    def source(self) -> str:
        """The text of a module that defines the function and what it refers to."""
        return self._parts[0]

    @property
    def functions(self) -> tuple[str, ...]:
        """The functions in the source, the kernel last."""
        return self._parts[1]

    @cached_property
    def _parts(self) -> tuple[str, tuple[str, ...]]:
        return standalone_source(self.function)


def meet() -> None:
    """The threads of a team wait for one another: what any has written before, all of them read behind it. A backend
    with teams of one thread leaves it as it is."""


_MODULES = (math, np)
_ALLOWED = "numbers and tuples of them, math, numpy and what is in them, and functions that do likewise"


def standalone_source(function: Callable[..., Any]) -> tuple[str, tuple[str, ...]]:
    """The text of a module that defines ``function`` and what it refers to, and the names of the functions in it,
    ``function`` last. Decorators and annotations are left out. Raises TenonError."""
    kernel = _plain(function)
    if not isinstance(kernel, FunctionType) or kernel.__name__ == "<lambda>":
        raise TenonError(f"a kernel is a function with a name, not {function!r:.60}")
    parts = _Parts(kernel.__name__)
    parts.add(kernel.__name__, kernel)
    return "\n".join(parts.texts), tuple(parts.functions)


class _Parts:
    """The statements of such a text, and what the names in it mean."""

    def __init__(self, kernel: str):
        self.kernel = kernel
        self.meanings: dict[str, Any] = {}
        self.texts: list[str] = []
        self.functions: list[str] = []

    def add(self, name: str, value: Any) -> None:
        """Let ``name`` mean ``value``."""
        value = _plain(value)
        if name in self.meanings:
            if self.meanings[name] is not value and self.meanings[name] != value:
                raise TenonError(f"the kernel {self.kernel!r} and the functions it calls mean two things by {name}")
            return
        self.meanings[name] = value
        if isinstance(value, FunctionType):
            self._function(name, value)
        else:
            self.texts.append(self._statement(name, value))

    def _function(self, name: str, function: FunctionType) -> None:
        try:
            source = textwrap.dedent(inspect.getsource(function))
            definition = ast.parse(source).body[0]
        except (OSError, SyntaxError) as error:
            raise TenonError(f"the source of {function.__name__}, of a kernel, cannot be read: {error}") from None
        if not isinstance(definition, ast.FunctionDef):
            raise TenonError(f"{function.__name__}, which a kernel calls, is not a plain function")
        definition.name, definition.decorator_list, definition.returns = name, [], None
        for arg in ast.walk(definition.args):
            if isinstance(arg, ast.arg):
                arg.annotation = None
        text = ast.unparse(definition)
        from symtable import symtable

        closure = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        known = function.__globals__ | {used: cell.cell_contents for used, cell in closure}
        for used in sorted(set(_globals(symtable(text, name, "exec").get_children()[0]))):
            if used in known:
                self.add(used, known[used])
            elif not hasattr(builtins, used):
                raise TenonError(f"the kernel {self.kernel!r} refers to {used}, which is not defined")
        self.texts.append(text)
        self.functions.append(name)

    def _statement(self, name: str, value: Any) -> str:
        if isinstance(value, ModuleType) and value in _MODULES:
            return f"import {value.__name__} as {name}"
        if callable(value):
            own = getattr(value, "__name__", "")
            for module in _MODULES:
                if getattr(module, own, None) is value:
                    return f"from {module.__name__} import {own} as {name}"
        if _is_number(value) or (isinstance(value, tuple) and all(map(_is_number, value))):
            return f"{name} = {_number(value)}"
        kind = type(value).__name__
        raise TenonError(f"the kernel {self.kernel!r} refers to {name}, of type {kind}; it may refer to {_ALLOWED}")


def _plain(value: Any) -> Any:
    """What Numba's decorators have wrapped."""
    return getattr(value, "py_func", value)


def _globals(table: SymbolTable) -> Iterator[str]:
    """The names that a scope and those inside it take from outside the function."""
    yield from (s.get_name() for s in table.get_symbols() if s.is_global())
    for inner in table.get_children():
        yield from _globals(inner)


def _is_number(value: object) -> bool:
    return isinstance(value, (bool, int, float, np.number, np.bool_))


def _number(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({''.join(f'{_number(v)}, ' for v in value)})"
    plain = value.item() if isinstance(value, np.generic) else value
    return repr(plain) if not isinstance(plain, float) or math.isfinite(plain) else f'float("{plain}")'
