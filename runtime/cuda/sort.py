"""Stable sorting along an axis: a block a line.

Runs that fit shared memory are sorted there by Batcher's bitonic network (Batcher: Sorting networks and their
applications; AFIPS 1968), of keys with their positions, so that no two are equal and the order is the stable one.
Longer lines are merged from runs: each element finds its place by how many of the other run come before it.
"""

from __future__ import annotations

from engine import dtypes
from engine.buffers import Buffer
from engine.dims import product
from engine.memory import round_up
from engine.program import Call, Lowered
from engine.schedule import KernelSpec, Sort
from runtime.cuda.emit import kernel
from runtime.element import Element
from runtime.emit import ArgTable, constant, indent, loop, times
from runtime.tasks import outer_indices

_RUN = 1024
_THREADS = 256


def lower_sort(spec: KernelSpec, core: Sort) -> Lowered:
    """One call. Positions of long lines are merged to and fro between two temporary buffers, then elements follow."""
    return _Sort(spec, core).lowered()


class _Sort:
    def __init__(self, spec: KernelSpec, core: Sort):
        self.spec, self.axis = spec, core.axis
        self.table = ArgTable()
        self.key, self.value, self.position = (Element(a, self.table) for a in (*spec.reads, *spec.writes))
        self.kept = [i for i in range(len(spec.axes)) if i != core.axis]
        self.length = self.table.size(spec.axes[core.axis])
        n = spec.axes[core.axis]
        self.run = min(_RUN, max(2, 1 << (n - 1).bit_length())) if isinstance(n, int) and n > 0 else _RUN
        self.is_short = isinstance(n, int) and n <= self.run
        self.threads = max(32, min(_THREADS, self.run // 2))
        self.dtype = spec.reads[0].dtype.computed
        self.order = round_up(self.run * self.dtype.itemsize)
        self.descending = core.descending

    def comes_first(self, x: str, y: str) -> str:
        """Whether the key ``x`` is to come before ``y``. NaN counts as the greatest."""
        first = f"{x} {'>' if self.descending else '<'} {y}"
        if not self.dtype.is_float:
            return f"({first})"
        nan, number = (x, y) if self.descending else (y, x)
        return f"(({first}) | (({nan} != {nan}) & ({number} == {number})))"

    def key_at(self, place: str) -> str:
        stride = self.key.strides[self.axis]
        return self.key.load(f"keys + {times(place, stride)}" if stride != "0" else "keys")

    def lowered(self) -> Lowered:
        spec, table = self.spec, self.table
        split, indices = outer_indices(table, tuple(spec.axes[i] for i in self.kept), "cuda.blockIdx.x", "k")
        lines = [*split, *(f"i{i} = {name}" for i, name in zip(self.kept, indices, strict=True))]
        lines += [f"length = {self.length}", f"keys = {self.key.at(self.kept)}", "sorting = shared_memory()"]
        lines.append(f"order = sorting + {self.order}")
        names = [f"{spec.writes[1].buffer}_{part}" for part in ("order", "merged")]
        buffers: tuple[Buffer, ...] = ()
        if self.is_short:
            lines += ["run = 0", *self._sorted(self._out("int64(load_shared_i32(order, k))", "k"))]
        else:
            here, there = (table.pointer(name) for name in names)
            lines += ["start = cuda.blockIdx.x * length", f"here = {here}", f"there = {there}"]
            lines += [f"for run in range(0, length, {self.run}):"]
            put = ["store_i64(here, start + run + k, int64(load_shared_i32(order, k)), 0)"]
            lines += indent(self._sorted(put))
            lines += self._merged()
            finish = self._out("load_i64(here, start + k, 0)", "k")
            lines += loop("k", "cuda.threadIdx.x", f"length, {self.threads}", finish)
            buffers = tuple(Buffer(name, "temp", dtypes.i64, product(spec.axes)) for name in names)
        shared = self.order + 4 * self.run
        modules = {"runtime.cuda.ptx": ["shared_memory"]}
        code = kernel(spec.name, lines, table, self.threads, shared, modules=modules)
        temporary = [b.name for b in buffers]
        writes = tuple(dict.fromkeys([*(a.buffer for a in spec.writes), *temporary]))
        reads = tuple(dict.fromkeys([*(a.buffer for a in spec.reads), *temporary]))
        tasks = product(spec.axes[i] for i in self.kept)
        step = Call(code.key, spec.name, table.args, tasks, reads, writes, 0, spec.nodes)
        return Lowered((step,), (code,), buffers)

    def _out(self, position: str, place: str) -> list[str]:
        """Lines that write the element of this ``position`` to ``place``."""
        value, where = self.value, self.position
        return [
            f"mine = {position}",
            value.store(value.at(self.kept, times(place, value.strides[self.axis])), self.key_at("mine")),
            where.store(where.at(self.kept, times(place, where.strides[self.axis])), "mine"),
        ]

    def _sorted(self, each: list[str]) -> list[str]:
        """Lines that sort the run that begins at ``run``, and do ``each`` for its positions ``k`` in order."""
        d, run, threads = self.dtype, self.run, self.threads
        fill = [
            "n = run + k",
            f"one = {constant(0, d)}",
            "if n < length:",
            *indent([f"one = {self.key_at('n')}"]),
            f"store_shared_{d}(sorting, k, one)",
            "store_shared_i32(order, k, int32(n))",
        ]
        compare = [
            "low = 2 * pair - (pair & (half - 1))",
            "high = low + half",
            f"a = load_shared_{d}(sorting, low)",
            f"b = load_shared_{d}(sorting, high)",
            "p = int64(load_shared_i32(order, low))",
            "q = int64(load_shared_i32(order, high))",
            f"after = {self.comes_first('b', 'a')} | ((not {self.comes_first('a', 'b')}) & (q < p))",
            "if (p >= length) | (q >= length):",
            "    after = p > q",
            "if after == ((low & size) == 0):",
            *indent([
                f"store_shared_{d}(sorting, low, b)",
                f"store_shared_{d}(sorting, high, a)",
                "store_shared_i32(order, low, int32(q))",
                "store_shared_i32(order, high, int32(p))",
            ]),
        ]  # fmt: skip
        return [
            *loop("k", "cuda.threadIdx.x", f"{run}, {threads}", fill),
            "cuda.syncthreads()",
            "size = 2",
            f"while size <= {run}:",
            *indent([
                "half = size >> 1",
                "while half > 0:",
                *indent([
                    *loop("pair", "cuda.threadIdx.x", f"{run // 2}, {threads}", compare),
                    "cuda.syncthreads()",
                    "half = half >> 1",
                ]),
                "size = size << 1",
            ]),
            *loop("k", "cuda.threadIdx.x", f"min({run}, length - run), {threads}", each),
            "cuda.syncthreads()",
        ]  # fmt: skip

    def _merged(self) -> list[str]:
        """Lines that merge neighbouring runs until one is left, whose positions are at ``here``."""
        before_mine = f"{self.comes_first('other', 'one')} | (after & (not {self.comes_first('one', 'other')}))"
        place = [
            "run = quotient(n, 2 * width) * 2 * width",
            "middle = min(run + width, length)",
            "mine = load_i64(here, start + n, 0)",
            f"one = {self.key_at('mine')}",
            "after = n >= middle",
            "low = select(after, run, middle)",
            "high = select(after, middle, min(run + 2 * width, length))",
            "first = low",
            "while low < high:",
            *indent([
                "half = (low + high) >> 1",
                f"other = {self.key_at('load_i64(here, start + half, 0)')}",
                f"if {before_mine}:",
                "    low = half + 1",
                "else:",
                "    high = half",
            ]),
            "own = n - select(after, middle, run)",
            "store_i64(there, start + run + own + low - first, mine, 0)",
        ]  # fmt: skip
        return [
            f"width = {self.run}",
            "while width < length:",
            *indent([
                *loop("n", "cuda.threadIdx.x", f"length, {self.threads}", place),
                "cuda.syncthreads()",
                "kept = here",
                "here = there",
                "there = kept",
                "width = width << 1",
            ]),
        ]  # fmt: skip
