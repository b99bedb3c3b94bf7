"""Stable sorting along an axis: a merge sort of positions, each line a task."""

from __future__ import annotations

from collections.abc import Callable

from engine import dtypes
from engine.buffers import Buffer
from engine.dims import product
from engine.program import Call, Lowered
from engine.schedule import Access, KernelSpec, Sort
from runtime.cpu.along import Lines
from runtime.cpu.emit import kernel
from runtime.element import Element
from runtime.emit import ArgTable, indent, loop, times

RUN = 8
"""Positions that are put in order by insertion before merging begins."""


def lower_sort(spec: KernelSpec, core: Sort) -> Lowered:
    """One call. Positions are merged to and fro between two temporary buffers, then elements follow them."""
    table = ArgTable()
    axis = core.axis
    lines = Lines.of(spec, (axis,), Access("", dtypes.i64, (0,) * len(spec.axes)))  # whole lines: no lanes
    count = product(spec.axes)
    names = [f"{spec.writes[1].buffer}_{part}" for part in ("order", "merged")]
    here, there = (Element(Access(name, dtypes.i64, (0,)), table) for name in names)
    key, value, position = (Element(a, table) for a in (*spec.reads, *spec.writes))
    length = table.size(spec.axes[axis])
    base, stride = key.at(lines.outer), key.strides[axis]

    def key_at(place: str) -> str:
        return key.load(f"keys + {times(place, stride)}" if stride != "0" else "keys")

    less = "b > a" if core.descending else "b < a"
    if spec.reads[0].dtype.is_float:  # NaN is the greatest
        less = f"({less}) | ((b != b) & (a == a))" if core.descending else f"({less}) | ((a != a) & (b == b))"
    insert = [
        "j = i",
        f"mine = {here.load('start + i')}",
        f"b = {key_at('mine')}",
        "moving = True",
        "while moving:",
        *indent([
            "moving = False",
            "if j > run:",
            *indent([
                f"other = {here.load('start + j - 1')}",
                f"a = {key_at('other')}",
                f"if {less}:",
                *indent([here.store("start + j", "other"), "j -= 1", "moving = True"]),
            ]),
        ]),
        here.store("start + j", "mine"),
    ]  # fmt: skip
    runs = [
        *loop("i", "0", length, [here.store("start + i", "i")]),
        f"for run in range(0, {length}, {RUN}):",
        *indent(loop("i", "run + 1", f"min(run + {RUN}, {length})", insert)),
    ]
    task = [
        f"keys = {base}",
        f"start = task * {length}",
        *runs,
        "flipped = False",
        f"width = {RUN}",
        f"while width < {length}:",
        *indent(["if flipped:", *indent(_merge(there, here, length, key_at, less)), "else:",
                 *indent(_merge(here, there, length, key_at, less)), "flipped = not flipped", "width *= 2"]),
        *loop("i", "0", length, [
            "if flipped:", *indent([f"mine = {there.load('start + i')}"]),
            "else:", *indent([f"mine = {here.load('start + i')}"]),
            value.store(value.at(lines.outer, times("i", value.strides[axis])), key_at("mine")),
            position.store(position.at(lines.outer, times("i", position.strides[axis])), "mine"),
        ]),
    ]  # fmt: skip
    code = kernel(spec.name, lines.loops(spec, table, task), table)
    writes = tuple(dict.fromkeys([*(a.buffer for a in spec.writes), *names]))
    reads = tuple(dict.fromkeys([*(a.buffer for a in spec.reads), *names]))
    step = Call(code.key, spec.name, table.args, lines.tasks(spec), reads, writes, 0, spec.nodes)
    return Lowered((step,), (code,), tuple(Buffer(name, "temp", dtypes.i64, count) for name in names))


def _merge(source: Element, target: Element, length: str, key_at: Callable[[str], str], less: str) -> list[str]:
    """Lines that merge neighbouring runs of ``width`` positions; of equal keys the left one comes first."""
    take = [
        "left = i < middle",
        "if left & (j < end):",
        *indent([
            f"a = {key_at(source.load('start + i'))}",
            f"b = {key_at(source.load('start + j'))}",
            f"left = not ({less})",
        ]),
        "if left:",
        *indent([target.store("start + k", source.load("start + i")), "i += 1"]),
        "else:",
        *indent([target.store("start + k", source.load("start + j")), "j += 1"]),
    ]  # fmt: skip
    return [
        "run = 0",
        f"while run < {length}:",
        *indent([
            f"middle = min(run + width, {length})",
            f"end = min(run + 2 * width, {length})",
            "i = run",
            "j = middle",
            *loop("k", "run", "end", take),
            "run = end",
        ]),
    ]  # fmt: skip
