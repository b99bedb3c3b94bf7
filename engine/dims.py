"""Symbolic sizes: integer polynomials over named dims, with floor division and modulo.

A size is an ``int`` or an :class:`Expr`. Expressions are canonical, so two that are equal as polynomials
compare equal, and one that has no dims left is a plain ``int``. Sizes print as Python and parse back.
"""

from __future__ import annotations

import ast
import contextlib
import math
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Union

from engine.errors import ShapeError, SourceLocation, TextError, TraceError, user_location
from engine.records import dataclass

Size = Union[int, "Expr"]
Shape = tuple[Size, ...]


@dataclass(frozen=True)
class Symbol:
    """A named dim."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Quotient:
    """``floor(numerator / denominator)`` or, with ``modulo``, the remainder; where it does not simplify."""

    numerator: Size
    denominator: Size
    modulo: bool = False

    def __str__(self) -> str:
        return f"({_atomic(self.numerator)}{'%' if self.modulo else '//'}{_atomic(self.denominator)})"


Atom = Symbol | Quotient
Monomial = tuple[Atom, ...]


class Expr:
    """A canonical integer polynomial with at least one dim in it. Build one with :func:`dim` and operators."""

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]):
        self.terms = terms
        self._hash = hash(terms)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expr) and self._hash == other._hash and self.terms == other.terms

    def __add__(self, other: Size) -> Size:
        if not _is_size(other):
            return NotImplemented
        return _collect([*self.terms, *_terms(other)])

    __radd__ = __add__

    def __mul__(self, other: Size) -> Size:
        if not _is_size(other):
            return NotImplemented
        return _collect([(_merge(a, b), x * y) for a, x in self.terms for b, y in _terms(other)])

    __rmul__ = __mul__

    def __neg__(self) -> Size:
        return self * -1

    def __sub__(self, other: Size) -> Size:
        if not _is_size(other):
            return NotImplemented
        return self + -1 * other

    def __rsub__(self, other: Size) -> Size:
        return other + -1 * self

    def __floordiv__(self, other: Size) -> Size:
        return _divide(self, other)[0]

    def __rfloordiv__(self, other: int) -> Size:
        return _divide(other, self)[0]

    def __mod__(self, other: Size) -> Size:
        return _divide(self, other)[1]

    def __rmod__(self, other: int) -> Size:
        return _divide(other, self)[1]

    def _undecided(self, *_: object) -> bool:
        raise TraceError(
            f"the size {self} is symbolic: its value is known only when the program runs, so Python cannot "
            "branch on it, count with it or use it as an index while tracing"
        )

    __lt__ = __le__ = __gt__ = __ge__ = __bool__ = _undecided

    def __index__(self) -> int:
        self._undecided()
        raise AssertionError

    __int__ = __index__

    def __str__(self) -> str:
        parts = []
        for mono, c in self.terms:
            factors = [str(a) for a in mono]
            if not factors:
                parts.append(str(c))
            elif c == 1:
                parts.append("*".join(factors))
            elif c == -1:
                parts.append("-" + "*".join(factors))
            else:
                parts.append("*".join([str(c), *factors]))
        return " + ".join(parts).replace("+ -", "- ")

    def __repr__(self) -> str:
        return str(self)


def _is_size(x: object) -> bool:
    return isinstance(x, (int, Expr)) and not isinstance(x, bool)


def _atomic(x: Size) -> str:
    text = str(x)
    return text if text.isidentifier() or text.isdigit() else f"({text})"


def _terms(x: Size) -> tuple[tuple[Monomial, int], ...]:
    if isinstance(x, Expr):
        return x.terms
    return (((), int(x)),) if x else ()


def _merge(a: Monomial, b: Monomial) -> Monomial:
    return tuple(sorted(a + b, key=str))


def _collect(terms: Iterable[tuple[Monomial, int]]) -> Size:
    total: dict[Monomial, int] = {}
    for mono, c in terms:
        total[mono] = total.get(mono, 0) + c
    kept = {m: c for m, c in total.items() if c}
    if not kept:
        return 0
    if list(kept) == [()]:
        return kept[()]
    # Highest degree first, the constant last: 2*B + 1.
    return Expr(tuple(sorted(kept.items(), key=lambda t: (-len(t[0]), [str(a) for a in t[0]]))))


def _divide(a: Size, b: Size) -> tuple[Size, Size]:
    """Floor quotient and remainder, split as far as the terms allow."""
    if isinstance(b, int) and b == 0:
        raise ShapeError(f"division of the size {a} by zero")
    if isinstance(a, int) and isinstance(b, int):
        return divmod(a, b)
    if b == 1:
        return a, 0
    if a == b:
        return 1, 0
    if isinstance(b, int):
        whole = _collect([(m, c // b) for m, c in _terms(a) if c % b == 0])
        rest = _collect([(m, c % b if not m else c) for m, c in _terms(a) if c % b])
        carry = _collect([(m, c // b) for m, c in _terms(a) if not m and c % b])
        whole = whole + carry
        if isinstance(rest, int):
            return whole + rest // b, rest % b
        return whole + _atom(Quotient(rest, b)), _atom(Quotient(rest, b, modulo=True))
    exact = _divide_exactly(a, b)
    if exact is not None:
        return exact, 0
    return _atom(Quotient(a, b)), _atom(Quotient(a, b, modulo=True))


def _divide_exactly(a: Size, b: Expr) -> Size | None:
    """a / b by long division on the leading terms, or None where it leaves a remainder."""
    quotient: Size = 0
    rest = a
    lead, coefficient = b.terms[0]
    for _ in range(16):
        if isinstance(rest, int):
            return quotient if rest == 0 else None
        mono, c = rest.terms[0]
        remaining = list(mono)
        for atom in lead:
            if atom not in remaining:
                return None
            remaining.remove(atom)
        if c % coefficient:
            return None
        step = _collect([(tuple(remaining), c // coefficient)])
        quotient = quotient + step
        rest = rest - step * b
    return None


def _atom(q: Quotient) -> Size:
    return Expr((((q,), 1),))


def dim(name: str) -> Expr:
    """The symbolic size called ``name`` (a Python identifier)."""
    if not name.isidentifier():
        raise ShapeError(f"a dim's name must be a Python identifier, not {name!r}")
    return Expr((((Symbol(name),), 1),))


def parse(text: str | int) -> Size:
    """The size that ``text`` spells, such as ``"2*B + 1"``; ints pass through. Raises TextError."""
    if isinstance(text, int):
        return text
    try:
        return _from_ast(ast.parse(text, mode="eval").body)
    except (SyntaxError, KeyError):
        raise TextError(f"not a size: {text!r}; expected integers and dim names with + - * // %") from None


def _from_ast(node: ast.expr) -> Size:
    match node:
        case ast.Constant(value=int(v)) if not isinstance(v, bool):
            return v
        case ast.Name(id=name):
            return dim(name)
        case ast.UnaryOp(op=ast.USub(), operand=x):
            return -1 * _from_ast(x)
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _from_ast(left), _from_ast(right)
            match op:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.FloorDiv():
                    return a // b
                case ast.Mod():
                    return a % b
    raise KeyError(ast.dump(node))


def evaluate(size: Size, values: Mapping[str, int]) -> int:
    """The integer value of ``size`` with each dim replaced. KeyError names a dim that is missing."""
    if isinstance(size, int):
        return size
    total = 0
    for mono, c in size.terms:
        for atom in mono:
            if isinstance(atom, Symbol):
                c *= values[atom.name]
            else:
                q, r = divmod(evaluate(atom.numerator, values), evaluate(atom.denominator, values))
                c *= r if atom.modulo else q
        total += c
    return total


def substitute(size: Size, values: Mapping[str, Size]) -> Size:
    """``size`` with some dims replaced by other sizes."""
    if isinstance(size, int):
        return size
    total: Size = 0
    for mono, c in size.terms:
        product: Size = c
        for atom in mono:
            if isinstance(atom, Symbol):
                product = product * values.get(atom.name, dim(atom.name))
            else:
                n, d = substitute(atom.numerator, values), substitute(atom.denominator, values)
                product = product * (n % d if atom.modulo else n // d)
        total = total + product
    return total


def names(size: Size) -> set[str]:
    """The dims that ``size`` mentions."""
    if isinstance(size, int):
        return set()
    found: set[str] = set()
    for mono, _ in size.terms:
        for atom in mono:
            if isinstance(atom, Symbol):
                found.add(atom.name)
            else:
                found |= names(atom.numerator) | names(atom.denominator)
    return found


def product(sizes: Iterable[Size]) -> Size:
    return math.prod(sizes, start=1)


def ceil_div(a: Size, b: Size) -> Size:
    return (a + b - 1) // b


# --- assumptions -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Assumption:
    """A fact that tracing relied on and every call checks: ``expr`` is ``== 0``, ``!= 0`` or ``>= 0``."""

    expr: Expr
    relation: str
    reason: str
    location: SourceLocation | None = None

    def holds(self, values: Mapping[str, int]) -> bool:
        v = evaluate(self.expr, values)
        return {"== 0": v == 0, "!= 0": v != 0, ">= 0": v >= 0}[self.relation]

    def __str__(self) -> str:
        return f"{self.expr} {self.relation}"


_active = threading.local()


def _recordings() -> list[list[Assumption]]:
    if not hasattr(_active, "stack"):
        _active.stack = []
    return _active.stack


@contextlib.contextmanager
def recording(into: list[Assumption]) -> Iterator[None]:
    """While active, :func:`assume` appends to ``into``."""
    _recordings().append(into)
    try:
        yield
    finally:
        _recordings().pop()


def assume(expr: Size, relation: str, reason: str) -> None:
    """Rely on ``expr relation`` (``"== 0"``, ``"!= 0"``, ``">= 0"``): decided now where it can be, else recorded.

    Raises ShapeError with ``reason`` where it is known to be false, or where nothing is recording.
    """
    if isinstance(expr, int):
        if not {"== 0": expr == 0, "!= 0": expr != 0, ">= 0": expr >= 0}[relation]:
            raise ShapeError(reason)
        return
    if relation == ">= 0" and _never_negative(expr):
        return
    if not _recordings():
        raise ShapeError(f"{reason} (it cannot be told whether {expr} {relation})")
    found = Assumption(expr, relation, reason, user_location())
    known = _recordings()[-1]
    if not any(a.expr == expr and a.relation == relation for a in known):
        known.append(found)


def _never_negative(size: Size) -> bool:
    """Whether it is a sum of products of what cannot be negative: dims are sizes, so at least 0."""
    if isinstance(size, int):
        return size >= 0
    return all(c >= 0 and all(map(_atom_never_negative, mono)) for mono, c in size.terms)


def _atom_never_negative(atom: Atom) -> bool:
    if isinstance(atom, Symbol):
        return True
    return _never_negative(atom.denominator) and (atom.modulo or _never_negative(atom.numerator))


def broadcast(*shapes: Shape) -> Shape:
    """NumPy's broadcast of ``shapes``. A symbolic size meets only itself or 1; two different ones are assumed
    equal and checked at the call. Raises ShapeError."""
    rank = max(map(len, shapes))
    result: list[Size] = []
    for axis in range(rank):
        size: Size = 1
        for shape in shapes:
            i = axis - (rank - len(shape))
            here = shape[i] if i >= 0 else 1
            if here == 1 or here == size:
                continue
            if size == 1:
                size = here
                continue
            reason = (
                f"shapes {' and '.join(map(shape_text, shapes))} do not broadcast: {size} against {here} in axis {axis}"
            )
            assume(size - here, "== 0", reason)
            if isinstance(size, Expr) and isinstance(here, int):
                size = here
        result.append(size)
    return tuple(result)


def shape_text(shape: Shape) -> str:
    """``(B, 3)`` as it is written in messages."""
    inner = ", ".join(map(str, shape))
    return f"({inner},)" if len(shape) == 1 else f"({inner})"
