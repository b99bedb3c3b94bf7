"""The pattern language: a rule is a pattern and a function, and a table of rules is a pass."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from engine.graph import Node, Value
from engine.op import Op

COMMUTATIVE = frozenset({"add", "mul", "maximum", "minimum", "eq", "ne", "and_", "or_", "bitand", "bitor", "bitxor"})
"""Binary ops whose operands may change places."""


@dataclass
class Match:
    """What a rule's function may ask for, by parameter name: the names bound by its pattern; ``root``, the matched
    node; ``uses``, which tells how often a value is read at most, graph outputs included; and ``opaque``, the values
    that nothing may look behind.
    """

    root: Node
    uses: Callable[[Value], int]
    opaque: AbstractSet[Value]
    bound: dict[str, Any] = field(default_factory=dict)

    def bind(self, name: str, value: Any) -> bool:
        """Bind ``name``, or say whether it is bound to this very object already."""
        return self.bound.setdefault(name, value) is value

    def __getitem__(self, name: str) -> Any:
        return self.bound[name] if name in self.bound else getattr(self, name)


class Pattern(Protocol):
    """Matches a value and binds names in ``match``."""

    def matches(self, value: Value, match: Match) -> bool: ...


@dataclass(frozen=True)
class Var:
    """Any value; the same one wherever the name recurs."""

    name: str

    def matches(self, value: Value, match: Match) -> bool:
        return match.bind(self.name, value)


@dataclass(frozen=True)
class Number:
    """A value that is one known number everywhere, for which ``test`` holds. Binds a NumPy scalar."""

    name: str
    test: Callable[[Any], bool] = lambda number: True

    def matches(self, value: Value, match: Match) -> bool:
        number = number_of(value, match.opaque)
        return number is not None and bool(self.test(number)) and match.bind(self.name, number)


@dataclass(frozen=True)
class OpPattern:
    """The output of an op whose name is among ``ops`` or whose kind is among ``kinds``. ``inputs`` are patterns for
    all its inputs, or None for any. Operands of a commutative op match in either order. ``name`` binds the value."""

    ops: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    inputs: tuple[Pattern, ...] | None = None
    name: str | None = None

    def matches(self, value: Value, match: Match) -> bool:
        if value in match.opaque or len(value.node.outputs) > 1 or not self.matches_node(value.node, match):
            return False
        return self.name is None or match.bind(self.name, value)

    def matches_node(self, node: Node, match: Match) -> bool:
        if node.op.name not in self.ops and node.op.kind not in self.kinds:
            return False
        if self.inputs is None:
            return True
        if len(self.inputs) != len(node.inputs):
            return False
        if node.op.name not in COMMUTATIVE:
            return self._matches_in_order(node.inputs, match)
        before = dict(match.bound)
        if self._matches_in_order(node.inputs, match):
            return True
        match.bound = before
        return self._matches_in_order(node.inputs[::-1], match)

    def _matches_in_order(self, values: Sequence[Value], match: Match) -> bool:
        for pattern, value in zip(self.inputs or (), values, strict=True):  # noqa: SIM110  (the innermost loop of all)
            if not pattern.matches(value, match):
                return False
        return True


def op(names: str | Iterable[str], *inputs: Pattern, name: str | None = None) -> OpPattern:
    """One of the ops called ``names`` with inputs like ``inputs``."""
    return OpPattern(frozenset([names] if isinstance(names, str) else names), inputs=inputs, name=name)


def any_of_kind(*kinds: str) -> OpPattern:
    """Any op of these kinds, whatever its inputs."""
    return OpPattern(kinds=frozenset(kinds))


@dataclass(frozen=True)
class Rule:
    """Nodes that match ``pattern`` become what ``rewrite`` builds: a Value, a tuple of one an output, or None to
    leave them. It is called with those bound names (see Match) that are its parameters."""

    name: str
    pattern: OpPattern
    rewrite: Callable[..., Value | tuple[Value, ...] | None]

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.rewrite).parameters)

    def apply(self, match: Match) -> tuple[Value, ...] | None:
        """The new outputs, of exactly the types of the old ones; None where the rule does not apply."""
        if not self.pattern.matches_node(match.root, match):
            return None
        found = self.rewrite(*(match[p] for p in self.parameters))
        if found is None:
            return None
        outputs = found if isinstance(found, tuple) else (found,)
        same = all(new.type == old.type for new, old in zip(outputs, match.root.outputs, strict=True))
        return outputs if same else None


class RuleTable:
    """Rules, found by the op at the root of their patterns; kinds before names, then in the order given."""

    def __init__(self, rules: Iterable[Rule]):
        self._found: dict[str, tuple[Rule, ...]] = {}
        self._by_key: dict[tuple[str, str], list[Rule]] = {}
        for rule in rules:
            keys = [("kind", k) for k in rule.pattern.kinds] + [("name", n) for n in rule.pattern.ops]
            for key in keys:
                self._by_key.setdefault(key, []).append(rule)

    def rules_for(self, op: Op) -> tuple[Rule, ...]:
        if op.name not in self._found:
            by_kind, by_name = (self._by_key.get(key, []) for key in (("kind", op.kind), ("name", op.name)))
            self._found[op.name] = (*by_kind, *by_name)
        return self._found[op.name]


def number_of(value: Value, opaque: AbstractSet[Value] = frozenset()) -> Any | None:
    """The NumPy scalar that every element of ``value`` is known to be, or None."""
    while value not in opaque:
        node = value.node
        if node.op.name == "constant":
            return _only_number(node.attrs["value"])
        if node.op.name != "broadcast_to":
            return None
        value = node.inputs[0]
    return None


def _only_number(array: np.ndarray) -> Any | None:
    """The element that all are, to the bit: 0.0 is not -0.0, and NaN is itself."""
    if array.size == 0:
        return None
    flat = array.reshape(-1)
    first = flat[:1].tobytes()
    if array.size > 1 and (flat[-1:].tobytes() != first or flat.tobytes() != first * array.size):
        return None
    return flat[0]
