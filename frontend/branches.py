"""Tracing branches: a builder that marks what enters a branch, so that gradients flow out of it only where it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.graph import Builder, Value
from engine.op import Op, get


@dataclass
class Branch:
    """A branch being traced, which runs where ``condition`` is ``side``. ``made`` are the values computed in it,
    ``entered`` what stands in it for a value from outside."""

    condition: Value
    side: bool
    made: set[Value] = field(default_factory=set)
    entered: dict[Value, Value] = field(default_factory=dict)


class BranchingBuilder(Builder):
    """A builder that traces branches of conditionals one inside the other."""

    def __init__(self, name: str = "graph"):
        super().__init__(name)
        self._branches: list[Branch] = []

    @contextmanager
    def branch(self, condition: Value, side: bool) -> Iterator[None]:
        """Nodes added meanwhile belong to a branch."""
        self._branches.append(Branch(condition, side))
        try:
            yield
        finally:
            inner = self._branches.pop()
            if self._branches:
                self._branches[-1].made |= inner.made

    @contextmanager
    def where_made(self, value: Value) -> Iterator[None]:
        """Nodes added meanwhile belong to the branches in which ``value`` was computed, and to no inner ones."""
        inside = self._branches
        self._branches = [b for b in inside if value in b.made]
        try:
            yield
        finally:
            self._branches = inside

    def add(self, op: Op, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> tuple[Value, ...]:
        if op.kind == "check":
            inputs = (self._where_run(inputs[0]),)
        elif op.kind != "grad":  # whose inputs are the very values that it differentiates between
            inputs = tuple(self._inside(v, len(self._branches)) for v in inputs)
        outputs = super().add(op, inputs, attrs)
        for branch in self._branches:
            branch.made.update(outputs)
        return outputs

    def _where_run(self, indices: Value) -> Value:
        """``indices`` where all the branches run, else zeros: a check is for every call, and a branch is not."""
        zero = np.zeros((), indices.dtype.numpy)
        zero.flags.writeable = False
        for branch in reversed(self._branches):
            (none,) = super().add(get("constant"), (), {"value": zero, "dtype": indices.dtype})
            arms = (indices, none) if branch.side else (none, indices)
            (indices,) = super().add(get("merge"), (branch.condition, *arms), {})
        return indices

    def _inside(self, value: Value, depth: int) -> Value:
        """``value`` as the first ``depth`` branches see it. Only floats have gradients, so only they are marked."""
        if (
            depth == 0
            or not value.dtype.is_float
            or value.node.op.kind == "source"
            and value.node.op.name == "constant"
        ):
            return value
        branch = self._branches[depth - 1]
        if value in branch.made:
            return value
        if value not in branch.entered:
            outer = self._inside(value, depth - 1)
            (mark,) = super().add(get("switch"), (branch.condition, outer), {"side": branch.side})
            branch.entered[value] = mark
            for inner in self._branches[:depth]:
                inner.made.add(mark)
        return branch.entered[value]
