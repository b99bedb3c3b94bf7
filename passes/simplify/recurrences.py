"""Recurrences that are given zeros to start from start from nothing: no product for the first step, forward or back."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from engine.graph import Node, Value, apply
from engine.ops.recurrent import input_names
from passes.simplify.patterns import Rule, any_of_kind, number_of


def _from_nothing(root: Node, opaque: AbstractSet[Value]) -> tuple[Value, ...] | None:
    inputs = dict(zip(input_names(root.op, root.attrs["given"]), root.inputs, strict=True))
    zero = {name for name in ("h", "c") if name in inputs and number_of(inputs[name], opaque) == 0}
    if not zero:
        return None
    given = " ".join(n for n in root.attrs["given"].split() if n not in zero)
    kept = (v for name, v in inputs.items() if name not in zero)
    return apply(root.op.name, *kept, **(root.attrs | {"given": given}))


RULES = (Rule("a recurrence from zeros", any_of_kind("recurrence"), _from_nothing),)
