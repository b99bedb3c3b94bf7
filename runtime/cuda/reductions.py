"""Reductions: a group of threads for each point that is kept, which walk what is reduced side by side.

Along rows (reduced axes last) a group is some lanes of a warp, or a block where rows are long; results meet in
shuffles, and in shared memory where a block is a group. Along columns (reduced axes first) neighbouring threads have
neighbouring columns, and a group is the threads of a block that have the same one; results meet in shared memory.
Either way each thread of a group ends up with the result, added up in an order that shapes alone decide, and goes on
to the next pass.
"""

from __future__ import annotations

from dataclasses import replace

from engine import dims
from engine.dims import Size
from engine.dtypes import DType
from engine.memory import round_up
from engine.program import Lowered
from engine.schedule import KernelSpec, Stmt
from runtime.axes import collapse
from runtime.cuda.emit import kernel
from runtime.cuda.loops import loaded_together, neighbours
from runtime.cuda.shuffles import SHUFFLES, shuffled
from runtime.emit import ArgTable, BodyEmitter, call, indent, loop, times, total
from runtime.reductions import combined, identity, without_arg_reductions
from runtime.row_passes import Pass, RowPasses
from runtime.tasks import outer_indices, typical

_LANES = 32
_THREADS = 128
_MOST_THREADS = 1024
_TURNS = 8
"""How often lanes of a warp go round before a block takes the row."""
_FEW_ROWS = 512
_SHARED_BYTES = 48 * 1024
_COLUMN_GROUP = 8


def lower_reduction(spec: KernelSpec) -> Lowered:
    """A kernel for ``spec``, which has reduced axes and no core."""
    flat = collapse(spec)
    flat = replace(flat, body=without_arg_reductions(flat.body))
    columns = flat.reduced and flat.reduced[0] == 0 and len(flat.reduced) < len(flat.axes)
    return (_Columns if columns else _Rows)(flat).lowered()


