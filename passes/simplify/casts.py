"""Casts that change nothing, and casts of casts."""

from __future__ import annotations

import numpy as np

from engine.dtypes import DType
from engine.graph import Node, Value, apply
from passes.simplify.patterns import Rule, Var, op

X = Var("x")


def holds(wide: DType, narrow: DType) -> bool:
    """Whether ``wide`` represents every value of ``narrow``."""
    if wide == narrow:
        return True
    if narrow.storage_only:
        return wide.is_float and not wide.storage_only
    if wide.storage_only:
        return np.can_cast(narrow.numpy, np.float16) if wide.name == "f16" else narrow.itemsize == 1
    return np.can_cast(narrow.numpy, wide.numpy)


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
