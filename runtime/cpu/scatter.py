"""Scattering: elements written, or added to others, where an index says.

What falls on one element must do so in row-major order, so a task owns all that can meet: everything along the axes
that an element does not tell apart. Tasks share the others. Where these are few, tasks share the places that an index
can name, and each goes through the whole index for its own.
"""

from __future__ import annotations

from engine import dtypes
from engine.program import Call, Lowered
from engine.schedule import KernelSpec, Scatter
from runtime.axes import collapse
from runtime.cpu.along import Lines
from runtime.cpu.emit import kernel
from runtime.element import Element
from runtime.emit import ArgTable, cast, indent, loop, times, total, vocabulary
from runtime.tasks import typical

RANGES = 16
"""Tasks that share the places of an index where there are fewer others."""


def lower_scatter(spec: KernelSpec, core: Scatter) -> Lowered:
    """One call; the tensor written to has been filled before."""
    spec = collapse(spec)
    table = ArgTable()
    index, source, out = (Element(a, table) for a in (*spec.reads, *spec.writes))
    meeting = [i for i, n in enumerate(spec.axes) if n != 1 and spec.writes[0].strides[i] == 0]
    lines = Lines.of(spec, meeting, spec.writes[0])
    every = [i for i, n in enumerate(spec.axes) if n != 1]
    dtype = spec.writes[0].dtype
    place = out.at([i for i in every if i not in meeting], times("at", table.size(core.stride)))
    incoming = source.load(source.at(every))
    if core.mode == "set":
        write = [out.store(place, incoming)]
    else:
        op = {"add": "add", "mul": "mul", "max": "maximum", "min": "minimum"}[core.mode]
        both = vocabulary(op, ["here", "comes"], dtype.computed, dtype.computed)
        write = [
            f"place = {total(place)}",
            f"here = {out.load('place')}",
            f"comes = {incoming}",
            out.store("place", both),
        ]
    few = not lines.outer and typical(lines.tasks(spec)) < RANGES
    if few:  # all lanes, of the places from low to high
        write = ["if (at >= low) & (at < high):", *indent(write)]
    number = cast(index.load(index.at(every)), spec.reads[0].dtype, dtypes.i64)
    same_along_lanes = lines.lane is not None and spec.reads[0].strides[lines.lane] == 0
    if lines.lane is None:
        body = [f"at = {number}", *write]
    elif same_along_lanes:
        body = [f"at = {number}", *loop(f"i{lines.lane}", "first", "last", write)]
    else:
        body = loop(f"i{lines.lane}", "first", "last", [f"at = {number}", *write])
    for axis in reversed(meeting):
        body = loop(f"i{axis}", "0", table.size(spec.axes[axis]), body)
    tasks = RANGES if few else lines.tasks(spec)
    if few:
        size, ranges = table.size(core.size), table.size(RANGES)
        lane = [] if lines.lane is None else ["first = 0", f"last = {table.size(spec.axes[lines.lane])}"]
        bounds = [f"low = quotient(lo * {size}, {ranges})", f"high = quotient(hi * {size}, {ranges})"]
        code = kernel(spec.name, [*lane, *bounds, *body], table)
    else:
        code = kernel(spec.name, lines.loops(spec, table, body), table)
    buffers = tuple(dict.fromkeys(a.buffer for a in (*spec.reads, *spec.writes)))
    written = (spec.writes[0].buffer,)
    step = Call(code.key, spec.name, table.args, tasks, buffers, written, 0, spec.nodes, indexed=True)
    return Lowered((step,), (code,))
