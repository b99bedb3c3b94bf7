"""Which masks are causal: query i sees the keys up to i, and no others, whatever is given to the program.

A mask that comes from comparing positions is understood without looking at its elements, so that lengths may be
symbolic. Any other mask of known elements is computed and looked at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from engine import dims
from engine.dims import Shape
from engine.dtypes import bool_
from engine.graph import Node, Value

KNOWN_ELEMENTS = 1 << 22
"""The largest mask that is looked at while compiling."""
_COMPARISONS = ("lt", "le", "gt", "ge")


@dataclass(frozen=True)
class _Line:
    """The number ``query * i + key * j + offset`` at the place (i, j) of the last two axes."""

    query: int
    key: int
    offset: int


@dataclass(frozen=True)
class _Sides:
    """One number wherever the key's position is at most the query's, and one wherever it is beyond."""

    up_to: np.ndarray
    beyond: np.ndarray

    @property
    def same(self) -> bool:
        return bool(np.array_equal(self.up_to, self.beyond, equal_nan=self.up_to.dtype.kind == "f"))


_Meaning = _Line | _Sides | None


def is_causal(mask: Value) -> bool:
    """Whether a mask, of bools that say what is seen or of numbers that are added to scores, is known to let query i
    see the keys up to i and no others, in every head."""
    if len(mask.shape) < 2 or dims.product(mask.shape[:-2]) != 1:
        return False
    seen, hidden = (True, False) if mask.dtype == bool_ else (0.0, -math.inf)
    meaning = _meaning(mask, {})
    if isinstance(meaning, _Sides):
        return bool(meaning.up_to == seen and meaning.beyond == hidden)
    found = _known(mask)
    return found is not None and np.array_equal(
        found.reshape(found.shape[-2:]), np.where(np.tri(*found.shape[-2:]) != 0, seen, hidden)
    )


def _meaning(value: Value, memo: dict[Value, _Meaning]) -> _Meaning:
    """What ``value`` is in terms of positions, if that is known."""
    if value not in memo:
        memo[value] = _read(value, memo)
    return memo[value]


def _read(value: Value, memo: dict[Value, _Meaning]) -> _Meaning:
    node = value.node
    if node.op.name == "constant":
        number = node.attrs["value"]
        return _Sides(number.reshape(()), number.reshape(())) if number.size == 1 else None
    if node.op.name == "iota":
        axis = node.attrs["axis"] - len(value.shape)
        moves = int(value.shape[axis] != 1)
        return _Line(moves * (axis == -2), moves * (axis == -1), 0) if axis >= -2 and _counts(value) else None
    if node.op.kind != "elementwise" and node.op.name not in ("reshape", "broadcast_to"):
        return None
    inputs = [_meaning(x, memo) for x in node.inputs]
    if any(x is None for x in inputs):
        return None
    if node.op.name == "broadcast_to":
        return inputs[0]
    if node.op.name == "reshape":
        return _moved(inputs[0], node.inputs[0].shape, value.shape)
    if all(isinstance(x, _Sides) for x in inputs):
        up_to, beyond = (
            node.op.evaluate([getattr(x, side) for x in inputs], (value.type,), node.attrs)[0]
            for side in ("up_to", "beyond")
        )
        return _Sides(up_to, beyond)
    return _of_lines(node, [_line(x) for x in inputs])


def _moved(meaning: _Meaning, old: Shape, new: Shape) -> _Meaning:
    """What was said of places, after a reshape that puts in or takes out axes of size 1."""
    if isinstance(meaning, _Sides) and meaning.same:
        return meaning
    before, after = ([(i - len(s), n) for i, n in enumerate(s) if n != 1] for s in (old, new))
    if [n for _, n in before] != [n for _, n in after]:
        return None
    to = {a: b for (a, _), (b, _) in zip(before, after, strict=True)}
    if isinstance(meaning, _Sides):
        return meaning if to == {-2: -2, -1: -1} else None
    assert meaning is not None
    factors = {to[axis]: f for axis, f in ((-2, meaning.query), (-1, meaning.key)) if f}
    if not factors.keys() <= {-2, -1}:
        return None
    return _Line(factors.get(-2, 0), factors.get(-1, 0), meaning.offset)


def _line(meaning: _Meaning) -> _Line | None:
    """A number of positions as a line, where it is whole."""
    if isinstance(meaning, _Sides):
        whole = meaning.same and meaning.up_to.dtype.kind in "iuf" and float(meaning.up_to).is_integer()
        return _Line(0, 0, int(meaning.up_to)) if whole else None
    return meaning


def _of_lines(node: Node, lines: list[_Line | None]) -> _Meaning:
    """Sums, differences and comparisons of lines."""
    name, (x, *rest) = node.op.name, lines
    if x is None or None in rest:
        return None
    if name == "cast":
        return x if _counts(node.output) else None
    if name not in _COMPARISONS and not (name in ("add", "sub") and _counts(node.output)):
        return None
    (y,) = rest
    assert y is not None
    if name == "add":
        return _Line(x.query + y.query, x.key + y.key, x.offset + y.offset)
    less = _Line(x.query - y.query, x.key - y.key, x.offset - y.offset)
    if name == "sub":
        return less
    if less.query != -less.key:
        return None
    # The comparison changes at one difference of the positions at most. It must be the one behind i - j = 0.
    up_to, beyond = (
        node.op.evaluate(
            [np.asarray(less.query * apart + less.offset), np.asarray(0)], (node.output.type,), node.attrs
        )[0]
        for apart in (0, -1)
    )
    return _Sides(up_to, beyond) if up_to != beyond else None


def _counts(value: Value) -> bool:
    """Whether its dtype holds every difference of two positions."""
    return value.dtype.numpy.kind in "if" and value.dtype.numpy.itemsize >= 4


def _known(value: Value) -> np.ndarray | None:
    """The array that ``value`` is for every input, where it is made of numbers and indices alone."""
    node = value.node
    size = dims.product(value.shape)
    if not isinstance(size, int) or size > KNOWN_ELEMENTS or len(node.outputs) != 1:
        return None
    if node.op.name == "constant":
        return node.attrs["value"]
    if node.op.kind not in ("index", "elementwise", "view"):
        return None
    arrays = [a for a in map(_known, node.inputs) if a is not None]
    if len(arrays) < len(node.inputs):
        return None
    (found,) = node.op.evaluate(arrays, (value.type,), node.attrs)
    return found
