"""Sizes as user code sees them: integers, and symbolic ones that Python cannot branch on by accident."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, NoReturn, Union

from engine import dims
from engine.errors import ShapeError, TraceError
from engine.graph import current_builder, tracing

SizeLike = Union[int, "SymbolicSize"]


class SymbolicSize:
    """A size that is known only when the program runs, such as the batch ``B``.

    Arithmetic gives other sizes. ``==`` and ``!=`` that cannot be told while tracing answer "different", and every
    call of the program checks that this was so. Ordering, truth and use as an index raise TraceError.
    """

    __slots__ = ("expr",)
    __array_ufunc__ = None

    def __init__(self, expr: dims.Expr):
        self.expr = expr

    def __hash__(self) -> int:
        return hash(self.expr)

    def __eq__(self, other: object) -> bool:
        if not _is_size(other):
            return NotImplemented
        difference = self.expr - plain(other)
        if isinstance(difference, int):
            return difference == 0
        if not tracing():
            self._undecided(f"compare it with {other}")
        reason = f"the program was traced with {self} != {other}"
        with dims.recording(current_builder().assumptions):
            dims.assume(difference, "!= 0", reason)
        return False

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __add__(self, other: object) -> Any:
        return _combine(operator.add, self, other)

    def __radd__(self, other: object) -> Any:
        return _combine(operator.add, other, self)

    def __sub__(self, other: object) -> Any:
        return _combine(operator.sub, self, other)

    def __rsub__(self, other: object) -> Any:
        return _combine(operator.sub, other, self)

    def __mul__(self, other: object) -> Any:
        return _combine(operator.mul, self, other)

    def __rmul__(self, other: object) -> Any:
        return _combine(operator.mul, other, self)

    def __floordiv__(self, other: object) -> Any:
        return _combine(operator.floordiv, self, other)

    def __rfloordiv__(self, other: object) -> Any:
        return _combine(operator.floordiv, other, self)

    def __mod__(self, other: object) -> Any:
        return _combine(operator.mod, self, other)

    def __rmod__(self, other: object) -> Any:
        return _combine(operator.mod, other, self)

    def __neg__(self) -> SizeLike:
        return as_size(-self.expr)

    def _undecided(self, what: str) -> NoReturn:
        raise TraceError(
            f"the size {self} is symbolic: its value is known only when the program runs, so while tracing Python "
            f"cannot {what}; give the size as an integer in the spec if it is always the same"
        )

    def __lt__(self, other: object) -> bool:
        self._undecided(f"branch on {self} < {other}")

    def __le__(self, other: object) -> bool:
        self._undecided(f"branch on {self} <= {other}")

    def __gt__(self, other: object) -> bool:
        self._undecided(f"branch on {self} > {other}")

    def __ge__(self, other: object) -> bool:
        self._undecided(f"branch on {self} >= {other}")

    def __bool__(self) -> bool:
        self._undecided("branch on it")

    def __index__(self) -> int:
        self._undecided("count with it (range, an index, int())")

    __int__ = __index__

    def __float__(self) -> float:
        self._undecided("turn it into a float; divide or multiply a tensor by it instead")

    def __truediv__(self, other: object) -> Any:
        if _is_size(other) or isinstance(other, float):
            self._undecided("divide it with /; use //, or divide a tensor by it")
        return NotImplemented

    def __rtruediv__(self, other: object) -> Any:
        if _is_size(other) or isinstance(other, float):
            self._undecided("divide by it with /; use //, or divide a tensor by it")
        return NotImplemented

    def __repr__(self) -> str:
        return str(self.expr)


class Shape(tuple):
    """A tensor's shape: a tuple of integers and symbolic sizes."""

    def __new__(cls, sizes: Iterable[dims.Size]) -> Shape:
        return super().__new__(cls, map(as_size, sizes))

    def numel(self) -> SizeLike:
        """The number of elements."""
        return as_size(dims.product(plain_shape(self)))


def _is_size(x: object) -> bool:
    return isinstance(x, (int, SymbolicSize, dims.Expr)) and not isinstance(x, bool)


def _combine(operation: Any, a: object, b: object) -> Any:
    if not (_is_size(a) and _is_size(b)):
        return NotImplemented
    return as_size(operation(plain(a), plain(b)))


def as_size(size: dims.Size | SymbolicSize) -> SizeLike:
    """An engine's size as user code sees it."""
    return SymbolicSize(size) if isinstance(size, dims.Expr) else size


def plain(size: object) -> dims.Size:
    """The engine's size that ``size`` (an integer or a symbolic size) stands for. Raises ShapeError."""
    if isinstance(size, SymbolicSize):
        return size.expr
    if isinstance(size, dims.Expr):
        return size
    try:
        return operator.index(size)  # type: ignore[arg-type]
    except TypeError:
        raise ShapeError(f"a size is an integer, not {type(size).__name__} {size!r}") from None


def plain_shape(sizes: Iterable[object]) -> dims.Shape:
    return tuple(map(plain, sizes))


def rely_on(sizes: Iterable[dims.Size], reason: str) -> None:
    """Rely on ``sizes`` being at least 0: checked now where they are known, else at every call of the program.

    Raises ShapeError with ``reason``.
    """
    with dims.recording(current_builder().assumptions if tracing() else []):
        for size in sizes:
            dims.assume(size, ">= 0", reason)


def sizes_of(arguments: tuple[Any, ...]) -> dims.Shape:
    """The sizes given as ``f(2, 3)`` or ``f((2, 3))``."""
    if len(arguments) == 1 and isinstance(arguments[0], (tuple, list)):
        arguments = tuple(arguments[0])
    return plain_shape(arguments)
