"""Reductions over the innermost axes: softmax, norms, losses, sums of everything.

A row is one point of the kept axes. Its statements run in passes over the reduced axes, each pass ending in the
reductions that the next one needs. What a later pass needs again is recomputed from the loads, which are in L1 by
then, or, where that costs an exp or a division, kept where the kernel's last pass writes a result: softmax makes its
exponentials in place, and lines of a long row that come from memory do so while it computes. Where there is no such
place, and the length is a number, a row of scratch memory takes it. Short rows are taken in pairs.
"""

from __future__ import annotations

from dataclasses import replace

from engine import dims
from engine.program import Lowered
from engine.records import dataclass
from engine.schedule import KernelSpec, Stmt
from runtime.cpu.emit import kernel
from runtime.cpu.loops import task_points
from runtime.cpu.reductions import SUM_BLOCK, ReductionKernel
from runtime.cpu.tiles import host_registers
from runtime.emit import SCRATCH, BodyEmitter, call, indent, load, loop, store, times, total
from runtime.reductions import combined, identity, without_arg_reductions
from runtime.row_passes import Pass, RowPasses
from runtime.tasks import outer_indices, typical

_SCRATCH_BYTES = 128 * 1024
_SHORT_ROW, _FEW_BUFFERS = 512, 4
"""Up to so many points and buffers two rows at a time gain."""


def lower_rows(spec: KernelSpec) -> Lowered:
    """A kernel for a collapsed ``spec`` whose reduced axes are the last (or that has no reduced axes left)."""
    spec = replace(spec, body=without_arg_reductions(spec.body))
    return _RowKernel(spec).lowered()


@dataclass(frozen=True)
class _Sum:
    """A reduction of one row: the variable that accumulates it, and the expression of what is added at a point."""

    stmt: Stmt
    name: str
    value: str

    def begin(self, prefix: str = "") -> str:
        return f"{prefix}{self.name} = {identity(self.stmt)}"

    def take(self, value: str, prefix: str = "") -> str:
        name = prefix + self.name
        return f"{name} = {combined(self.stmt, name, value)}"


