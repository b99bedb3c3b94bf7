"""Recurrences step after step, on NumPy arrays or as a graph: what the ops mean, and their gradients' gradients.

``known`` holds what a recurrence is given, by name: see :mod:`engine.ops.recurrent`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from engine import dtypes, scalar
from engine.cells import Cell, evaluate
from engine.dims import Size
from engine.graph import Value, apply
from engine.rules import build, full, transposed


class Arrays:
    """The arithmetic on NumPy arrays."""

    def at(self, x: Any, t: int) -> Any:
        return x[t]

    def gate(self, x: Any, number: int, count: int) -> Any:
        return np.split(x, count, -1)[number]

    def product(self, a: Any, b: Any) -> Any:
        return a @ b

    def turned(self, a: Any) -> Any:
        return a.T

    def add(self, a: Any, b: Any) -> Any:
        return a + b

    def value(self, expression: str, known: Mapping[str, Any]) -> Any:
        return scalar.evaluate(expression, tuple(known), tuple(known.values()))

    def where(self, live: Any, a: Any, b: Any) -> Any:
        return np.where(live, a, b).astype(a.dtype)

    def runs(self, lengths: Any, t: int) -> Any:
        return (t < lengths)[:, None]

    def zeros(self, rows: Size, columns: int, like: Any) -> Any:
        return np.zeros((rows, columns), like.dtype)

    def stack(self, rows: list[Any]) -> Any:
        return np.stack(rows)

    def join(self, parts: list[Any]) -> Any:
        return np.concatenate(parts, -1)


class Graphs:
    """The same, as nodes of the graph that is being built."""

    def at(self, x: Value, t: int) -> Value:
        rest = x.shape[1:]
        row = apply("slice", x, start=(t, 0, 0), stop=(t + 1, *rest), step=(1, 1, 1))
        return apply("reshape", row, shape=rest)

    def gate(self, x: Value, number: int, count: int) -> Value:
        before, size = x.shape[:-1], x.shape[-1] // count
        start, stop = (*(0 for _ in before), number * size), (*before, (number + 1) * size)
        return apply("slice", x, start=start, stop=stop, step=(1,) * len(x.shape))

    def product(self, a: Value, b: Value) -> Value:
        return apply("matmul", a, b)

    def turned(self, a: Value) -> Value:
        return transposed(a)

    def add(self, a: Value, b: Value) -> Value:
        return a + b

    def value(self, expression: str, known: Mapping[str, Value]) -> Value:
        return build(expression, **known)

    def where(self, live: Value, a: Value, b: Value) -> Value:
        return apply("where", live, a, b)

    def runs(self, lengths: Value, t: int) -> Value:
        wide = apply("cast", lengths, dtype=dtypes.i64)
        return apply("lt", t, apply("reshape", wide, shape=(lengths.shape[0], 1)))

    def zeros(self, rows: Size, columns: int, like: Value) -> Value:
        return full((rows, columns), 0, like.dtype)

    def stack(self, rows: list[Value]) -> Value:
        return apply("concat", *(apply("reshape", r, shape=(1, *r.shape)) for r in rows), axis=0)

    def join(self, parts: list[Value]) -> Value:
        return parts[0] if len(parts) == 1 else apply("concat", *parts, axis=len(parts[0].shape) - 1)


def forward(m: Any, cell: Cell, known: Mapping[str, Any], steps: int, reverse: bool) -> dict[str, Any]:
    """The outputs of a recurrence, by name."""
    x, weight = known["x"], known["weight"]
    lengths, projection = known.get("lengths"), known.get("projection")
    batch, hidden = x.shape[1], weight.shape[0] // cell.gates
    state = known["h"] if "h" in known else m.zeros(batch, weight.shape[1], x)
    memory = known["c"] if "c" in known else m.zeros(batch, hidden, x)
    hs, cs, saved = [None] * steps, [None] * steps, [None] * steps
    for t in reversed(range(steps)) if reverse else range(steps):
        row, product = m.at(x, t), m.product(state, m.turned(weight))
        given = {"h": state, "c": memory}
        for k in range(cell.gates):
            given |= {f"x{k}": m.gate(row, k, cell.gates), f"z{k}": m.gate(product, k, cell.gates)}
            if cell.biased:
                given[f"bias{k}"] = m.gate(known["bias"], k, cell.gates)
        found = evaluate(cell.forward, given, m.value)
        after = found["h_next"]
        if projection is not None:
            after = m.product(after, m.turned(projection))
        cell_after = found.get("c_next", memory)
        kept = m.join([found[name] for name in cell.saved]) if cell.saved else None
        if lengths is not None:
            live = m.runs(lengths, t)
            after, cell_after = m.where(live, after, state), m.where(live, cell_after, memory)
            kept = m.where(live, kept, m.zeros(batch, len(cell.saved) * hidden, x)) if cell.saved else None
        state, memory = after, cell_after
        hs[t], cs[t], saved[t] = state, memory, kept
    outputs = {"hs": m.stack(hs), "h_last": state}
    if cell.memory:
        outputs |= {"c_last": memory, "cs": m.stack(cs)}
    if cell.saved:
        outputs["saved"] = m.stack(saved)
    return outputs


def backward(m: Any, cell: Cell, known: Mapping[str, Any], steps: int, reverse: bool) -> dict[str, Any]:
    """The outputs of a recurrence's gradient, by name."""
    weight, hs = known["weight"], known["hs"]
    lengths, projection = known.get("lengths"), known.get("projection")
    batch, width, hidden = hs.shape[1], weight.shape[1], weight.shape[0] // cell.gates
    nothing = {"h": m.zeros(batch, width, hs), "c": m.zeros(batch, hidden, hs)}
    dh, dc = known.get("g_h", nothing["h"]), known.get("g_c", nothing["c"])
    outputs: dict[str, list[Any]] = {name: [None] * steps for name in ("dx", "dz", "dhs")}
    order = range(steps) if reverse else range(steps - 1, -1, -1)
    for t in order:
        before = t + 1 if reverse else t - 1
        first = t == order[-1]
        if "g_hs" in known:
            dh = m.add(dh, m.at(known["g_hs"], t))
        given = {"h_next": m.at(hs, t), "dc": dc, "dh": dh}
        given["h"] = known.get("h", nothing["h"]) if first else m.at(hs, before)
        if projection is not None:
            given["dh"] = m.product(dh, projection)
            outputs["dhs"][t] = dh
        if cell.memory:
            given["c_next"] = m.at(known["cs"], t)
            given["c"] = known.get("c", nothing["c"]) if first else m.at(known["cs"], before)
        for k, name in enumerate(cell.saved):
            given[name] = m.gate(m.at(known["saved"], t), k, len(cell.saved))
        found = evaluate(cell.backward, given, m.value)
        dx = m.join([found[f"dx{k}"] for k in range(cell.gates)])
        dz = m.join([found[f"dz{k}"] for k in range(cell.gates)]) if cell.apart else dx
        into = m.product(dz, weight)
        if cell.direct:
            into = m.add(into, found["dh_direct"])
        dc_before = found.get("dc_before", dc)
        if lengths is not None:
            live = m.runs(lengths, t)
            zero = m.zeros(batch, cell.gates * hidden, hs)
            dx, dz = m.where(live, dx, zero), m.where(live, dz, zero)
            into, dc_before = m.where(live, into, dh), m.where(live, dc_before, dc)
            if projection is not None:
                outputs["dhs"][t] = m.where(live, dh, nothing["h"])
        outputs["dx"][t], outputs["dz"][t] = dx, dz
        dh, dc = into, dc_before
    rows = {name: m.stack(parts) for name, parts in outputs.items() if parts[0] is not None}
    return rows | {"dh": dh, "dc": dc}