class _Reduction:
    """A collapsed ``spec`` as passes over what is reduced. A subclass says how threads are grouped.

    Generated names: ``lane`` is a thread's number in its group, ``live`` whether the group has a point of its own,
    ``count`` the points that it reduces, ``at`` the number of one of these.
    """

    group: int
    threads: int
    width = 1

    def __init__(self, spec: KernelSpec):
        self.spec = spec
        self.table = ArgTable()
        self.kept = [a for a in range(len(spec.axes)) if a not in spec.reduced]
        effects = [s.name for s in spec.body if s.op in ("store", "check_index")]
        self.emitter = BodyEmitter(spec.body, spec.reads, spec.writes, len(spec.axes), self.table,
                                   chunk="chunk" if spec.split is not None else "0", reduced=spec.reduced,
                                   later=effects)  # fmt: skip
        self.passes = RowPasses(spec, self.varies, self._keep)
        self.places: dict[str, int] = {}  # what is kept in shared memory, and where
        self.lent: dict[str, int] = {}  # what is kept in a result, and in which of the writes
        self.shared = 0

    def varies(self, name: str) -> bool:
        return bool(self.emitter.depends_on(name) & set(self.spec.reduced))

    @property
    def points(self) -> Size:
        """The points that are reduced to one, in one chunk."""
        spec = self.spec
        first = spec.reduced[:1]
        return dims.product(spec.split if spec.split is not None and a in first else spec.axes[a] for a in spec.reduced)

    def lowered(self) -> Lowered:
        spec, table = self.spec, self.table
        blocks = self.blocks()
        lines = ["block = cuda.blockIdx.x"]
        tasks = blocks
        if spec.split is not None:
            tasks = blocks * dims.ceil_div(spec.axes[spec.reduced[0]], spec.split)
            count = table.size(blocks)
            lines = [f"chunk = quotient(cuda.blockIdx.x, {count})", f"block = cuda.blockIdx.x - chunk * {count}"]
        lines += self.grouped()
        lines += self.emitter.start()
        split, names = outer_indices(table, tuple(spec.axes[a] for a in self.kept), "point", "k")
        lines += split
        for axis, name in zip(self.kept, names, strict=True):
            lines += self.emitter.enter(axis, name)
        lines += self._count()
        passes = [line for step in self.passes.plan() for line in self._pass(step)]
        if self.shared:
            lines.append("shared = shared_memory()")
        lines += passes
        last = self.emitter.release()
        if last:
            lines += ["if live & (lane == 0):", *indent(last)]
        modules = {"runtime.cuda.ptx": ["shared_memory", *SHUFFLES]}
        code = kernel(spec.name, lines, table, self.threads, self.shared, modules=modules)
        return Lowered((call(spec, code, table, tasks),), (code,))

    # --- how threads are grouped ---

    def blocks(self) -> Size:
        """The blocks that all kept points take."""
        raise NotImplementedError

    def grouped(self) -> list[str]:
        """Lines that set ``lane``, ``live`` and ``point``, from ``block``."""
        raise NotImplementedError

    def joined(self, reduction: Stmt, name: str) -> list[str]:
        """Lines after which ``name`` has the result of the whole group in all of its threads."""
        raise NotImplementedError

    def place(self, at: str, element: int) -> str:
        """Where, in elements, a thread keeps its own of the row's points, ``element`` after ``at``."""
        raise NotImplementedError

    # --- passes ---

    def _count(self) -> list[str]:
        spec, table = self.spec, self.table
        sizes = [table.size(spec.axes[a]) for a in spec.reduced]
        lines = []
        if spec.split is not None:
            chunk = table.size(spec.split)
            lines = [f"begin = chunk * {chunk}", f"stop = min(begin + {chunk}, {sizes[0]})"]
            sizes[0] = "(stop - begin)"
        count = table.size(self.points) if spec.split is None else " * ".join(s for s in sizes if s != "1")
        return [*lines, f"count = select(live, {count}, 0)"]

    def _keep(self, stmt: Stmt) -> bool:
        """Whether there is room to keep what ``stmt`` computes: then even a load is cheaper from there."""
        if stmt.name in self.places or stmt.name in self.lent:
            return True
        size = self._room(stmt.dtype.computed)
        if size and self.shared + size <= _SHARED_BYTES:
            self.places[stmt.name] = self.shared
            self.shared += size
            return True
        write = self.passes.lender(stmt, self.lent.values()) if self.passes.is_costly(stmt.name) else None
        if write is not None:
            self.lent[stmt.name] = write
        return write is not None

    def _room(self, dtype: DType) -> int:
        """The bytes in which all groups of a block keep a value of each of their points; 0 where that is not known."""
        if not isinstance(self.points, int):
            return 0
        turns = -(-self.points // (self.group * self.width))
        return round_up(turns * self.threads * self.width * dtype.itemsize)

    def _pass(self, step: Pass) -> list[str]:
        """The walk of a group over its points, and what its reductions come to."""
        spec, table, width = self.spec, self.table, self.width
        names = {s.name: f"a{i}" for i, s in enumerate(spec.body) if s in step.reductions}
        kept = [*self.places, *self.lent]
        roots = [str(a) for s in step.reductions for a in s.args] + list(step.effects) + [s.name for s in step.put]
        known = {s.name: f"kept{kept.index(s.name)}" for s in step.taken}
        inner = self.emitter.fork(only=roots, known=known)
        inner.release()
        split, indices = outer_indices(table, tuple(spec.axes[a] for a in spec.reduced), "at", "r")
        body = list(split)
        if spec.split is not None:
            indices[0] = f"(begin + {indices[0]})"
        for axis, index in zip(spec.reduced[:-1], indices, strict=False):
            body += inner.enter(axis, index)
        first_index = indices[-1] if indices else "at"
        loaded, values = loaded_together(inner, spec, width, first_index, known) if width > 1 else ([], [{}])
        body += loaded
        for e in range(width):
            here, point = known, inner
            if width > 1:
                here = {name: f"{of}_{e}" for name, of in known.items()} | values[e]
                point = inner.fork(only=roots, known=here, tag=f"{e}_")
            index = total(first_index, str(e))
            walked = point.enter(spec.reduced[-1], f"({index})" if e else index, inline=True) if spec.reduced else []
            body += [f"{here[s.name]} = {self._kept(point, s, e)}" for s in step.taken]
            body += walked
            body += [self._put(point, s, e) for s in step.put]
            for s in step.reductions:
                body.append(f"{names[s.name]} = {combined(s, names[s.name], point.value(str(s.args[0])))}")
        lines = [f"{names[s.name]} = {identity(s)}" for s in step.reductions]
        first = times("lane", str(width))
        lines += [f"for at in range({first}, count, {self.group * width}):", *indent(body)]
        for s in step.reductions:
            lines += self.joined(s, names[s.name])
        return lines + self.emitter.place_known(names)

    def _kept(self, point: BodyEmitter, stmt: Stmt, element: int) -> str:
        dtype = stmt.dtype.computed
        if stmt.name in self.lent:
            pointer, offset, scope = point.written(self.lent[stmt.name])
            return f"load_{dtype}({pointer}, {offset}, {scope})"
        return f"load_shared_{dtype}({total('shared', str(self.places[stmt.name]))}, {self.place('at', element)})"

    def _put(self, point: BodyEmitter, stmt: Stmt, element: int) -> str:
        dtype, value = stmt.dtype.computed, point.value(stmt.name)
        if stmt.name in self.lent:
            pointer, offset, scope = point.written(self.lent[stmt.name])
            return f"store_{dtype}({pointer}, {offset}, {value}, {scope})"
        start = total("shared", str(self.places[stmt.name]))
        return f"store_shared_{dtype}({start}, {self.place('at', element)}, {value})"

    def _met(self, reduction: Stmt, name: str, parts: int, among: int, own: str, sender: str = "") -> list[str]:
        """Lines in which ``parts`` results of each of ``among`` groups meet in shared memory: the threads for which
        ``sender`` holds put down that of ``part``, for the group ``own``, and everyone joins them in order."""
        dtype = reduction.dtype.computed
        start = total("shared", str(self.shared))
        self.shared += round_up(parts * among * dtype.itemsize)
        place = f"{start}, {total(times('part', str(among)), own)}"
        put = [f"store_shared_{dtype}({place}, {name})"]
        return [
            *([f"if {sender}:", *indent(put)] if sender else put),
            "cuda.syncthreads()",
            f"{name} = {identity(reduction)}",
            *loop("part", "0", str(parts), [f"{name} = {combined(reduction, name, f'load_shared_{dtype}({place})')}"]),
        ]


class _Rows(_Reduction):
    """The reduced axes are the last (or there are none left)."""

    def __init__(self, spec: KernelSpec):
        super().__init__(spec)
        self.width = self._width()
        turns = -(-typical(self.points) // self.width)
        rows = typical(self.rows)
        if turns <= _LANES * _TURNS or (not isinstance(self.points, int) and rows >= _FEW_ROWS):
            self.group = min(_LANES, 1 << max(turns - 1, 0).bit_length())
            self.threads = _THREADS
        else:
            wanted = max(_THREADS, min(_MOST_THREADS, 1 << (turns // _TURNS).bit_length()))
            self.group = self.threads = wanted

    @property
    def rows(self) -> Size:
        return dims.product(self.spec.axes[a] for a in self.kept)

    def _width(self) -> int:
        """Neighbours that a thread takes together: rows must be whole numbers of them."""
        spec = self.spec
        if not spec.reduced:
            return 1
        whole = [spec.axes[-1], *([] if spec.split is None else [spec.split])]
        width = neighbours(spec, spec.reads)
        while width > 1 and not all(isinstance(n, int) and n % width == 0 for n in whole):
            width //= 2
        return width

    def blocks(self) -> Size:
        return dims.ceil_div(self.rows, self.threads // self.group)

    def grouped(self) -> list[str]:
        rows = self.table.size(self.rows)
        if self.group == self.threads:
            return ["lane = cuda.threadIdx.x", "point = block", "live = True"]
        shift, in_block = self.group.bit_length() - 1, self.threads // self.group
        return [
            f"lane = cuda.threadIdx.x & {self.group - 1}",
            f"point = block * {in_block} + (cuda.threadIdx.x >> {shift})",
            f"live = point < {rows}",
            f"point = min(point, {rows} - 1)",
        ]

    def joined(self, reduction: Stmt, name: str) -> list[str]:
        lines, step = [], min(self.group, _LANES) // 2
        while step:
            lines.append(
                f"{name} = {combined(reduction, name, shuffled('bfly', reduction.dtype.computed, name, step))}"
            )
            step //= 2
        if self.group <= _LANES:
            return lines
        met = self._met(reduction, name, self.group // _LANES, 1, "0", "(lane & 31) == 0")
        return [*lines, "part = lane >> 5", *met]

    def place(self, at: str, element: int) -> str:
        before = times("lane", str(self.width - 1))
        row = (
            total(at, str(element * self.group))
            if before == "0"
            else f"{total(at, str(element * self.group))} - {before}"
        )
        if self.group == self.threads:
            return row
        turns = -(-int(self.points) // (self.group * self.width))
        return f"(cuda.threadIdx.x >> {self.group.bit_length() - 1}) * {turns * self.group * self.width} + {row}"


class _Columns(_Reduction):
    """The reduced axes are the first, with kept axes after them. A thread takes all of a column that is short."""

    threads = _COLUMN_GROUP * _LANES

    def __init__(self, spec: KernelSpec):
        super().__init__(spec)
        self.group = _COLUMN_GROUP if typical(self.points) > _COLUMN_GROUP else 1
        self.across = self.threads // self.group

    @property
    def _columns(self) -> Size:
        return dims.product(self.spec.axes[a] for a in self.kept)

    def blocks(self) -> Size:
        return dims.ceil_div(self._columns, self.across)

    def grouped(self) -> list[str]:
        columns = self.table.size(self._columns)
        return [
            f"x = cuda.threadIdx.x % {self.across}",
            f"lane = cuda.threadIdx.x // {self.across}",
            f"point = block * {self.across} + x",
            f"live = point < {columns}",
            f"point = min(point, {columns} - 1)",
        ]

    def joined(self, reduction: Stmt, name: str) -> list[str]:
        if self.group == 1:
            return []
        return ["part = lane", *self._met(reduction, name, self.group, self.across, "x")]

    def _room(self, dtype: DType) -> int:
        return 0
