"""Attention that is written out, as one op: ``softmax(q @ k.T * scale + mask) @ v`` makes no matrix of all scores then.

The scores are found behind the softmax: a product, times or divided by numbers, behind masks. A mask is a ``where``
that puts a number far below any score, or numbers that are added. One that is known to be causal (passes/simplify/
causal.py) is an attribute. What a query that sees no key gives stays what it was: NaN behind minus infinity, as
softmax has it; the mean of the values behind a finite number; zeros where a ``where`` around the softmax puts them.

Nobody else may read the weights or the scores, for they are not made any more. Of few keys the matrix is small, and
products beside a fused softmax are as fast.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from engine.dims import Shape
from engine.graph import Node, Value, apply
from engine.rules import keep_axes, transposed
from passes.simplify.causal import is_causal
from passes.simplify.patterns import Rule, Var, number_of, op

LEAST_KEYS = {"inference": 32, "training": 128}
"""Of fewer keys the matrix is made. Measured on a CPU: from 32 keys on the result takes 0.75 to 0.85 of the time
without it; with a gradient, which makes the weights again, the op draws level at about 128."""
LOWEST = -1e4
"""Numbers up to this one mask a score: beside a score that is greater by 104, an exponential in float32 is zero."""

Uses = Callable[[Value], int]
Opaque = AbstractSet[Value]


@dataclass(frozen=True)
class _Scores:
    """``q @ turned_k * scale + added``, but ``fill`` where not ``seen``."""

    q: Value
    turned_k: Value
    scale: float = 1.0
    added: Value | None = None
    seen: Value | None = None
    fill: float = -math.inf
    causal: bool = False


class _Reader:
    """What stands behind a value, as far as nobody else reads what it is made of."""

    def __init__(self, uses: Uses, opaque: Opaque):
        self._uses, self._opaque = uses, opaque

    def made_by(self, name: str, value: Value, readers: int = 1) -> Node | None:
        """The node of that op which makes ``value`` for so many readers, where one may look behind it."""
        node = value.node
        plain = node.op.name == name and value not in self._opaque and self._uses(value) <= readers
        return node if plain else None

    def number(self, value: Value) -> float | None:
        found = number_of(value, self._opaque)
        return None if found is None else float(found)

    def weights(self, value: Value) -> tuple[_Scores, float] | None:
        """The scores of which ``value`` is the softmax along the last axis, and what stands where none is seen."""
        empty, readers, nowhere = math.nan, 1, None
        outer = self.made_by("where", value)
        if outer is not None:
            nowhere, zero, value = outer.inputs
            empty, readers = 0.0, 2
            if self.number(zero) != 0:
                return None
        softmax = self.made_by("softmax", value)
        if softmax is None or softmax.attrs["axis"] != len(value.shape) - 1:
            return None
        value = softmax.inputs[0]
        if nowhere is not None:
            inner = self.made_by("where", value)
            if inner is None or inner.inputs[0] is not nowhere or self.number(inner.inputs[1]) != 0:
                return None
            value = inner.inputs[2]
            if not self._tells_nowhere(nowhere, value):
                return None
        scores = self.scores(value, readers)
        return None if scores is None or (nowhere is not None and scores.fill != -math.inf) else (scores, empty)

    def _tells_nowhere(self, nowhere: Value, scores: Value) -> bool:
        """Whether ``nowhere`` is ``max(scores) == -inf``, row by row."""
        node = self.made_by("eq", nowhere, readers=2)
        if node is None or self.number(node.inputs[1]) != -math.inf:
            return False
        top = self.made_by("max", node.inputs[0])
        last = (len(scores.shape) - 1,)
        return top is not None and top.inputs[0] is scores and top.attrs["axes"] == last and top.attrs["keepdims"]

    def scores(self, value: Value, readers: int = 1) -> _Scores | None:
        product = self.made_by("matmul", value, readers)
        if product is not None:
            q, turned_k = product.inputs
            return _Scores(q, turned_k)
        for name, read in (("mul", self._scaled), ("div", self._scaled), ("add", self._added), ("where", self._masked)):
            node = self.made_by(name, value, readers)
            if node is not None:
                return read(node)
        return None

    def _scaled(self, node: Node) -> _Scores | None:
        x, factor = node.inputs
        if node.op.name == "mul" and self.number(x) is not None:
            x, factor = factor, x
        number, inner = self.number(factor), self.scores(x)
        if inner is None or not number or inner.added is not None or inner.seen is not None:
            return None
        return replace(inner, scale=inner.scale * number if node.op.name == "mul" else inner.scale / number)

    def _added(self, node: Node) -> _Scores | None:
        for x, more in (node.inputs, node.inputs[::-1]):
            inner = self.scores(x) if x.shape == node.output.shape else None
            if inner is not None and inner.seen is None and inner.added is None and not self._differentiated(more):
                return replace(inner, added=more)
        return None

    def _masked(self, node: Node) -> _Scores | None:
        chosen, a, b = node.inputs
        first, second = self.number(a), self.number(b)
        fill, x = (first, b) if first is not None else (second, a)
        if fill is None or not fill <= LOWEST or x.shape != node.output.shape:
            return None
        inner = self.scores(x)
        if inner is None or inner.seen is not None or (fill != -math.inf and inner.added is not None):
            return None
        return replace(inner, seen=chosen if x is a else apply("not_", chosen), fill=fill)

    def _differentiated(self, value: Value) -> bool:
        """Whether a gradient is asked for of what ``value`` is made of: it would need the matrix."""
        behind, known = [value], {value}
        while behind:
            value = behind.pop()
            if value in self._opaque:
                return True
            behind += (new := set(value.node.inputs) - known)
            known |= new
        return False


def _written_out(weights: Value, v: Value, root: Node, uses: Uses, opaque: Opaque) -> Value | None:
    read = _Reader(uses, opaque).weights(weights)
    if read is None:
        return None
    scores, empty = read
    if not _fits(scores, v, weights.shape, LEAST_KEYS["training" if opaque else "inference"]):
        return None
    scores = _with_causal(scores)
    averaged = scores.seen is not None and scores.fill != -math.inf
    mask = _mask(scores)
    given = [] if mask is None else [_of_four_axes(mask, len(weights.shape))]
    inputs = (_of_four_axes(x, len(weights.shape)) for x in (scores.q, transposed(scores.turned_k), v))
    out, lse = apply("attention", *inputs, *given, given="mask" * len(given), causal=scores.causal, scale=scores.scale,
                     empty=0.0 if averaged else empty)  # fmt: skip
    if averaged:
        everything = apply("mean", _of_four_axes(v, len(weights.shape)), axes=(2,), keepdims=True)
        out = apply("where", apply("eq", keep_axes(lse, (3,)), math.inf), everything, out)
    return apply("reshape", out, shape=root.output.shape)


def _fits(scores: _Scores, v: Value, shape: Shape, least_keys: int) -> bool:
    """Whether the op takes these: all of one dtype and the same leading axes, with known numbers of features, and
    enough keys."""
    parts = (scores.q, scores.turned_k, v)
    keys = shape[-1]
    return (
        2 <= len(shape) <= 4
        and len({x.dtype for x in parts}) == 1
        and all(x.shape[:-2] == shape[:-2] for x in parts)
        and isinstance(scores.q.shape[-1], int)
        and isinstance(v.shape[-1], int)
        and not (isinstance(keys, int) and keys < least_keys)
    )


def _of_four_axes(x: Value, rank: int) -> Value:
    """``x``, which broadcasts to a shape of that rank, with the axes (batch, heads, ., .): one head where none is told,
    of a batch of one where none is."""
    shape = (1,) * (rank - len(x.shape)) + x.shape
    shape = (*shape[: rank - 2], *(1,) * (4 - rank), *shape[-2:])
    return x if shape == x.shape else apply("reshape", x, shape=shape)


def _mask(scores: _Scores) -> Value | None:
    added = scores.added
    if added is not None and added.dtype != scores.q.dtype:
        added = apply("cast", added, dtype=scores.q.dtype)
    if added is None or scores.seen is None:
        return scores.seen if added is None else added
    return apply("where", scores.seen, added, -math.inf)


def _with_causal(scores: _Scores) -> _Scores:
    """A mask that is known to be causal as that."""
    if scores.added is not None and is_causal(scores.added):
        scores = replace(scores, added=None, causal=True)
    if scores.seen is None:
        return scores
    conditions = _conditions(scores.seen)
    others = [c for c in conditions if not is_causal(c)]
    if len(others) == len(conditions):
        return scores
    seen = None
    for other in others:
        seen = other if seen is None else apply("and_", seen, other)
    return replace(scores, causal=True, seen=seen)


def _conditions(seen: Value, negated: bool = False) -> list[Value]:
    """Those that hold together where ``seen`` does, or where it does not."""
    node = seen.node
    if node.op.name in ("not_", "invert"):
        return _conditions(node.inputs[0], not negated)
    if node.op.name in (("or_", "bitor") if negated else ("and_", "bitand")):
        return [c for x in node.inputs for c in _conditions(x, negated)]
    return [apply("not_", seen) if negated else seen]


RULES = (Rule("attention", op("matmul", Var("weights"), Var("v")), _written_out),)
