"""Reductions over the innermost axes: softmax, norms, losses, sums of everything.

A row is one point of the kept axes. Its statements run in passes over the reduced axes, each pass ending in the
reductions that the next one needs. What a later pass needs again is recomputed from the loads, which are in L1 by
then, or, where that costs an exp or a division, kept where the kernel's last pass writes a result: softmax makes its
exponentials in place, and lines of a long row that come from memory do so while it computes. Where there is no such
place, and the length is a number, a row of scratch memory takes it.
"""

from __future__ import annotations

from dataclasses import replace

from engine import dims
from engine.program import Lowered
from engine.schedule import KernelSpec, Stmt
from runtime.cpu.emit import kernel
from runtime.cpu.loops import task_points
from runtime.cpu.reductions import SUM_BLOCK, ReductionKernel
from runtime.emit import SCRATCH, BodyEmitter, call, indent, load, loop, store, times, total
from runtime.reductions import combined, identity, without_arg_reductions
from runtime.row_passes import Pass, RowPasses
from runtime.tasks import outer_indices, typical

_SCRATCH_BYTES = 128 * 1024


def lower_rows(spec: KernelSpec) -> Lowered:
    """A kernel for a collapsed ``spec`` whose reduced axes are the last (or that has no reduced axes left)."""
    spec = replace(spec, body=without_arg_reductions(spec.body))
    return _RowKernel(spec).lowered()


class _RowKernel(ReductionKernel):
    def __init__(self, spec: KernelSpec):
        super().__init__(spec)
        self.kept = [a for a in range(len(spec.axes)) if a not in spec.reduced]
        self.places: dict[str, int] = {}
        self.lent: dict[str, int] = {}  # what is kept in a result, and in which of the writes
        self.passes = RowPasses(spec, self.varies, self._keep)

    def lowered(self) -> Lowered:
        spec, table = self.spec, self.table
        rows = dims.product(spec.axes[a] for a in self.kept)
        per_task = max(1, task_points(spec.body) // max(1, typical(self.points())))
        blocks = dims.ceil_div(rows, per_task)
        start = self.emitter.start()
        row, names = outer_indices(table, tuple(spec.axes[a] for a in self.kept), "row")
        for axis, name in zip(self.kept, names, strict=True):
            row += self.emitter.enter(axis, name)
        row += self._passes()
        step, count = table.size(per_task), table.size(rows)
        tasks = blocks
        if spec.split is None:
            lines = [*start, *loop("row", times("lo", step), f"min({times('hi', step)}, {count})", row)]
        else:
            tasks = blocks * dims.ceil_div(spec.axes[spec.reduced[0]], spec.split)
            head = self.split_task(blocks)
            first, last = times("block", step), f"min({times('(block + 1)', step)}, {count})"
            lines = loop("task", "lo", "hi", [*head, *start, *loop("row", first, last, row)])
        code = kernel(spec.name, lines, table)
        return Lowered((call(spec, code, table, tasks, self.scratch.size),), (code,))

    def _passes(self) -> list[str]:
        lines: list[str] = []
        for step in self.passes.plan():
            lines += self._pass(step)
        return lines

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
        self.places[stmt.name] = self.scratch.take(points, max(dtype.itemsize, 4))
        return True

    def _pass(self, step: Pass) -> list[str]:
        spec, table = self.spec, self.table
        scope = table.scope(SCRATCH) if self.places and (step.taken or step.put) else 0
        kept = [*self.places, *self.lent]
        known = {s.name: f"kept{kept.index(s.name)}" for s in step.taken}
        only = [str(a) for s in step.reductions for a in s.args] + list(step.effects) + [s.name for s in step.put]
        inner = self.emitter.fork(only=only, known=known)
        names = {s.name: f"a{i}" for i, s in enumerate(spec.body) if s in step.reductions}
        *outer, last = spec.reduced or (None,)
        heads = []
        for axis in outer:
            heads.append(inner.enter(axis, f"i{axis}"))
        body = inner.enter(last, f"i{last}", inline=True) if last is not None else []
        at = self._position()

        def place(name: str) -> tuple[str, str, int]:
            if name in self.lent:
                return inner.written(self.lent[name])
            return total("scratch", str(self.places[name])), at, scope

        def loaded(s: Stmt) -> str:
            pointer, index, where = place(s.name)
            return f"{known[s.name]} = {load(s.dtype.computed, pointer, index, where)}"

        def stored(s: Stmt) -> str:
            pointer, index, where = place(s.name)
            return store(s.dtype.computed, pointer, index, inner.value(s.name), where)

        body = [*map(loaded, step.taken), *body, *map(stored, step.put)]
        lines = self._loops(step.reductions, names, inner, heads, body)
        return lines + self.emitter.place_known(names)

    def _position(self) -> str:
        """The number of a point within its row."""
        spec = self.spec
        at = "0"
        for n, axis in enumerate(spec.reduced):
            here = f"i{axis}" if n or spec.split is None else f"(i{axis} - {self.bounds(axis)[0]})"
            at = here if at == "0" else total(times(at, self.table.size(spec.axes[axis])), here)
        return at

    def _loops(self, reductions: tuple[Stmt, ...], names: dict[str, str], inner: BodyEmitter, heads: list[list[str]],
               body: list[str]) -> list[str]:  # fmt: skip
        """The loops of one pass around ``body``, with an accumulator for each block of the innermost axis and one
        for the whole row where the row is more than a block."""
        spec = self.spec
        values = {s.name: inner.value(str(s.args[0])) for s in reductions}

        def begin(prefix: str) -> list[str]:
            return [f"{prefix}{names[s.name]} = {identity(s)}" for s in reductions]

        def join(prefix: str, others: dict[str, str]) -> list[str]:
            mine = {s.name: prefix + names[s.name] for s in reductions}
            return [f"{mine[s.name]} = {combined(s, mine[s.name], others[s.name])}" for s in reductions]

        if not spec.reduced:
            return begin("") + body + join("", values)
        last = spec.reduced[-1]
        start, stop = self.bounds(last)
        extent = self.extent(last)
        long = not isinstance(extent, int) or extent > SUM_BLOCK
        if not heads and (not long or not reductions):
            return begin("") + loop(f"i{last}", start, stop, body + join("", values))
        parts = {s.name: f"part_{names[s.name]}" for s in reductions}
        inside = body + join("part_", values)
        if long and reductions:
            block = loop(f"i{last}", "first", f"min(first + {SUM_BLOCK}, {stop})", inside)
            lines = [f"for first in range({start}, {stop}, {SUM_BLOCK}):",
                     *indent([*begin("part_"), *block, *join("", parts)])]  # fmt: skip
        else:
            lines = [*begin("part_"), *loop(f"i{last}", start, stop, inside), *join("", parts)]
        for axis, head in zip(reversed(spec.reduced[:-1]), reversed(heads), strict=True):
            lines = loop(f"i{axis}", *self.bounds(axis), head + lines)
        return begin("") + lines
