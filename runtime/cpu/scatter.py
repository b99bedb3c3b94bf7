"""Scattering: elements written, or added to others, where an index says.

What falls on one element must do so in row-major order, so a task owns all that can meet: everything along the axes
that an element does not tell apart. Tasks share the others.
"""

from __future__ import annotations

from engine import dtypes
from engine.program import Call, Lowered
from engine.schedule import KernelSpec, Scatter
from runtime.cpu.along import Element, Lines
from runtime.cpu.axes import collapse
from runtime.cpu.emit import ArgTable, cast, kernel, loop, times, total, vocabulary


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
    code = kernel(spec.name, lines.loops(spec, table, body), table)
    buffers = tuple(dict.fromkeys(a.buffer for a in (*spec.reads, *spec.writes)))
    written = (spec.writes[0].buffer,)
    step = Call(code.key, spec.name, table.args, lines.tasks(spec), buffers, written, 0, spec.nodes, indexed=True)
    return Lowered((step,), (code,))
