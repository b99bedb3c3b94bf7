"""What reductions are in source text: identities, combination, phases, the rewriting of argmax."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine import dtypes
from engine.dtypes import DType
from engine.schedule import Stmt
from runtime.emit import constant, vocabulary


def is_reduction(stmt: Stmt) -> bool:
    return stmt.op.startswith("reduce_")


def extreme(dtype: DType, largest: bool) -> float | int | bool:
    """The largest or smallest value of ``dtype``."""
    if dtype.is_float:
        return float("inf") if largest else float("-inf")
    if dtype.kind == "b":
        return largest
    info = np.iinfo(dtype.numpy)
    return int(info.max if largest else info.min)


def identity(stmt: Stmt) -> str:
    """The literal that the reduction starts from, and gives for no elements at all."""
    match stmt.op:
        case "reduce_sum":
            return constant(0, stmt.dtype)
        case "reduce_prod":
            return constant(1, stmt.dtype)
    return constant(extreme(stmt.dtype, largest=stmt.op == "reduce_min"), stmt.dtype)


def combined(stmt: Stmt, a: str, b: str) -> str:
    """The expression that joins two partial results."""
    op = {"reduce_sum": "add", "reduce_prod": "mul", "reduce_max": "maximum", "reduce_min": "minimum"}[stmt.op]
    if op in ("maximum", "minimum") and stmt.dtype.kind != "b":
        return f"running_{op}({a}, {b})"
    return vocabulary(op, [a, b], stmt.dtype, stmt.dtype)


def without_arg_reductions(body: Sequence[Stmt]) -> tuple[Stmt, ...]:
    """``body`` with each argmax and argmin as two reductions that vectorise: the extremum, then the least index
    at which it (or, where it is NaN, a NaN) is found."""
    result: list[Stmt] = []
    kinds = {s.name: s.dtype for s in body}
    for stmt in body:
        if stmt.op not in ("reduce_argmax", "reduce_argmin"):
            result.append(stmt)
            continue
        value, index = (str(a) for a in stmt.args)
        n, kind = stmt.name, kinds[value]
        limit = extreme(kinds[index], largest=True)
        result += [
            Stmt(f"{n}.best", stmt.op.replace("_arg", "_"), (value,), kind),
            Stmt(f"{n}.equal", "eq", (value, f"{n}.best"), dtypes.bool_),
            Stmt(f"{n}.nan", "ne", (value, value), dtypes.bool_),
            Stmt(f"{n}.match", "or_", (f"{n}.equal", f"{n}.nan"), dtypes.bool_),
            Stmt(f"{n}.limit", "const", (limit,), kinds[index]),
            Stmt(f"{n}.candidate", "where", (f"{n}.match", index, f"{n}.limit"), kinds[index]),
            Stmt(f"{n}.first", "reduce_min", (f"{n}.candidate",), kinds[index]),
            Stmt(n, "cast", (f"{n}.first",), stmt.dtype),
        ]
    return tuple(result)


def phases(body: Sequence[Stmt], written_and_read: set[int]) -> dict[str, int]:
    """The pass over the reduced axes in which each statement can first be computed: one more than that of the
    reductions it depends on. A store into a buffer that is also read waits for the last pass."""
    found: dict[str, int] = {}
    for stmt in body:
        before = [found[a] for a in stmt.args if isinstance(a, str)]
        found[stmt.name] = max(before, default=0)
        if is_reduction(stmt):
            found[stmt.name] += 1
    last = max(found.values(), default=0)
    for stmt in body:
        if stmt.op == "store" and int(stmt.args[0]) in written_and_read:
            found[stmt.name] = last
    return found
