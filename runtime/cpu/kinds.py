"""The kinds of values in CPU kernels: numbers of a few widths, bools, and nothing; named as Numba names them."""

from __future__ import annotations

from typing import NamedTuple

from llvmlite import ir

from engine.records import dataclass


@dataclass(frozen=True)
class Kind:
    """``letter`` is ``f`` for floats, ``i`` and ``u`` for integers, ``b`` for bools, and ``v`` for nothing. ``ir`` is
    the type of a value in a register. Called with the kinds of parameters, a kind is the signature that gives it."""

    name: str
    letter: str
    ir: ir.Type

    def __call__(self, *parameters: Kind | Literal) -> Signature:
        return Signature(self, parameters)

    def __repr__(self) -> str:
        return self.name

    @property
    def is_float(self) -> bool:
        return self.letter == "f"

    @property
    def is_integer(self) -> bool:
        return self.letter in "iu"

    @property
    def signed(self) -> bool:
        return self.letter == "i"

    @property
    def bits(self) -> int:
        """Of an integer or a bool."""
        return self.ir.width


class Literal(NamedTuple):
    """The kind of an argument that is written down as a number, with that number."""

    kind: Kind
    value: int


class Signature(NamedTuple):
    """What is given for arguments of these kinds."""

    result: Kind
    parameters: tuple[Kind | Literal, ...]


float32, float64 = Kind("float32", "f", ir.FloatType()), Kind("float64", "f", ir.DoubleType())
int8, int32, int64 = (Kind(f"int{bits}", "i", ir.IntType(bits)) for bits in (8, 32, 64))
uint8 = Kind("uint8", "u", ir.IntType(8))
boolean = Kind("bool", "b", ir.IntType(1))
void = Kind("none", "v", ir.VoidType())

BY_NAME = {kind.name: kind for kind in (float32, float64, int8, int32, int64, uint8, boolean, void)}
"""NumPy's names of scalar types, too."""
