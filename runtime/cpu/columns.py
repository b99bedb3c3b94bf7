"""Reductions over the outermost axes: gradients of biases, batch statistics.

A task owns a block of columns of the innermost kept axis. It walks the reduced axes outside and its columns inside,
where neighbours in memory meet neighbours in a vector, and holds one accumulator a column in scratch memory. Rows
are taken in blocks, whose sums are added up by themselves, so that errors grow slowly.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine import dims, dtypes
from engine.dtypes import DType
from engine.program import Lowered
from engine.schedule import KernelSpec, Stmt
from runtime.cpu.emit import (
    SCRATCH,
    BodyEmitter,
    call,
    constant,
    indent,
    kernel,
    load,
    loop,
    store,
    times,
    total,
)
from runtime.cpu.loops import TASK_POINTS, outer_indices
from runtime.cpu.reductions import ReductionKernel, combined, extreme, identity, is_reduction
from runtime.cpu.tasks import typical

_ROW_BLOCK = 256
"""Rows added up in a column before their sum goes to the outer sum."""
_ROWS_AT_ONCE = 4
"""Rows of a cheap body that are added to one another before they reach the accumulator, which is a load, a store and
the wait between them."""
_CHEAP_BODY = 8
_LEAST_WIDTH, _MOST_WIDTH = 64, 1024
_COLUMN = "j - left"


@dataclass(frozen=True)
class _Accumulator:
    """One value a column in scratch memory."""

    name: str
    dtype: DType
    pointer: str
    scope: int

    def read(self) -> str:
        return load(self.dtype, self.pointer, _COLUMN, self.scope)

    def write(self, value: str) -> str:
        return store(self.dtype, self.pointer, _COLUMN, value, self.scope)

    def take(self, reduction: Stmt, value: str) -> list[str]:
        """Lines that combine the accumulated value with one more."""
        return [f"{self.name} = {self.read()}", self.write(combined(reduction, self.name, value))]


def lower_columns(spec: KernelSpec) -> Lowered:
    """A kernel for a collapsed ``spec`` whose reduced axes are the first, with kept axes after them."""
    return _ColumnKernel(spec).lowered()


class _ColumnKernel(ReductionKernel):
    def __init__(self, spec: KernelSpec):
        super().__init__(spec)
        *self.outer, self.column = range(len(spec.reduced), len(spec.axes))
        self.width = self._width()
        self.reductions = [s for s in spec.body if is_reduction(s)]

    def _width(self) -> int:
        """Columns of a task: enough to be worth it, few enough for many tasks."""
        wanted = min(max(TASK_POINTS // max(1, typical(self.points())), _LEAST_WIDTH), _MOST_WIDTH)
        columns = self.spec.axes[self.column]
        return max(1, min(wanted, columns)) if isinstance(columns, int) else wanted

    def lowered(self) -> Lowered:
        spec, table = self.spec, self.table
        columns = spec.axes[self.column]
        strips = dims.ceil_div(columns, self.width)
        outer_sizes = tuple(spec.axes[a] for a in self.outer)
        places = dims.product(outer_sizes) * strips
        tasks = places
        head = ["block = task"]
        if spec.split is not None:
            tasks = places * dims.ceil_div(spec.axes[spec.reduced[0]], spec.split)
            head = self.split_task(places)
        strip, point = "block", "0"
        if self.outer:
            count = table.size(strips)
            strip, point = ("0", "block") if count == "1" else ("strip", "point")
            if count != "1":
                head += [f"point = quotient(block, {count})", f"strip = block - point * {count}"]
        step = table.size(self.width)
        head += [f"left = {times(strip, step)}", f"right = min(left + {step}, {table.size(columns)})"]
        head += self.emitter.start()
        decompose, names = outer_indices(table, outer_sizes, point)
        head += decompose
        for axis, name in zip(self.outer, names, strict=True):
            head += self.emitter.enter(axis, name)
        lines = loop("task", "lo", "hi", head + self._reduce() + self._finish())
        code = kernel(spec.name, lines, table)
        return Lowered((call(spec, code, table, tasks, self.scratch.size),), (code,))

    def _accumulator(self, name: str, dtype: DType) -> _Accumulator:
        # Room for the widest strip, whatever this one's: so kernels that differ only in the columns are one.
        place = self.scratch.take(_MOST_WIDTH, max(4, dtype.itemsize))
        return _Accumulator(name, dtype, total("scratch", str(place)), self.table.scope(f"{SCRATCH}{place}"))

    def _reduce(self) -> list[str]:
        """Lines that leave every reduction of these columns in its accumulator."""
        spec, last = self.spec, self.spec.reduced[-1]
        arguments = [s for s in self.reductions if "_arg" in s.op]
        plain = [s for s in self.reductions if s not in arguments]
        self.sums = {s.name: self._accumulator(f"sum{i}", s.dtype.computed) for i, s in enumerate(self.reductions)}
        self.bests = {
            s.name: self._accumulator(f"best{i}", self._value_of(s).dtype.computed) for i, s in enumerate(arguments)
        }
        extent = self.extent(last)
        blocked = bool(plain) and (len(spec.reduced) > 1 or not isinstance(extent, int) or extent > _ROW_BLOCK)
        clear = [self.sums[s.name].write(identity(s)) for s in plain]
        lines = self._columns(clear) + self._clear_bests(arguments)

        effects = [s.name for s in spec.body if s.op in ("store", "check_index") and self.varies(s.name)]
        inner = self.emitter.fork(only=[str(a) for s in self.reductions for a in s.args] + effects)
        heads = [inner.enter(axis, f"i{axis}") for axis in spec.reduced[:-1]]
        start, stop = self.bounds(last)
        if blocked:
            parts = {s.name: self._accumulator(f"part{i}", s.dtype.computed) for i, s in enumerate(plain)}
            first, end = "first", f"min(first + {_ROW_BLOCK}, {stop})"
        else:
            parts, first, end = self.sums, start, stop
        rows: list[str] = []
        if not effects and not arguments and sum(self.varies(s.name) for s in spec.body) <= _CHEAP_BODY:
            rows += [f"end = {end}", f"single = {first} + ((end - {first}) & {-_ROWS_AT_ONCE})"]
            rows += [f"for i{last} in range({first}, single, {_ROWS_AT_ONCE}):",
                     *indent(self._several_rows(inner, plain, parts))]  # fmt: skip
            first, end = "single", "end"
        head = inner.enter(last, f"i{last}")
        rows += loop(f"i{last}", first, end, head + self._row(inner, plain, arguments, parts))
        if blocked:
            begin = self._columns([parts[s.name].write(identity(s)) for s in plain])
            add = self._columns([line for s in plain for line in self.sums[s.name].take(s, parts[s.name].read())])
            rows = [f"for first in range({start}, {stop}, {_ROW_BLOCK}):", *indent([*begin, *rows, *add])]
        for axis, above in zip(reversed(spec.reduced[:-1]), reversed(heads), strict=True):
            rows = loop(f"i{axis}", *self.bounds(axis), above + rows)
        return lines + rows

    def _row(self, inner: BodyEmitter, plain: list[Stmt], arguments: list[Stmt],
             parts: dict[str, _Accumulator]) -> list[str]:  # fmt: skip
        """The loop over columns that takes one row into the accumulators."""
        body = inner.enter(self.column, "j", inline=True)
        for stmt in plain:
            body += parts[stmt.name].take(stmt, inner.value(str(stmt.args[0])))
        for stmt in arguments:
            value, index = (inner.value(str(a)) for a in stmt.args)
            body += self._update_best(stmt, value, index)
        return self._columns(body)

    def _several_rows(self, inner: BodyEmitter, plain: list[Stmt], parts: dict[str, _Accumulator]) -> list[str]:
        """The same for rows that are combined in pairs first."""
        last = self.spec.reduced[-1]
        heads, body, rows = [], [], []
        for k in range(_ROWS_AT_ONCE):
            row = inner.fork(tag=f"r{k}_")
            heads += row.enter(last, total(f"i{last}", str(k)))
            body += row.enter(self.column, "j", inline=True)
            rows.append(row)
        for stmt in plain:
            values = [row.value(str(stmt.args[0])) for row in rows]
            for k, (a, b) in enumerate(zip(values[::2], values[1::2], strict=True)):
                body.append(f"pair{k} = {combined(stmt, a, b)}")
            body.append(f"four = {combined(stmt, 'pair0', 'pair1')}")
            body += parts[stmt.name].take(stmt, "four")
        return heads + self._columns(body)

    def _finish(self) -> list[str]:
        """The statements over what is kept, and the stores."""
        known = {name: accumulator.name for name, accumulator in self.sums.items()}
        body = [f"{a.name} = {a.read()}" for a in self.sums.values()]
        last = self.emitter.fork()
        body += last.enter(self.column, "j", inline=True)
        return self._columns(body + last.place_known(known))

    def _columns(self, body: list[str]) -> list[str]:
        return loop("j", "left", "right", body) if body else []

    def _value_of(self, stmt: Stmt) -> Stmt:
        return next(s for s in self.spec.body if s.name == stmt.args[0])

    def _clear_bests(self, arguments: list[Stmt]) -> list[str]:
        body = []
        for stmt in arguments:
            value = self._value_of(stmt).dtype
            worst = constant(extreme(value, largest=stmt.op == "reduce_argmin"), value)
            body.append(self.bests[stmt.name].write(worst))
            body.append(self.sums[stmt.name].write(constant(extreme(dtypes.i64, True), stmt.dtype)))
        return self._columns(body)

    def _update_best(self, stmt: Stmt, value: str, index: str) -> list[str]:
        """A better value, or a NaN where there was none, replaces the best; among equals the least index stays."""
        best, place = self.bests[stmt.name], self.sums[stmt.name]
        b, at = best.name, place.name
        better = f"({value} {'>' if stmt.op == 'reduce_argmax' else '<'} {b})"
        lines = [f"{b} = {best.read()}", f"{at} = {place.read()}"]
        if best.dtype.is_float:
            lines.append(f"nan_{b} = is_nan({value})")
            lines.append(f"same_{b} = ({value} == {b}) | (nan_{b} & is_nan({b}))")
            better = f"{better} | (nan_{b} & (not is_nan({b})))"
        else:
            lines.append(f"same_{b} = {value} == {b}")
        lines.append(f"take_{b} = {better} | (same_{b} & ({index} < {at}))")
        lines.append(best.write(f"select(take_{b}, {value}, {b})"))
        lines.append(place.write(f"select(take_{b}, {index}, {at})"))
        return lines
