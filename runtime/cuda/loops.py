"""Elementwise kernels: each thread takes some neighbouring points of the last axis, in accesses of up to 16 bytes.

The space is collapsed first, so that a chain over contiguous arrays has one axis whatever its rank. A kernel that reads
along another axis than it writes goes through shared memory (see turned.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine import dims
from engine.dims import Size
from engine.program import Lowered
from engine.schedule import Access, KernelSpec
from runtime.axes import collapse
from runtime.cuda.emit import kernel
from runtime.cuda.turned import lower_turned, turned_axis
from runtime.emit import ArgTable, BodyEmitter, call, cast, indent, loop
from runtime.tasks import outer_indices

THREADS = 128
_VECTOR_BYTES = 16
_MOST_NEIGHBOURS = 8


def lower_loops(spec: KernelSpec) -> Lowered:
    """A kernel for ``spec``, which has neither a core nor reductions."""
    flat = collapse(spec)
    axis = turned_axis(flat)
    if axis is not None:
        return lower_turned(spec, flat, axis)
    table = ArgTable()
    points = Points(flat, table)
    lines = [f"unit = cuda.blockIdx.x * {THREADS} + cuda.threadIdx.x", *points.guarded()]
    code = kernel(spec.name, lines, table, THREADS)
    return Lowered((call(spec, code, table, dims.ceil_div(points.units, THREADS)),), (code,))


class Points:
    """A collapsed space cut into units: runs of up to ``width`` points of the last axis, one for a thread at a time."""

    def __init__(self, spec: KernelSpec, table: ArgTable):
        self.spec, self.table = spec, table
        self.width = neighbours(spec)
        self.units: Size = 1
        if spec.axes:
            self.units = dims.product(spec.axes[:-1]) * dims.ceil_div(spec.axes[-1], self.width)

    def guarded(self) -> list[str]:
        """Lines that run ``unit`` if there is a unit of this number."""
        lines = self.run()
        return [f"if unit < {self.table.size(self.units)}:", *indent(lines)]

    def run(self) -> list[str]:
        """Lines that run ``unit``."""
        spec, table, width = self.spec, self.table, self.width
        emitter = BodyEmitter(spec.body, spec.reads, spec.writes, len(spec.axes), table)
        lines = emitter.start()
        if not spec.axes:
            return lines or ["pass"]
        *outer, last = range(len(spec.axes))
        size, variable = table.size(spec.axes[last]), f"i{last}"
        step = f"unit * {width}" if width > 1 else "unit"
        if outer:
            in_row = table.size(dims.ceil_div(spec.axes[last], width))
            within = f"unit - row * {in_row}"
            step = f"({within}) * {width}" if width > 1 else within
            lines.append(f"row = quotient(unit, {in_row})")
            split, names = outer_indices(table, spec.axes[:-1], "row")
            lines += split
            for axis, name in zip(outer, names, strict=True):
                lines += emitter.enter(axis, name)
        if width == 1:
            return [*lines, f"{variable} = {step}", *emitter.enter(last, variable)]
        lines.append(f"first = {step}")
        together = neighbour_lines(emitter, spec, width, "first")
        if isinstance(spec.axes[last], int) and spec.axes[last] % width == 0:
            return lines + together
        single = loop(variable, "first", f"min(first + {width}, {size})", emitter.enter(last, variable, inline=True))
        return [*lines, f"if first + {width} <= {size}:", *indent(together), "else:", *indent(single)]


def neighbours(spec: KernelSpec, accesses: Sequence[Access] = ()) -> int:
    """How many neighbouring points of the last axis one thread takes: as many as fill an access of 16 bytes of the
    widest elements that lie side by side, where all rows may be aligned for it. Of ``accesses``, or of all that the
    points load and store."""
    if not spec.axes:
        return 1
    *_, n = spec.axes
    if not accesses:
        if any(w.strides[-1] != 1 for w in spec.writes):
            return 1
        loads = sorted({int(s.args[0]) for s in spec.body if s.op == "load"})
        accesses = [*(spec.reads[i] for i in loads), *spec.writes]
    along = [a for a in accesses if a.strides[-1] == 1]
    if not along:
        return 1
    width = min(_VECTOR_BYTES // max(a.dtype.itemsize for a in along), _MOST_NEIGHBOURS)

    def fits(count: int) -> bool:
        if isinstance(n, int) and (n < count or (len(spec.axes) > 1 and n % count)):
            return False
        steps = [s for a in along for s in (a.offset, *a.strides[:-1])]
        return all(s % count == 0 for s in steps if isinstance(s, int))

    while width > 1 and not fits(width):
        width //= 2
    return width


def neighbour_lines(
    emitter: BodyEmitter,
    spec: KernelSpec,
    width: int,
    first: str,
    known: Mapping[str, str] | None = None,
    core: Sequence[Mapping[int, str]] | None = None,
) -> list[str]:
    """Lines for ``width`` points from ``first`` on along the last axis, the axes before it having been entered: loads
    of them together, the body for each, stores of them together. ``known`` is as for :class:`BodyEmitter`, ``core``
    too, for each point."""
    loaded, values = loaded_together(emitter, spec, width, first, known)
    last = len(spec.axes) - 1
    stores = [s for s in spec.body if s.op == "store" and is_together(spec.writes[int(s.args[0])], width)]
    others = [s.name for s in spec.body if s.op in ("store", "check_index") and s not in stores]
    roots = [*others, *(str(a) for s in stores for a in s.args[1:] if isinstance(a, str))]
    lines = list(loaded)
    stored: dict[str, list[str]] = {s.name: [] for s in stores}
    place = emitter.fork(known=known)
    place.enter(last, first, inline=True)
    for e in range(width):
        of_point = {**(known or {}), **values[e]}
        point = emitter.fork(only=roots, known=of_point, core=core[e] if core else None, tag=f"{e}_")
        lines += point.enter(last, first if e == 0 else f"({first} + {e})", inline=True)
        for s in stores:
            stored[s.name].append(point.stored(s))
    for s in stores:
        lines.append(stored_together(place, spec, int(s.args[0]), stored[s.name]))
    return lines


def loaded_together(
    emitter: BodyEmitter, spec: KernelSpec, width: int, first: str, known: Mapping[str, str] | None = None
) -> tuple[list[str], list[dict[str, str]]]:
    """Lines that load ``width`` neighbours from ``first`` on of all that lies side by side along the last axis, and for
    each of them what the loads have so given."""
    place = emitter.fork(known=known)
    pending = {s.name for s in place.pending if s.op == "load"}
    place.enter(len(spec.axes) - 1, first, inline=True)
    lines: list[str] = []
    values: list[dict[str, str]] = [{} for _ in range(width)]
    seen: set[int] = set()
    for s in spec.body:
        if s.name not in pending or not is_together(spec.reads[int(s.args[0])], width):
            continue
        read = int(s.args[0])
        access = spec.reads[read]
        names = [f"x{read}_{e}" for e in range(width)]
        if read not in seen:
            seen.add(read)
            pointer, offset, scope = place.read(read)
            lines.append(f"{', '.join(names)} = load{width}_{access.dtype}({pointer}, {offset}, {scope})")
        for e, name in enumerate(names):
            values[e][s.name] = cast(name, access.dtype, s.dtype)
    return lines, values


def stored_together(place: BodyEmitter, spec: KernelSpec, write: int, values: Sequence[str]) -> str:
    """The line that stores neighbours side by side, the first of them where ``place`` is."""
    pointer, offset, scope = place.written(write)
    return f"store{len(values)}_{spec.writes[write].dtype}({pointer}, {offset}, {', '.join(values)}, {scope})"


def is_together(access: Access, width: int) -> bool:
    """Whether neighbours along the last axis are one access."""
    return access.strides[-1] == 1 and 4 <= width * access.dtype.itemsize <= _VECTOR_BYTES
