"""Reductions over the outermost axes: gradients of biases, batch statistics.

A task owns a block of columns of the innermost kept axis. It walks the reduced axes outside and its columns inside,
where neighbours in memory meet neighbours in a vector, and holds one accumulator a column in scratch memory. Rows
are taken in blocks, whose sums are added up by themselves, so that errors grow slowly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine import dims, dtypes
from engine.dtypes import DType
from engine.program import Lowered
from engine.schedule import KernelSpec, Stmt
from runtime.cpu.emit import (
    SCRATCH,
    ArgTable,
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
from runtime.cpu.reductions import ScratchLayout, combined, extreme, identity, is_reduction, typical
from runtime.cpu.rows import split_task

_ROW_BLOCK = 256
"""Rows added up in a column before their sum goes to the outer sum."""
_LANES = 4
"""Rows in a narrow strip that add to accumulators of their own: one alone would wait for its last store each time."""
_LEAST_WIDTH, _MOST_WIDTH = 64, 1024


@dataclass(frozen=True)
class _Accumulator:
    """One value a column in scratch memory; ``left`` below is the first column of the strip, ``lane`` where the
    values of a lane begin."""

    name: str
    dtype: DType
    pointer: str
    scope: int

    def read(self, left: str, lane: str = "0") -> str:
        return load(self.dtype, self.pointer, total(lane, _at(left)), self.scope)

    def write(self, value: str, left: str, lane: str = "0") -> str:
        return store(self.dtype, self.pointer, total(lane, _at(left)), value, self.scope)

    def update(self, new: Callable[[str], str], left: str, lane: str = "0") -> list[str]:
        """Lines that replace the value by ``new`` of it."""
        return [f"{self.name} = {self.read(left, lane)}", self.write(new(self.name), left, lane)]


def _at(left: str) -> str:
    return "j" if left == "0" else f"j - {left}"


def _computed(stmt: Stmt) -> DType:
    return dtypes.f32 if stmt.dtype.storage_only else stmt.dtype


def lower_columns(spec: KernelSpec) -> Lowered:
    """A kernel for a collapsed ``spec`` whose reduced axes are the first, with kept axes after them."""
    return _ColumnKernel(spec).lowered()


class _ColumnKernel:
    def __init__(self, spec: KernelSpec):
        self.spec = spec
        self.table = ArgTable()
        self.scratch = ScratchLayout()
        *self.outer, self.column = range(len(spec.reduced), len(spec.axes))
        self.width = self._width()
        self.emitter = BodyEmitter(spec.body, spec.reads, spec.writes, len(spec.axes), self.table,
                                   chunk="chunk" if spec.split is not None else "0", reduced=spec.reduced)  # fmt: skip
        self.reductions = [s for s in spec.body if is_reduction(s)]

    def _width(self) -> int:
        """Columns of a task: enough to be worth it, few enough for many tasks."""
        reduced = [self.spec.axes[a] for a in self.spec.reduced]
        if self.spec.split is not None:
            reduced[0] = self.spec.split
        wanted = min(max(TASK_POINTS // max(1, typical(dims.product(reduced))), _LEAST_WIDTH), _MOST_WIDTH)
        columns = self.spec.axes[self.column]
        return min(wanted, columns) if isinstance(columns, int) else wanted

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
            head = split_task(table, places)
        strip, point = "block", "0"
        if self.outer:
            count = table.size(strips)
            strip, point = ("0", "block") if count == "1" else ("strip", "point")
            if count != "1":
                head += [f"point = quotient(block, {count})", f"strip = block - point * {count}"]
        step = table.size(self.width)
        whole = columns == self.width
        # A narrow kept axis is one strip of literal width, over which LLVM unrolls.
        bounds = ("0", str(self.width)) if whole and self.width <= _LEAST_WIDTH else ("left", "right")
        if bounds[0] == "left":
            head += [f"left = {times(strip, step)}", f"right = min(left + {step}, {table.size(columns)})"]
        head += self.emitter.start()
        decompose, names = outer_indices(table, outer_sizes, point)
        head += decompose
        for axis, name in zip(self.outer, names, strict=True):
            head += self.emitter.enter(axis, name)
        lines = loop("task", "lo", "hi", head + self._reduce(bounds) + self._finish(bounds))
        code = kernel(spec.name, lines, table)
        return Lowered((call(spec, code, table, tasks, self.scratch.size),), (code,))

    def _accumulator(self, name: str, dtype: DType, lanes: int = 1) -> _Accumulator:
        place = self.scratch.take(self.width * lanes, max(4, dtype.itemsize))
        return _Accumulator(name, dtype, total("scratch", str(place)), self.table.scope(f"{SCRATCH}{place}"))

    def _reduce(self, bounds: tuple[str, str]) -> list[str]:
        """Lines that leave every reduction of these columns in its accumulator."""
        spec, left, last = self.spec, bounds[0], self.spec.reduced[-1]
        self.sums = {s.name: self._accumulator(f"sum{i}", _computed(s)) for i, s in enumerate(self.reductions)}
        arguments = [s for s in self.reductions if "_arg" in s.op]
        plain = [s for s in self.reductions if s not in arguments]
        self.bests = {
            s.name: self._accumulator(f"best{i}", _computed(self._value_of(s))) for i, s in enumerate(arguments)
        }
        extent = spec.split if last == 0 and spec.split is not None else spec.axes[last]
        blocked = bool(plain) and (len(spec.reduced) > 1 or not isinstance(extent, int) or extent > _ROW_BLOCK)
        lanes = _LANES if blocked and left == "0" else 1
        lane = f"(i{last} & {lanes - 1}) * {self.width}" if lanes > 1 else "0"
        parts = self.sums
        if blocked:
            parts = {s.name: self._accumulator(f"part{i}", _computed(s), lanes) for i, s in enumerate(plain)}

        effects = [s.name for s in spec.body if s.op in ("store", "check_index") and self._varies(s.name)]
        inner = self.emitter.fork(only=[str(a) for s in self.reductions for a in s.args] + effects)
        heads = [inner.enter(axis, f"i{axis}") for axis in spec.reduced]
        body = inner.enter(self.column, "j", inline=True)
        for stmt in plain:
            value = inner.value(str(stmt.args[0]))
            body += parts[stmt.name].update(lambda old, s=stmt, v=value: combined(s, old, v), left, lane)
        for stmt in arguments:
            body += self._update_best(stmt, *(inner.value(str(a)) for a in stmt.args), left)

        start, stop = self._bounds(last)
        row = heads[-1] + self._columns(bounds, body)
        if blocked:
            places = [str(k * self.width) for k in range(lanes)]
            clear = [parts[s.name].write(identity(s), left, k) for s in plain for k in places]
            add = [line for s in plain for k in places for line in self.sums[s.name].update(
                lambda old, s=s, k=k: combined(s, old, parts[s.name].read(left, k)), left)]  # fmt: skip
            block = loop(f"i{last}", "first", f"min(first + {_ROW_BLOCK}, {stop})", row)
            lines = [f"for first in range({start}, {stop}, {_ROW_BLOCK}):",
                     *indent([*self._columns(bounds, clear), *block, *self._columns(bounds, add)])]  # fmt: skip
        else:
            lines = loop(f"i{last}", start, stop, row)
        for axis, head in zip(reversed(spec.reduced[:-1]), reversed(heads[:-1]), strict=True):
            lines = loop(f"i{axis}", *self._bounds(axis), head + lines)
        clear = [self.sums[s.name].write(identity(s), left) for s in plain]
        return self._columns(bounds, clear) + self._clear_bests(arguments, bounds) + lines

    def _finish(self, bounds: tuple[str, str]) -> list[str]:
        """The statements over what is kept, and the stores."""
        known = {name: accumulator.name for name, accumulator in self.sums.items()}
        body = [f"{a.name} = {a.read(bounds[0])}" for a in self.sums.values()]
        last = self.emitter.fork()
        body += last.enter(self.column, "j", inline=True)
        return self._columns(bounds, body + last.place_known(known))

    def _columns(self, bounds: tuple[str, str], body: list[str]) -> list[str]:
        return loop("j", *bounds, body) if body else []

    def _bounds(self, axis: int) -> tuple[str, str]:
        size = self.table.size(self.spec.axes[axis])
        if self.spec.split is None or axis != 0:
            return "0", size
        chunk = self.table.size(self.spec.split)
        return f"chunk * {chunk}", f"min((chunk + 1) * {chunk}, {size})"

    def _varies(self, name: str) -> bool:
        return bool(self.emitter.depends_on(name) & set(self.spec.reduced))

    def _value_of(self, stmt: Stmt) -> Stmt:
        return next(s for s in self.spec.body if s.name == stmt.args[0])

    def _clear_bests(self, arguments: list[Stmt], bounds: tuple[str, str]) -> list[str]:
        body = []
        for stmt in arguments:
            value = self._value_of(stmt).dtype
            worst = constant(extreme(value, largest=stmt.op == "reduce_argmin"), value)
            body.append(self.bests[stmt.name].write(worst, bounds[0]))
            body.append(self.sums[stmt.name].write(constant(extreme(dtypes.i64, True), stmt.dtype), bounds[0]))
        return self._columns(bounds, body)

    def _update_best(self, stmt: Stmt, value: str, index: str, left: str) -> list[str]:
        """A better value, or a NaN where there was none, replaces the best; among equals the least index stays."""
        best, place = self.bests[stmt.name], self.sums[stmt.name]
        b, at = best.name, place.name
        better = f"({value} {'>' if stmt.op == 'reduce_argmax' else '<'} {b})"
        lines = [f"{b} = {best.read(left)}", f"{at} = {place.read(left)}"]
        if best.dtype.is_float:
            lines.append(f"nan_{b} = is_nan({value})")
            lines.append(f"same_{b} = ({value} == {b}) | (nan_{b} & is_nan({b}))")
            better = f"{better} | (nan_{b} & (not is_nan({b})))"
        else:
            lines.append(f"same_{b} = {value} == {b}")
        lines.append(f"take_{b} = {better} | (same_{b} & ({index} < {at}))")
        lines.append(best.write(f"select(take_{b}, {value}, {b})", left))
        lines.append(place.write(f"select(take_{b}, {index}, {at})", left))
        return lines
