"""Stable sorting along an axis, by as many blocks as a line has runs.

A run fits shared memory and is sorted there by Batcher's bitonic network (Batcher: Sorting networks and their
applications; AFIPS 1968), of keys with their positions, so that no two are equal and the order is the stable one.
Longer lines are merged from runs, two by two, a launch for each doubling. Blocks share what a merge gives: each finds
by bisection which parts of both runs its own piece comes from, the merge path of Odeh, Green, Mwassi, Shmueli and Birk
(Merge path: parallel merging made simple; IPDPS 2012), and there each element finds its place by how many of the other
part come before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine import dtypes
from engine.buffers import Buffer
from engine.dims import Size, ceil_div, product
from engine.memory import round_up
from engine.program import Call, Kernel, Lowered
from engine.schedule import KernelSpec, Sort
from runtime.cuda.emit import kernel
from runtime.element import Element
from runtime.emit import ArgTable, constant, indent, loop, times
from runtime.tasks import outer_indices

_RUN = 1024
_THREADS = 256
_LONGEST = 1 << 31
"""Positions have 32 bits."""


def lower_sort(spec: KernelSpec, core: Sort) -> Lowered:
    """A call that sorts the runs, and for longer lines calls that merge them, to and fro between two temporary buffers
    of keys and of positions; the last one writes the results. Of an unknown length there are calls for all that may be,
    and those that it does not need get no blocks."""
    n = spec.axes[core.axis]
    run = _RUN if not isinstance(n, int) else min(_RUN, max(2, 1 << max(n - 1, 0).bit_length()))
    widths = []
    width = run
    while width < (n if isinstance(n, int) else _LONGEST):
        widths.append(width)
        width *= 2
    steps: list[_Runs | _Merge] = [_Runs(spec, core, run, bool(widths))]
    steps += [_Merge(spec, core, run, width, i % 2) for i, width in enumerate(widths)]
    made = [step.lowered() for step in steps]
    kernels = {code.key: code for _, code in made}
    return Lowered(tuple(call for call, _ in made), tuple(kernels.values()), steps[0].buffers() if widths else ())


class _Sort:
    """A launch over ``run`` elements a block. Generated names: ``keys`` is where the line's keys are, ``sorting`` and
    ``order`` are keys and positions in shared memory, ``here`` and ``there`` what a merge reads and writes."""

    def __init__(self, spec: KernelSpec, core: Sort, run: int):
        self.spec, self.axis, self.run = spec, core.axis, run
        self.descending = core.descending
        self.table = ArgTable()
        self.key, self.value, self.position = (Element(a, self.table) for a in (*spec.reads, *spec.writes))
        self.kept = [i for i in range(len(spec.axes)) if i != core.axis]
        self.threads = max(32, min(_THREADS, run // 2))
        self.stored = spec.reads[0].dtype
        self.dtype = self.stored.computed
        self.order = round_up(run * self.dtype.itemsize)
        self.shared = self.order + 4 * run

    @property
    def pieces(self) -> Size:
        """The runs of a line."""
        return ceil_div(self.spec.axes[self.axis], self.run)

    @property
    def lines(self) -> Size:
        return product(self.spec.axes[i] for i in self.kept)

    def buffers(self) -> tuple[Buffer, ...]:
        size = product(self.spec.axes)
        kinds = {"keys": self.stored, "order": dtypes.i32}
        return tuple(Buffer(self.buffer(k, side), "temp", d, size) for side in (0, 1) for k, d in kinds.items())

    def buffer(self, what: str, side: int) -> str:
        return f"{self.spec.writes[1].buffer}_{what}{side}"

    def piece(self) -> list[str]:
        """Lines that find the block's piece of a line, from ``begin`` to ``stop``."""
        spec, table = self.spec, self.table
        pieces = table.size(self.pieces)
        lines = ["line, begin = cuda.blockIdx.x, 0"]
        if pieces != "1":
            lines = [f"line = quotient(cuda.blockIdx.x, {pieces})"]
            lines.append(f"begin = (cuda.blockIdx.x - line * {pieces}) * {self.run}")
        split, indices = outer_indices(table, tuple(spec.axes[i] for i in self.kept), "line", "k")
        lines += [*split, *(f"i{i} = {name}" for i, name in zip(self.kept, indices, strict=True))]
        lines += [f"length = {table.size(spec.axes[self.axis])}", f"stop = min(begin + {self.run}, length)"]
        return [*lines, "sorting = shared_memory()", f"order = sorting + {self.order}"]

    def side(self, name: str, side: int) -> list[str]:
        """Lines that set the addresses of the line's keys and positions in the buffers ``side``, under names that begin
        with ``name``."""
        table = self.table
        keys, order = table.pointer(self.buffer("keys", side)), table.pointer(self.buffer("order", side))
        size = self.stored.itemsize
        return [f"{name}_keys = {keys} + line * length * {size}", f"{name}_order = {order} + line * length * 4"]

    def launch(
        self, name: str, lines: Sequence[str], tasks: Size, reads: Sequence[str], writes: Sequence[str]
    ) -> tuple[Call, Kernel]:
        code = kernel(name, lines, self.table, self.threads, self.shared,
                      modules={"runtime.cuda.ptx": ["shared_memory"]})  # fmt: skip
        label, nodes = self.spec.name, self.spec.nodes
        return Call(code.key, label, self.table.args, tasks, tuple(reads), tuple(writes), 0, nodes), code

    def comes_first(self, x: str, y: str) -> str:
        """Whether the key ``x`` is to come before ``y``. NaN counts as the greatest."""
        first = f"{x} {'>' if self.descending else '<'} {y}"
        if not self.dtype.is_float:
            return f"({first})"
        nan, number = (x, y) if self.descending else (y, x)
        return f"(({first}) | (({nan} != {nan}) & ({number} == {number})))"

    def put(self, one: str, position: str, place: str, last: str) -> list[str]:
        """Lines that write a key and where it came from to a place of the line: to the results where this launch is the
        ``last``, else for the next one."""
        value, where = self.value, self.position
        out = [
            value.store(value.at(self.kept, times(place, value.strides[self.axis])), one),
            where.store(where.at(self.kept, times(place, where.strides[self.axis])), f"int64({position})"),
        ]
        if last == "True":
            return out
        between = [f"store_{self.stored}(there_keys, {place}, {one}, 0)"]
        between.append(f"store_i32(there_order, {place}, {position}, 0)")
        return [f"if {last}:", *indent(out), "else:", *indent(between)]


