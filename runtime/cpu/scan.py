"""Linear recurrences along an axis: cumulative sums and products, and their gradients."""

from __future__ import annotations

from engine.program import Call, Lowered
from engine.schedule import KernelSpec, Scan
from runtime.cpu.along import Element, Lines
from runtime.cpu.emit import ArgTable, cast, kernel, loop, times, vocabulary


def lower_scan(spec: KernelSpec, core: Scan) -> Lowered:
    """One call. Each line is walked in order; where lines lie side by side, 64 of them together."""
    table = ArgTable()
    factor, term, out = (Element(a, table) for a in (*spec.reads, *spec.writes))
    axis = core.axis
    lines = Lines.of(spec, (axis,), spec.writes[0])
    dtype = spec.writes[0].dtype
    around = (*lines.outer, *(() if lines.lane is None else (lines.lane,)))
    every = (*around, axis)
    length = table.size(spec.axes[axis])
    product = vocabulary("mul", ["factor", "before"], dtype.computed, dtype.computed)
    body = [
        f"factor = {cast(factor.load(factor.at(every)), spec.reads[0].dtype, dtype.computed)}",
        f"scaled = {product}",
        f"term = {term.load(term.at(every))}",
        f"h = {vocabulary('add', ['scaled', 'term'], dtype.computed, dtype.computed)}",
        out.store(out.at(every), "h"),
    ]
    last = f"{length} - 1 - n" if core.reverse else "n"
    start = f"{length} - 1" if core.reverse else "0"
    if lines.lane is None:
        first = [f"before = {term.load(term.at(every))}", out.store(out.at(every), "before")]
        walk = [f"i{axis} = {last}", *body, "before = h"]
        task = [f"i{axis} = {start}", *first, *loop("n", "1", length, walk)]
    else:
        lane = f"i{lines.lane}"
        before = f"before = {out.load(out.at(every, times('back', out.strides[axis])))}"
        first = loop(lane, "first", "last", [out.store(out.at(every), term.load(term.at(every)))])
        walk = [f"i{axis} = {last}", *loop(lane, "first", "last", [before, *body])]
        task = [f"back = {1 if core.reverse else -1}", f"i{axis} = {start}", *first, *loop("n", "1", length, walk)]
    guarded = [f"if {length} > 0:", *("    " + line for line in task)]
    code = kernel(spec.name, lines.loops(spec, table, guarded), table)
    reads = tuple(dict.fromkeys(a.buffer for a in spec.reads))
    writes = (spec.writes[0].buffer,)
    step = Call(code.key, spec.name, table.args, lines.tasks(spec), reads, writes, 0, spec.nodes)
    return Lowered((step,), (code,))
