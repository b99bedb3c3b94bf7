"""What runs along an axis: cumulative sums and products as linear recurrences, and greatest and least so far."""

from __future__ import annotations

from engine.program import Lowered
from engine.schedule import KernelSpec, RunningExtremum, Scan
from runtime.cpu.along import Lines
from runtime.cpu.emit import kernel
from runtime.element import Element
from runtime.emit import ArgTable, call, cast, loop, times, vocabulary


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
    return Lowered((call(spec, code, table, lines.tasks(spec)),), (code,))


def lower_running(spec: KernelSpec, core: RunningExtremum) -> Lowered:
    """One call, as for a scan: what is carried along a line is the best element and its position."""
    table = ArgTable()
    source, out, position = (Element(a, table) for a in (*spec.reads, *spec.writes))
    axis = core.axis
    lines = Lines.of(spec, (axis,), spec.writes[0])
    around = (*lines.outer, *(() if lines.lane is None else (lines.lane,)))
    every = (*around, axis)
    length = table.size(spec.axes[axis])
    better = "(x >= best)" if core.greatest else "(x <= best)"
    if spec.reads[0].dtype.is_float:
        better += " | (x != x)"
    write = [out.store(out.at(every), "best"), position.store(position.at(every), "place")]
    first = [f"best = {source.load(source.at(every))}", "place = 0", *write]
    step = [f"x = {source.load(source.at(every))}", f"better = {better}",
            "best = select(better, x, best)", f"place = select(better, i{axis}, place)", *write]  # fmt: skip
    if lines.lane is None:
        task = [f"i{axis} = 0", *first, *loop(f"i{axis}", "1", length, step)]
    else:
        lane = f"i{lines.lane}"
        before = [f"best = {out.load(out.at(every, times('-1', out.strides[axis])))}",
                  f"place = {position.load(position.at(every, times('-1', position.strides[axis])))}"]  # fmt: skip
        walk = loop(f"i{axis}", "1", length, loop(lane, "first", "last", [*before, *step]))
        task = [f"i{axis} = 0", *loop(lane, "first", "last", first), *walk]
    guarded = [f"if {length} > 0:", *("    " + line for line in task)]
    code = kernel(spec.name, lines.loops(spec, table, guarded), table)
    return Lowered((call(spec, code, table, lines.tasks(spec)),), (code,))
