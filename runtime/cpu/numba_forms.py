"""The words of kernels as Numba knows them, for kernels that need the whole of Numba: users' kernels do."""

from __future__ import annotations

import inspect
from functools import cache
from types import CellType, FunctionType
from typing import Any

from numba import njit
from numba.core import types
from numba.extending import intrinsic

from runtime.cpu import kinds
from runtime.cpu.kinds import Kind, Literal
from runtime.cpu.words import Helper, Intrinsic

compiled = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)
"""Decorator of the functions that kernels call."""


@cache
def numba_form(word: Any) -> Any:
    """An Intrinsic or a Helper for Numba's front end; anything else is what it was."""
    if isinstance(word, Intrinsic):
        return _intrinsic(word)
    if isinstance(word, Helper):
        f = word.function
        cells = tuple(CellType(_known(c.cell_contents)) for c in f.__closure__ or ())
        return compiled(FunctionType(f.__code__, f.__globals__, f.__name__, f.__defaults__, cells or None))
    return word


def _known(value: Any) -> Any:
    return numba_form(value) if isinstance(value, Intrinsic | Helper) else value


def to_numba(names: dict[str, Any]) -> None:
    """Put Numba's forms of words in the place of those that a module's names mean."""
    names.update({name: numba_form(word) for name, word in names.items() if isinstance(word, Intrinsic | Helper)})


def _intrinsic(word: Intrinsic) -> Any:
    def define(typingctx: Any, *given: types.Type) -> Any:
        signature, emit = word.define(*map(_kind, given))

        def generate(context: Any, builder: Any, _: Any, values: Any) -> Any:
            found = emit(builder, values)
            return context.get_dummy_value() if found is None else found

        pairs = zip(signature.parameters, given, strict=True)
        wanted = [have if isinstance(p, Literal) else _type(p) for p, have in pairs]
        return _type(signature.result)(*wanted), generate

    names = ["typingctx", *inspect.signature(word.define).parameters]
    plain = inspect.Parameter.POSITIONAL_OR_KEYWORD
    define.__signature__ = inspect.Signature([inspect.Parameter(n, plain) for n in names])  # type: ignore[attr-defined]
    define.__name__ = word.__name__
    return intrinsic(prefer_literal=word.literals)(define)


def _kind(given: types.Type) -> Kind | Literal:
    if isinstance(given, types.IntegerLiteral):
        return Literal(kinds.int64, given.literal_value)
    return kinds.BY_NAME[str(given)]


def _type(kind: Kind | Literal) -> types.Type:
    assert isinstance(kind, Kind)
    return getattr(types, {"bool": "boolean"}.get(kind.name, kind.name))
