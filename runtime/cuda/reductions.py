"""Reductions: a group of threads for each point that is kept, which walk what is reduced side by side.

Along rows (reduced axes last) a group is some lanes of a warp, or a block where rows are long; results meet in
shuffles, and in shared memory where a block is a group. Along columns (reduced axes first) neighbouring threads have
neighbouring columns, and a group is the threads of a block that have the same one; results meet in shared memory.
Either way each thread of a group ends up with the result, added up in an order that shapes alone decide, and goes on
to the next pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

from engine import dims
from engine.buffers import Buffer
from engine.dims import Size
from engine.dtypes import DType
from engine.memory import round_up
from engine.program import Call, Kernel, Lowered
from engine.records import dataclass
from engine.schedule import Access, KernelSpec, Stmt
from runtime.axes import collapse
from runtime.cuda.emit import kernel
from runtime.cuda.loops import is_together, loaded_together, neighbours, stored_together
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
_SHARING_THREADS = 512
_SHARING_BLOCKS = 512
"""Blocks of so many threads that fill a large GPU."""
_BUSY_BLOCKS = 128
"""With as many groups as this, each has a block to itself."""


def lower_reduction(spec: KernelSpec) -> Lowered:
    """A kernel for ``spec``, which has reduced axes and no core."""
    flat = collapse(spec)
    flat = replace(flat, body=without_arg_reductions(flat.body))
    columns = flat.reduced and flat.reduced[0] == 0 and len(flat.reduced) < len(flat.axes)
    kind = _Columns if columns else _Rows
    whole = kind(flat)
    length = whole.share()
    if length is None:
        return Lowered(*whole.lowered())
    shares = _Shares(length, dims.ceil_div(whole.points, length))
    stages = [kind(flat, replace(shares, stage=n)) for n in range(whole.stages())]
    made = [stage.lowered() for stage in stages]
    kernels = {k.key: k for _, (k,) in made}
    return Lowered(tuple(c for (c,), _ in made), tuple(kernels.values()), stages[0].partials())


@dataclass(frozen=True)
class _Shares:
    """The points of each group cut into ``count`` shares of ``length``, one for a block; the launch makes pass number
    ``stage``, or ends what follows from all of them."""

    length: int
    count: Size
    stage: int = 0


class _Reduction:
    """A collapsed ``spec`` as passes over what is reduced. A subclass says how threads are grouped.

    Generated names: ``lane`` is a thread's number in its group, ``live`` whether the group has a point of its own,
    ``count`` the points that it reduces, ``at`` the number of one of these.
    """

    group: int
    threads: int
    width = 1
    """Neighbours that a thread takes together, in accesses of up to 16 bytes."""
    if_whole = ""
    """The condition under which it does, where lengths say at run time whether rows are whole numbers of them."""

    def __init__(self, spec: KernelSpec, shares: _Shares | None = None):
        self.spec = spec
        self.shares = shares
        self.table = ArgTable()
        self.kept = [a for a in range(len(spec.axes)) if a not in spec.reduced]
        effects = [s.name for s in spec.body if s.op in ("store", "check_index")]
        effects += self._replaced()
        self.emitter = BodyEmitter(spec.body, spec.reads, spec.writes, len(spec.axes), self.table,
                                   chunk="chunk" if spec.split is not None else "0", reduced=spec.reduced,
                                   later=effects)  # fmt: skip
        self.passes = RowPasses(spec, self.varies, self._keep)
        self.places: dict[str, int] = {}  # what is kept in shared memory, and where
        self.lent: dict[str, int] = {}  # what is kept in a result, and in which of the writes
        self.shared = 0

    def _replaced(self) -> list[str]:
        """Loads of what the kernel writes anew, an element for each kept point: they are for the one thread that writes
        it. Another that read it before, to no purpose, might read while it is written."""
        spec = self.spec
        written = {w.buffer for w in spec.writes}
        loads = [(s.name, spec.reads[int(s.args[0])]) for s in spec.body if s.op == "load"]
        return [n for n, a in loads if a.buffer in written and not any(a.strides[r] != 0 for r in spec.reduced)]

    def varies(self, name: str) -> bool:
        return bool(self.emitter.depends_on(name) & set(self.spec.reduced))

    @property
    def points(self) -> Size:
        """The points that are reduced to one, in one chunk."""
        spec = self.spec
        first = spec.reduced[:1]
        return dims.product(spec.split if spec.split is not None and a in first else spec.axes[a] for a in spec.reduced)

    @cached_property
    def plan(self) -> list[Pass]:
        """The passes in order."""
        return self.passes.plan()

    @property
    def groups(self) -> Size:
        """The points that are kept."""
        return dims.product(self.spec.axes[a] for a in self.kept)

    def lowered(self) -> tuple[tuple[Call, ...], tuple[Kernel, ...]]:
        """The call and its kernel: of all passes, or of one stage."""
        spec, table, shares = self.spec, self.table, self.shares
        blocks = tasks = self.blocks()
        lines = ["block = cuda.blockIdx.x"]
        plan = self.plan
        ending = shares is not None and shares.stage == len(plan)
        pieces = "chunk" if spec.split is not None else "share" if shares is not None and not ending else None
        if pieces:
            count = table.size(blocks)
            many = shares.count if shares else dims.ceil_div(spec.axes[spec.reduced[0]], spec.split or 1)
            tasks = blocks * many
            lines = [f"{pieces} = quotient(cuda.blockIdx.x, {count})", f"block = cuda.blockIdx.x - {pieces} * {count}"]
        lines += self.grouped()
        lines += self.emitter.start()
        split, names = outer_indices(table, tuple(spec.axes[a] for a in self.kept), "point", "k")
        lines += split
        for axis, name in zip(self.kept, names, strict=True):
            lines += self.emitter.enter(axis, name)
        lines += [] if ending else self._count()
        passes = [line for number, step in enumerate(plan) for line in self._stage(number, step)]
        if self.shared:
            lines.append("shared = shared_memory()")
        lines += passes
        if shares is None or shares.stage == self.stages() - 1:
            last = self.emitter.release()
            if last:
                once = "" if shares is None or ending else " & (share == 0)"
                lines += [f"if live & (lane == 0){once}:", *indent(last)]
        modules = {"runtime.cuda.ptx": ["shared_memory", *SHUFFLES]}
        name = spec.name if shares is None else f"{spec.name}_stage{shares.stage}"
        code = kernel(name, lines, table, self.threads, self.shared, modules=modules)
        return (call(self._touching(), code, table, tasks),), (code,)

    # --- in shares ---

    least_share = 1
    """Points that are worth a block."""
    most_shares = _SHARING_BLOCKS

    def share(self) -> int | None:
        """How many points a block takes, where those of a group are to be shared."""
        blocks, points = typical(self.blocks()), typical(self.points)
        if self.spec.split is not None or blocks >= _BUSY_BLOCKS:
            return None
        wanted = min(self.most_shares, _SHARING_BLOCKS // max(blocks, 1))
        length = round_up(-(-points // wanted), self.least_share)
        return length if points >= 4 * length else None

    def stages(self) -> int:
        """How many launches that takes: one for each pass, and one that ends, unless the last pass can."""
        plan = self.plan
        ends = [s for s in self.spec.body if s.op in ("store", "check_index") and not self.varies(s.name)]
        in_place = {a.buffer for a in self.spec.reads} & {a.buffer for a in self.spec.writes}
        return len(plan) + bool(ends and (plan[-1].reductions or in_place))

    def partials(self) -> tuple[Buffer, ...]:
        """The memory in which shares meet."""
        assert self.shares is not None
        size = self.shares.count * self.groups
        reductions = [s for step in self.plan for s in step.reductions]
        return tuple(Buffer(self._partial(s), "temp", s.dtype.computed, size) for s in reductions)

    def _partial(self, reduction: Stmt) -> str:
        return f"{self.spec.name}.{reduction.name}.shares"

    def _touching(self) -> KernelSpec:
        """The spec, with what the stage reads and writes besides."""
        if self.shares is None:
            return self.spec
        of = [
            [Access(self._partial(s), s.dtype.computed, (0,) * len(self.spec.axes)) for s in step.reductions]
            for step in self.plan
        ]
        reads = [a for some in of[: self.shares.stage] for a in some]
        writes = of[self.shares.stage] if self.shares.stage < len(of) else []
        return replace(self.spec, reads=(*self.spec.reads, *reads), writes=(*self.spec.writes, *writes))

    def _stage(self, number: int, step: Pass) -> list[str]:
        """The lines of a pass in this launch."""
        names = {s.name: f"a{i}" for i, s in enumerate(self.spec.body) if s in step.reductions}
        if self.shares is None:
            return [*self._pass(step, names), *self.emitter.place_known(names)]
        if number > self.shares.stage:
            return []
        places = {}
        groups = self.table.size(self.groups)
        for s in step.reductions:
            dtype, buffer = s.dtype.computed, self._partial(s)
            places[s.name] = dtype, self.table.pointer(buffer), self.table.scope(buffer)
        if number == self.shares.stage:
            lines = self._pass(step, names)
            for name, (dtype, pointer, scope) in places.items():
                at = total(times("share", groups), "point")
                lines += ["if live & (lane == 0):", f"    store_{dtype}({pointer}, {at}, {names[name]}, {scope})"]
            return lines
        lines = []
        for s in step.reductions:
            name, (dtype, pointer, scope) = names[s.name], places[s.name]
            there = f"load_{dtype}({pointer}, {total(times('turn', groups), 'point')}, {scope})"
            lines += [
                f"{name} = {identity(s)}",
                f"for turn in range(lane, {self.table.size(self.shares.count)}, {self.group}):",
                f"    {name} = {combined(s, name, there)}",
                *self.joined(s, name),
            ]
        return lines + self.emitter.place_known(names)

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
        if self.shares is not None:
            lines.append(f"origin = share * {self.shares.length}")
            count = f"min(origin + {self.shares.length}, {count})"
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
        if not isinstance(self.points, int) or self.shares is not None:
            return 0
        turns = -(-self.points // (self.group * self.width))
        return round_up(turns * self.threads * self.width * dtype.itemsize)

    def _pass(self, step: Pass, names: Mapping[str, str]) -> list[str]:
        """The walk of a group over its points, and what its reductions come to, in ``names``."""
        walk = self._walk(step, names, self.width)
        if self.if_whole:
            walk = [f"if {self.if_whole}:", *indent(walk), "else:", *indent(self._walk(step, names, 1))]
        lines = [f"{names[s.name]} = {identity(s)}" for s in step.reductions]
        return [*lines, *walk, *(line for s in step.reductions for line in self.joined(s, names[s.name]))]

    def _walk(self, step: Pass, names: Mapping[str, str], width: int) -> list[str]:
        """The loop over the points, of which a thread takes ``width`` neighbours at a time."""
        spec, table = self.spec, self.table
        kept = [*self.places, *self.lent]
        wide = {name: w for name, w in self.lent.items() if width > 1 and is_together(spec.writes[w], width)}
        effects = [s for s in spec.body if s.name in step.effects]
        stores = [
            s for s in effects if s.op == "store" and width > 1 and is_together(spec.writes[int(s.args[0])], width)
        ]
        roots = [str(a) for s in step.reductions for a in s.args] + [s.name for s in step.put]
        roots += [s.name for s in effects if s not in stores]
        roots += [a for s in stores for a in s.args[1:] if isinstance(a, str)]
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
        place = inner.fork(known=known)
        if spec.reduced:
            place.enter(spec.reduced[-1], first_index, inline=True)
        body += loaded
        for s in step.taken:
            if s.name in wide:
                pointer, offset, scope = place.written(wide[s.name])
                parts = ", ".join(f"{known[s.name]}_{e}" for e in range(width))
                body.append(f"{parts} = load{width}_{s.dtype.computed}({pointer}, {offset}, {scope})")
        made: dict[int, list[str]] = {}
        for e in range(width):
            here, point = known, inner
            if width > 1:
                here = {name: f"{of}_{e}" for name, of in known.items()} | values[e]
                point = inner.fork(only=roots, known=here, tag=f"{e}_")
            index = total(first_index, str(e))
            walked = point.enter(spec.reduced[-1], f"({index})" if e else index, inline=True) if spec.reduced else []
            body += [f"{here[s.name]} = {self._kept(point, s, e)}" for s in step.taken if s.name not in wide]
            body += walked
            body += [self._put(point, s, e) for s in step.put if s.name not in wide]
            for s in step.put:
                if s.name in wide:
                    made.setdefault(wide[s.name], []).append(point.value(s.name))
            for s in stores:
                made.setdefault(int(s.args[0]), []).append(point.stored(s))
            for s in step.reductions:
                body.append(f"{names[s.name]} = {combined(s, names[s.name], point.value(str(s.args[0])))}")
        body += [stored_together(place, spec, write, found) for write, found in made.items()]
        first = total(*(["origin"] if self.shares else []), times("lane", str(width)))
        return [f"for at in range({first}, count, {self.group * width}):", *indent(body)]

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

    def _over_lanes(self, reduction: Stmt, name: str, lanes: int, apart: int) -> list[str]:
        """Lines that combine what those of so many lanes of a warp have which are ``apart``, or multiples of that."""
        lines, dtype, step = [], reduction.dtype.computed, lanes // 2
        while step >= apart:
            lines.append(f"{name} = {combined(reduction, name, shuffled('bfly', dtype, name, step))}")
            step //= 2
        return lines

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

    def __init__(self, spec: KernelSpec, shares: _Shares | None = None):
        super().__init__(spec, shares)
        self.width = self._width()
        length = spec.axes[-1] if spec.axes else 0
        if self.width > 1 and not isinstance(length, int):
            self.if_whole = f"({self.table.size(length)} & {self.width - 1}) == 0"
        self.least_share = 4 * _SHARING_THREADS * self.width
        turns = -(-typical(self.points) // (1 if self.if_whole else self.width))
        rows = typical(self.groups)
        if shares is not None:
            self.group = self.threads = _SHARING_THREADS
        elif turns <= _LANES * _TURNS or (not isinstance(self.points, int) and rows >= _FEW_ROWS):
            self.group = min(_LANES, 1 << max(turns - 1, 0).bit_length())
            self.threads = _THREADS
        else:
            wanted = max(_THREADS, min(_MOST_THREADS, 1 << (turns // _TURNS).bit_length()))
            self.group = self.threads = wanted

    def _width(self) -> int:
        """Neighbours that a thread takes together: rows must be whole numbers of them, or may be for some lengths."""
        spec = self.spec
        if not spec.reduced:
            return 1
        whole = [spec.axes[-1], *([] if spec.split is None else [spec.split])]
        width = neighbours(spec, spec.reads)
        while width > 1 and not all(n % width == 0 for n in whole if isinstance(n, int)):
            width //= 2
        return width

    def blocks(self) -> Size:
        return dims.ceil_div(self.groups, self.threads // self.group)

    def grouped(self) -> list[str]:
        rows = self.table.size(self.groups)
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
        lines = self._over_lanes(reduction, name, min(self.group, _LANES), 1)
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

    most_shares = _SHARING_BLOCKS // 2  # each block adds up all shares of its columns

    def __init__(self, spec: KernelSpec, shares: _Shares | None = None):
        super().__init__(spec, shares)
        self.threads = _COLUMN_GROUP * _LANES if shares is None else _SHARING_THREADS
        self.across = _LANES
        if isinstance(self.groups, int) and self.groups < _LANES:
            self.across = 1 << max(self.groups - 1, 0).bit_length()
        if typical(self.points) <= _COLUMN_GROUP:
            self.across = self.threads
        self.group = self.threads // self.across
        self.least_share = 8 * _SHARING_THREADS // self.across

    def blocks(self) -> Size:
        return dims.ceil_div(self.groups, self.across)

    def grouped(self) -> list[str]:
        columns = self.table.size(self.groups)
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
        lines = self._over_lanes(reduction, name, _LANES, self.across)
        sender = f"(cuda.threadIdx.x & 31) < {self.across}" if self.across < _LANES else ""
        met = self._met(reduction, name, self.threads // _LANES, self.across, "x", sender)
        return [*lines, "part = cuda.threadIdx.x >> 5", *met]

    def _room(self, dtype: DType) -> int:
        return 0
