"""How the words of kernels are defined: instructions that bring their own code, and functions to be put in place."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from llvmlite import ir

from runtime.cpu.kinds import Signature

Emit = Callable[[ir.IRBuilder, Sequence[ir.Value]], Any]


class Intrinsic:
    """A word that brings its code. ``define``, called with the kinds of the arguments, gives a signature and what emits
    the code of it for values: ``emit(builder, values)``, which returns the result, or None where that is ``void``. With
    ``literals`` it is told of integers that are written down which they are."""

    def __init__(self, define: Callable[..., tuple[Signature, Emit]], literals: bool = False):
        self.define = define
        self.literals = literals
        self.__name__ = define.__name__
        self.__doc__ = define.__doc__
        self.arity = len(inspect.signature(define).parameters)

    def __repr__(self) -> str:
        return f"the intrinsic {self.__name__}"


def intrinsic(define: Callable[..., tuple[Signature, Emit]] | None = None, *, literals: bool = False) -> Any:
    """Decorator that makes an Intrinsic of its definition."""
    if define is None:
        return lambda given: Intrinsic(given, literals)
    return Intrinsic(define, literals)


class Helper:
    """A function in the Python of kernels, whose body is put in the place of its calls."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    def __repr__(self) -> str:
        return f"the function {self.function.__name__}"

    @cached_property
    def tree(self) -> ast.FunctionDef:
        """The function as it is written, in a module that is a file."""
        (found,) = ast.parse(textwrap.dedent(inspect.getsource(self.function))).body
        assert isinstance(found, ast.FunctionDef)
        return found

    @property
    def names(self) -> Mapping[str, Any]:
        """What the names mean that it does not set itself."""
        closure = self.function.__closure__ or ()
        inner = {n: c.cell_contents for n, c in zip(self.function.__code__.co_freevars, closure, strict=True)}
        return {**self.function.__globals__, **inner}


def helper(function: Callable[..., Any]) -> Any:
    """Decorator that makes a Helper of a function."""
    return Helper(function)
