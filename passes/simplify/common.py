"""When two nodes are the same computation."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from engine.graph import Node, Value
from passes.simplify.patterns import COMMUTATIVE


def computation(node: Node, inputs: tuple[Value, ...]) -> Hashable:
    """Equal for nodes that give the same values on the same inputs. Constants compare by content, to the bit;
    random ops by their stream, an attribute as any other; a check by what it checks."""
    order = tuple(map(id, inputs))
    if node.op.name in COMMUTATIVE:
        order = tuple(sorted(order))
    return node.op.name, order, tuple((k, _hashable(v)) for k, v in node.attrs.items())


def _hashable(value: Any) -> Hashable:
    """Equal only for the same thing: 0.0, -0.0, 0 and False are four."""
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.str, value.tobytes()
    if isinstance(value, tuple):
        return tuple(map(_hashable, value))
    if isinstance(value, float):
        return "float", value.hex()
    return type(value), value