class _RowKernel(ReductionKernel):
    def __init__(self, spec: KernelSpec):
        super().__init__(spec)
        self.kept = [a for a in range(len(spec.axes)) if a not in spec.reduced]
        self.rows = dims.product(spec.axes[a] for a in self.kept)
        self.per_task = max(1, task_points(spec.body) // max(1, typical(self.points())))
        self.tags = ["row0_", "row1_"] if self._in_pairs() else [""]
        self.places: dict[str, list[int]] = {}  # what is kept in scratch memory, and where, row by row
        self.lent: dict[str, int] = {}  # what is kept in a result, and in which of the writes
        self.passes = RowPasses(spec, self.varies, self._keep)

    def _in_pairs(self) -> bool:
        """Whether two rows are taken at a time. The lanes of both are then added up at once, and a short row spends as
        long on that as on its points; but the loops hold twice as much in registers."""
        spec = self.spec
        short = spec.split is None and 1 < typical(self.points()) <= _SHORT_ROW
        few = len(spec.reads) + len(spec.writes) <= _FEW_BUFFERS
        return short and few and host_registers() >= 32 and self.per_task > 1 and self.rows % 2 == 0

    def lowered(self) -> Lowered:
        spec, table = self.spec, self.table
        pace = len(self.tags)
        per_task = self.per_task // pace * pace
        blocks = dims.ceil_div(self.rows, per_task)
        start = self.emitter.start()
        emitters = [self.emitter] if pace == 1 else [self.emitter.fork(tag=tag) for tag in self.tags]
        body: list[str] = []
        for number, (emitter, tag) in enumerate(zip(emitters, self.tags, strict=True)):
            row = f"{tag}number" if number else "row"
            body += [f"{row} = row + {number}"] if number else []
            decompose, names = outer_indices(table, tuple(spec.axes[a] for a in self.kept), row, f"{tag}i")
            body += decompose
            for axis, name in zip(self.kept, names, strict=True):
                body += emitter.enter(axis, name)
        for step in self.passes.plan():
            body += self._pass(step, emitters)
        size, count = table.size(per_task), table.size(self.rows)
        tasks = blocks
        if spec.split is None:
            rows = [times("lo", size), f"min({times('hi', size)}, {count})", *([str(pace)] if pace > 1 else [])]
            lines = [*start, f"for row in range({', '.join(rows)}):", *indent(body)]
        else:
            tasks = blocks * dims.ceil_div(spec.axes[spec.reduced[0]], spec.split)
            head = self.split_task(blocks)
            first, last = times("block", size), f"min({times('(block + 1)', size)}, {count})"
            lines = loop("task", "lo", "hi", [*head, *start, *loop("row", first, last, body)])
        code = kernel(spec.name, lines, table)
        return Lowered((call(spec, code, table, tasks, self.scratch.size),), (code,))

    def _keep(self, stmt: Stmt) -> bool:
        """Whether computing ``stmt`` again costs more than a load, and there is room for a row of it."""
        if stmt.name in self.places or stmt.name in self.lent:
            return True
        if not self.passes.is_costly(stmt.name):
            return False
        write = self.passes.lender(stmt, self.lent.values())
        if write is not None:
            self.lent[stmt.name] = write
            return True
        points, dtype = self.points(), stmt.dtype
        if not isinstance(points, int) or self.scratch.size + points * dtype.itemsize > _SCRATCH_BYTES:
            return False
        self.places[stmt.name] = [self.scratch.take(points, max(dtype.itemsize, 4)) for _ in self.tags]
        return True

    def _pass(self, step: Pass, emitters: list[BodyEmitter]) -> list[str]:
        """The lines of one pass over the rows that are taken at a time, of which each has its emitter."""
        only = [str(a) for s in step.reductions for a in s.args] + list(step.effects) + [s.name for s in step.put]
        *outer, last = self.spec.reduced or (None,)
        heads: list[list[str]] = [[] for _ in outer]
        body: list[str] = []
        sums: list[list[_Sum]] = []
        for number, (emitter, tag) in enumerate(zip(emitters, self.tags, strict=True)):
            kept = [*self.places, *self.lent]
            known = {s.name: f"{tag}kept{kept.index(s.name)}" for s in step.taken}
            inner = emitter.fork(only=only, known=known)
            for head, axis in zip(heads, outer, strict=True):
                head += inner.enter(axis, f"i{axis}")
            entered = inner.enter(last, f"i{last}", inline=True) if last is not None else []
            body += [
                *(f"{known[s.name]} = {load(s.dtype.computed, *self._place(s, inner, number))}" for s in step.taken),
                *entered,
                *(self._put(s, inner, number) for s in step.put),
            ]
            sums.append([
                _Sum(s, f"{tag}a{i}", inner.value(str(s.args[0])))
                for i, s in enumerate(self.spec.body) if s in step.reductions
            ])  # fmt: skip
        lines = self._loops([s for row in sums for s in row], heads, body)
        for emitter, row in zip(emitters, sums, strict=True):
            lines += emitter.place_known({s.stmt.name: s.name for s in row})
        return lines

    def _place(self, stmt: Stmt, inner: BodyEmitter, number: int) -> tuple[str, str, int]:
        """Where what ``stmt`` computes is kept for row ``number``: a pointer, an index and the memory's scope."""
        if stmt.name in self.lent:
            return inner.written(self.lent[stmt.name])
        return total("scratch", str(self.places[stmt.name][number])), self._position(), self.table.scope(SCRATCH)

    def _put(self, stmt: Stmt, inner: BodyEmitter, number: int) -> str:
        pointer, index, scope = self._place(stmt, inner, number)
        return store(stmt.dtype.computed, pointer, index, inner.value(stmt.name), scope)

    def _position(self) -> str:
        """The number of a point within its row."""
        spec = self.spec
        at = "0"
        for n, axis in enumerate(spec.reduced):
            here = f"i{axis}" if n or spec.split is None else f"(i{axis} - {self.bounds(axis)[0]})"
            at = here if at == "0" else total(times(at, self.table.size(spec.axes[axis])), here)
        return at

    def _loops(self, sums: list[_Sum], heads: list[list[str]], body: list[str]) -> list[str]:
        """The loops of one pass around ``body``, with an accumulator for each block of the innermost axis and one
        for the whole row where the row is more than a block."""
        spec = self.spec
        begin = [s.begin() for s in sums]
        whole = [s.take(s.value) for s in sums]
        if not spec.reduced:
            return begin + body + whole
        last = spec.reduced[-1]
        start, stop = self.bounds(last)
        extent = self.extent(last)
        long = bool(sums) and (not isinstance(extent, int) or extent > SUM_BLOCK)
        if not heads and not long:
            return begin + loop(f"i{last}", start, stop, body + whole)
        clear = [s.begin("part_") for s in sums]
        inside = body + [s.take(s.value, "part_") for s in sums]
        add = [s.take(f"part_{s.name}") for s in sums]
        if long:
            block = loop(f"i{last}", "first", f"min(first + {SUM_BLOCK}, {stop})", inside)
            lines = [f"for first in range({start}, {stop}, {SUM_BLOCK}):", *indent([*clear, *block, *add])]
        else:
            lines = [*clear, *loop(f"i{last}", start, stop, inside), *add]
        for axis, head in zip(reversed(spec.reduced[:-1]), reversed(heads), strict=True):
            lines = loop(f"i{axis}", *self.bounds(axis), head + lines)
        return begin + lines
