"""Reductions over the outermost axes: gradients of biases, batch statistics.

A task owns a block of columns of the innermost kept axis. It walks the reduced axes outside and its columns inside,
where neighbours in memory meet neighbours in a vector, and holds one accumulator a column in scratch memory. Rows
are taken in blocks, whose sums are added up by themselves, so that errors grow slowly.

Where what follows a reduction varies along the rows again, as in batch norm, the rows are walked several times; what
one round leaves for the next (a mean, a reciprocal of a deviation) is held in scratch, a number a column.
"""

from __future__ import annotations

from engine import dims, dtypes
from engine.dtypes import DType
from engine.program import Lowered
from engine.records import dataclass
from engine.schedule import KernelSpec, Stmt
from runtime.cpu.emit import kernel
from runtime.cpu.loops import TASK_POINTS
from runtime.cpu.reductions import ReductionKernel
from runtime.emit import SCRATCH, BodyEmitter, call, constant, indent, load, loop, store, times, total
from runtime.reductions import combined, extreme, identity, is_reduction, phases
from runtime.tasks import outer_indices, typical

_ROW_BLOCK = 256
"""Rows added up in a column before their sum goes to the outer sum."""
_ROWS_AT_ONCE = 4
"""Rows of a cheap body that are added to one another before they reach the accumulator, which is a load, a store and
the wait between them."""
_CHEAP_BODY = 8
_LEAST_WIDTH, _MOST_WIDTH = 64, 1024
_ROUNDS_WIDTH = 16
"""The least columns of a task that walks its rows several times: a cache line, for the rows should stay near."""
_ENOUGH_STRIPS = 8
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
        self.reductions = [s for s in spec.body if is_reduction(s)]
        read = {a.buffer for a in spec.reads}
        self.when = phases(spec.body, {i for i, w in enumerate(spec.writes) if w.buffer in read})
        self.rounds = 1 + max([self.when[s.name] - 1 for s in self.reductions]
                              + [self.when[s.name] for s in spec.body if self._acts(s)], default=0)  # fmt: skip
        self.width = self._width()

    def _acts(self, stmt: Stmt) -> bool:
        """Whether a statement does something at every row."""
        return stmt.op in ("store", "check_index") and self.varies(stmt.name)

    def _width(self) -> int:
        """Columns of a task: enough to be worth it, few enough for many tasks."""
        columns = self.spec.axes[self.column]
        wanted = min(max(TASK_POINTS // max(1, typical(self.points())), _LEAST_WIDTH), _MOST_WIDTH)
        if self.rounds > 1:
            wanted = max(_ROUNDS_WIDTH, min(typical(columns) // _ENOUGH_STRIPS & -_ROUNDS_WIDTH, _LEAST_WIDTH))
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
        lines = loop("task", "lo", "hi", head + self._rows() + self._finish())
        code = kernel(spec.name, lines, table)
        return Lowered((call(spec, code, table, tasks, self.scratch.size),), (code,))

    def _accumulator(self, name: str, dtype: DType) -> _Accumulator:
        # Room for the widest strip, whatever this one's: so kernels that differ only in the columns are one.
        place = self.scratch.take(_MOST_WIDTH, max(4, dtype.itemsize))
        return _Accumulator(name, dtype, total("scratch", str(place)), self.table.scope(f"{SCRATCH}{place}"))

    def _rows(self) -> list[str]:
        """Lines that walk the rows, as often as it takes, and leave every reduction in its accumulator."""
        arguments = [s for s in self.reductions if "_arg" in s.op]
        self.sums = {s.name: self._accumulator(f"sum{i}", s.dtype.computed) for i, s in enumerate(self.reductions)}
        self.bests = {
            s.name: self._accumulator(f"best{i}", self._value_of(s).dtype.computed) for i, s in enumerate(arguments)
        }
        self.held: dict[str, _Accumulator] = {}
        return [line for number in range(self.rounds) for line in self._round(number)]

    def _between(self, needed: list[Stmt], done: dict[str, _Accumulator]) -> list[str]:
        """Lines that hold what a round needs of the sums that are ``done``, a number a column."""
        self.held |= {s.name: done[s.name] for s in needed if s.name in done}
        fresh = [s for s in needed if s.name not in self.held]
        if not fresh:
            return []
        given = done | self.held
        last = self.emitter.fork(only=[s.name for s in fresh], known={n: a.name for n, a in given.items()})
        body = [f"{a.name} = {a.read()}" for a in given.values()] + last.enter(self.column, "j", inline=True)
        for stmt in fresh:
            self.held[stmt.name] = self._accumulator(f"held{len(self.held)}", stmt.dtype.computed)
            body.append(self.held[stmt.name].write(last.value(stmt.name)))
        return self._columns(body)

    def _needed(self, roots: list[str], done: dict[str, _Accumulator]) -> tuple[list[Stmt], int]:
        """What the statements that ``roots`` need at every row take from the sums that are ``done``, and how many
        statements there are at a row."""
        by_name = {s.name: s for s in self.spec.body}
        after = set(done)
        for stmt in self.spec.body:
            if not self.varies(stmt.name) and not after.isdisjoint(map(str, stmt.args)):
                after.add(stmt.name)
        seen: set[str] = set()
        stack = list(roots)
        while stack:
            name = stack.pop()
            if name not in seen:
                seen.add(name)
                if name not in after and self.varies(name):
                    stack += [a for a in by_name[name].args if isinstance(a, str)]
        return [by_name[n] for n in by_name if n in seen & after], sum(self.varies(n) for n in seen)

    def _round(self, number: int) -> list[str]:
        """Lines of one walk over the rows."""
        spec, last = self.spec, self.spec.reduced[-1]
        reductions = [s for s in self.reductions if self.when[s.name] - 1 == number]
        arguments = [s for s in reductions if "_arg" in s.op]
        plain = [s for s in reductions if s not in arguments]
        effects = [s.name for s in spec.body if self._acts(s) and self.when[s.name] == number]
        if not reductions and not effects:
            return []
        done = {s.name: self.sums[s.name] for s in self.reductions if self.when[s.name] <= number}
        roots = [str(a) for s in reductions for a in s.args] + effects
        needed, work = self._needed(roots, done)
        lines = self._between(needed, done)
        held = {s.name: self.held[s.name] for s in needed}
        extent = self.extent(last)
        blocked = bool(plain) and (len(spec.reduced) > 1 or not isinstance(extent, int) or extent > _ROW_BLOCK)
        clear = [self.sums[s.name].write(identity(s)) for s in plain]
        lines += self._columns(clear) + self._clear_bests(arguments)

        inner = self.emitter.fork(only=roots, known={n: a.name for n, a in held.items()})
        heads = [inner.enter(axis, f"i{axis}") for axis in spec.reduced[:-1]]
        start, stop = self.bounds(last)
        if blocked:
            parts = {s.name: self._accumulator(f"part{i}", s.dtype.computed) for i, s in enumerate(plain)}
            first, end = "first", f"min(first + {_ROW_BLOCK}, {stop})"
        else:
            parts, first, end = self.sums, start, stop
        given = [f"{a.name} = {a.read()}" for a in held.values()]
        rows: list[str] = []
        if plain and not effects and not arguments and work <= _CHEAP_BODY:
            rows += [f"end = {end}", f"single = {first} + ((end - {first}) & {-_ROWS_AT_ONCE})"]
            rows += [f"for i{last} in range({first}, single, {_ROWS_AT_ONCE}):",
                     *indent(self._several_rows(inner, plain, parts, given))]  # fmt: skip
            first, end = "single", "end"
        head = inner.enter(last, f"i{last}")
        rows += loop(f"i{last}", first, end, head + self._row(inner, plain, arguments, parts, given))
        if blocked:
            begin = self._columns([parts[s.name].write(identity(s)) for s in plain])
            add = self._columns([line for s in plain for line in self.sums[s.name].take(s, parts[s.name].read())])
            rows = [f"for first in range({start}, {stop}, {_ROW_BLOCK}):", *indent([*begin, *rows, *add])]
        for axis, above in zip(reversed(spec.reduced[:-1]), reversed(heads), strict=True):
            rows = loop(f"i{axis}", *self.bounds(axis), above + rows)
        return lines + rows

    def _row(self, inner: BodyEmitter, plain: list[Stmt], arguments: list[Stmt],
             parts: dict[str, _Accumulator], given: list[str]) -> list[str]:  # fmt: skip
        """The loop over columns that takes one row into the accumulators."""
        body = given + inner.enter(self.column, "j", inline=True)
        for stmt in plain:
            body += parts[stmt.name].take(stmt, inner.value(str(stmt.args[0])))
        for stmt in arguments:
            value, index = (inner.value(str(a)) for a in stmt.args)
            body += self._update_best(stmt, value, index)
        return self._columns(body)

    def _several_rows(self, inner: BodyEmitter, plain: list[Stmt], parts: dict[str, _Accumulator],
                      given: list[str]) -> list[str]:  # fmt: skip
        """The same for rows that are combined in pairs first."""
        last = self.spec.reduced[-1]
        heads, body, rows = [], list(given), []
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