class _Runs(_Sort):
    """Every block sorts a run."""

    def __init__(self, spec: KernelSpec, core: Sort, run: int, merged: bool):
        super().__init__(spec, core, run)
        self.merged = merged

    def lowered(self) -> tuple[Call, Kernel]:
        spec, writes = self.spec, [a.buffer for a in self.spec.writes]
        lines = [*self.piece(), f"keys = {self.key.at(self.kept)}"]
        if self.merged:
            lines += self.side("there", 0)
            writes += [self.buffer("keys", 0), self.buffer("order", 0)]
        return self.launch(
            spec.name, [*lines, *self._sorted()], self.lines * self.pieces, [spec.reads[0].buffer], writes
        )

    def _sorted(self) -> list[str]:
        d, threads = self.dtype, self.threads
        stride = self.key.strides[self.axis]
        key = self.key.load(f"keys + {times('n', stride)}" if stride != "0" else "keys")
        fill = [
            "n = begin + k",
            f"one = {constant(0, d)}",
            "if n < stop:",
            f"    one = {key}",
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
        one, position = f"load_shared_{d}(sorting, k)", "load_shared_i32(order, k)"
        last = f"length <= {self.run}" if self.merged else "True"
        return [
            "whole = 2",
            "while whole < stop - begin:",
            "    whole = whole << 1",
            *loop("k", "cuda.threadIdx.x", f"whole, {threads}", fill),
            "cuda.syncthreads()",
            "size = 2",
            "while size <= whole:",
            *indent([
                "half = size >> 1",
                "while half > 0:",
                *indent([
                    *loop("pair", "cuda.threadIdx.x", f"whole >> 1, {threads}", compare),
                    "cuda.syncthreads()",
                    "half = half >> 1",
                ]),
                "size = size << 1",
            ]),
            *loop("k", "cuda.threadIdx.x", f"stop - begin, {threads}", self.put(one, position, "(begin + k)", last)),
        ]  # fmt: skip


class _Merge(_Sort):
    """Runs of ``width``, in the buffers ``side``, become runs of twice that in the others: a block a piece of these."""

    def __init__(self, spec: KernelSpec, core: Sort, run: int, width: int, side: int):
        super().__init__(spec, core, run)
        self.width, self.from_side = width, side
        self.shared += 8

    def lowered(self) -> tuple[Call, Kernel]:
        sides = self.from_side, 1 - self.from_side
        reads, writes = ([self.buffer(what, side) for what in ("keys", "order")] for side in sides)
        self.table.declare(width=self.width)
        lines = [*self.piece(), *self.side("here", sides[0]), *self.side("there", sides[1]), *self._merged()]
        pairs = ceil_div(self.spec.axes[self.axis], self.width) // 2
        needed = 2 * pairs // (pairs + 1)  # 1 where there is a second run, else 0
        tasks = self.lines * self.pieces * needed
        return self.launch(
            f"{self.spec.name}_merge", lines, tasks, reads, [*(a.buffer for a in self.spec.writes), *writes]
        )

    def _merged(self) -> list[str]:
        d, threads = self.dtype, self.threads
        parts = f"order + {4 * self.run}"
        ours = [
            "many = select(cuda.threadIdx.x == 0, begin, stop) - run",
            "low = max(0, many - (end - middle))",
            "high = min(many, middle - run)",
            "while low < high:",
            *indent([
                "half = (low + high) >> 1",
                f"one = load_{self.stored}(here_keys, run + half, 0)",
                f"other = load_{self.stored}(here_keys, middle + many - 1 - half, 0)",
                f"if {self.comes_first('other', 'one')}:",
                "    high = half",
                "else:",
                "    low = half + 1",
            ]),
            f"store_shared_i32({parts}, cuda.threadIdx.x, int32(low))",
        ]  # fmt: skip
        fetch = [
            "n = select(k < first, run + skipped_first + k, middle + begin - run - skipped_first + k - first)",
            f"store_shared_{d}(sorting, k, load_{self.stored}(here_keys, n, 0))",
            "store_shared_i32(order, k, load_i32(here_order, n, 0))",
        ]
        before = f"{self.comes_first('other', 'one')} | (after & (not {self.comes_first('one', 'other')}))"
        place = [
            f"one = load_shared_{d}(sorting, k)",
            "after = k >= first",
            "low = select(after, 0, first)",
            "high = select(after, first, stop - begin)",
            "while low < high:",
            *indent([
                "half = (low + high) >> 1",
                f"other = load_shared_{d}(sorting, half)",
                f"if {before}:",
                "    low = half + 1",
                "else:",
                "    high = half",
            ]),
            "place = begin + k + low - first",
            *self.put("one", "load_shared_i32(order, k)", "place", "2 * width >= length"),
        ]  # fmt: skip
        return [
            "run = quotient(begin, 2 * width) * 2 * width",
            "middle = min(run + width, length)",
            "end = min(run + 2 * width, length)",
            "if cuda.threadIdx.x < 2:",
            *indent(ours),
            "cuda.syncthreads()",
            f"skipped_first = int64(load_shared_i32({parts}, 0))",
            f"first = int64(load_shared_i32({parts}, 1)) - skipped_first",
            *loop("k", "cuda.threadIdx.x", f"stop - begin, {threads}", fetch),
            "cuda.syncthreads()",
            *loop("k", "cuda.threadIdx.x", f"stop - begin, {threads}", place),
        ]  # fmt: skip
