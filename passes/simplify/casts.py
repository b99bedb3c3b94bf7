"""Casts that change nothing, and casts of casts."""

from __future__ import annotations

from engine.dtypes import DType
from engine.graph import Node, Value, apply
from passes.simplify.patterns import Rule, Var, op

X = Var("x")


# The widest integers, in bits, that a float represents without gaps: its significand.
_SIGNIFICAND = {"bf16": 8, "f16": 11, "f32": 24, "f64": 53}


def holds(wide: DType, narrow: DType) -> bool:
    """Whether ``wide`` represents every value of ``narrow``."""
    if wide == narrow or narrow.kind == "b":
        return True
    if narrow.is_float:
        return wide.is_float and wide.itemsize > narrow.itemsize
    if wide.is_float:
        return _value_bits(narrow) <= _SIGNIFICAND[wide.name]
    signed_fits = wide.kind == "i" or narrow.kind == "u"
    return wide.is_integer and signed_fits and _value_bits(narrow) <= _value_bits(wide)


def _value_bits(integer: DType) -> int:
    """Bits beside the sign."""
    return 8 * integer.itemsize - (integer.kind == "i")


def _direct(x: Value, root: Node) -> Value | None:
    """``cast(cast(x, middle), last)`` as one cast, where ``middle`` loses nothing. A float cast to an integer that
    does not hold it has no defined result, and stays what it is."""
    middle, last = root.inputs[0].dtype, root.output.dtype
    if not holds(middle, x.dtype):
        return None
    if middle.is_float and last.is_integer and not holds(last, x.dtype):
        return None
    return apply("cast", x, dtype=last)


RULES = (
    Rule("cast to the same dtype", op("cast", X), lambda x: x),
    Rule("cast of cast", op("cast", op("cast", X)), _direct),
)
