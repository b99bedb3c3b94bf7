"""Scattering: elements written, or added to others, where an index says, as if one after the other.

What falls on one element does so in row-major order, so one thread takes all that can meet. Where an index is the same
for a whole row, as for the rows of an embedding, blocks share the places that it can name: each goes through the whole
index, lists what falls on its own places in order, and then neighbouring threads take neighbouring elements of these
rows. Else a thread takes everything along the axes that an element does not tell apart.
"""

from __future__ import annotations

from engine import dims, dtypes
from engine.dims import Size
from engine.program import Call, Lowered
from engine.schedule import KernelSpec, Scatter
from runtime.axes import collapse
from runtime.cuda.emit import kernel
from runtime.cuda.loops import THREADS
from runtime.element import Element
from runtime.emit import ArgTable, cast, indent, loop, times, total, vocabulary
from runtime.tasks import outer_indices, typical

_BLOCKS = 256
"""Blocks among which places are shared: enough for a GPU, few enough to go through the index that often."""
_MANY_POINTS = 4096
"""As many points as this, each with an index of its own, keep a GPU busy with a thread for each."""
_SHORT = 8
"""An index that is as short as this is gone through by each thread."""
_THREADS = 512
"""Threads of a block that shares places: points of the index that are looked at together."""


def lower_scatter(spec: KernelSpec, core: Scatter) -> Lowered:
    """One call; the tensor written to has been filled before."""
    spec = collapse(spec)
    write = spec.writes[0]
    every = [i for i, n in enumerate(spec.axes) if n != 1]
    meeting = [i for i in every if write.strides[i] == 0]
    own = [i for i in every if i not in meeting]
    alike = [i for i in own if spec.reads[0].strides[i] == 0]
    apart = [i for i in own if i not in alike]
    table = ArgTable()
    scatter = _Scatter(spec, core, table, meeting)
    if typical(scatter.size(apart)) < _MANY_POINTS and typical(scatter.size(meeting)) > _SHORT:
        scatter.threads = _THREADS if typical(scatter.size(meeting)) > THREADS else THREADS
        lines, blocks, shared = scatter.by_places(apart, alike)
    else:
        lines, blocks, shared = scatter.by_points(own)
    modules = {"runtime.cuda.ptx": ["ballot", "shared_memory"]}
    code = kernel(spec.name, lines, table, scatter.threads, shared, modules=modules)
    buffers = tuple(dict.fromkeys(a.buffer for a in (*spec.reads, *spec.writes)))
    call = Call(code.key, spec.name, table.args, blocks, buffers, (write.buffer,), 0, spec.nodes, indexed=True)
    return Lowered((call,), (code,))


class _Scatter:
    """The source of a scatter over a collapsed ``spec``, of which what differs along ``meeting`` may meet."""

    threads = THREADS

    def __init__(self, spec: KernelSpec, core: Scatter, table: ArgTable, meeting: list[int]):
        self.spec, self.core, self.table, self.meeting = spec, core, table, meeting
        self.index, self.source, self.out = (Element(a, table) for a in (*spec.reads, *spec.writes))
        self.every = [i for i, n in enumerate(spec.axes) if n != 1]

    def size(self, axes: list[int]) -> Size:
        return dims.product(self.spec.axes[i] for i in axes)

    def indices(self, axes: list[int], number: str, prefix: str) -> list[str]:
        """Lines that set ``i<axis>`` of ``axes`` from the number of a point of theirs."""
        split, names = outer_indices(self.table, tuple(self.spec.axes[i] for i in axes), number, prefix)
        return [*split, *(f"i{axis} = {name}" for axis, name in zip(axes, names, strict=True))]

    def where(self) -> str:
        """The place that the index names at this point."""
        return cast(self.index.load(self.index.at(self.every)), self.spec.reads[0].dtype, dtypes.i64)

    def update(self) -> list[str]:
        """Lines that let this point fall on the place ``at``."""
        dtype = self.spec.writes[0].dtype
        own = [i for i in self.every if i not in self.meeting]
        place = self.out.at(own, times("at", self.table.size(self.core.stride)))
        incoming = self.source.load(self.source.at(self.every))
        if self.core.mode == "set":
            return [self.out.store(place, incoming)]
        op = {"add": "add", "mul": "mul", "max": "maximum", "min": "minimum"}[self.core.mode]
        both = vocabulary(op, ["here", "comes"], dtype.computed, dtype.computed)
        return [
            f"place = {total(place)}",
            f"here = {self.out.load('place')}",
            f"comes = {incoming}",
            self.out.store("place", both),
        ]

    def by_points(self, own: list[int]) -> tuple[list[str], Size, int]:
        """A thread for each point of the axes ``own``."""
        points = self.size(own)
        count = self.table.size(self.size(self.meeting))
        turn = [*self.indices(self.meeting, "turn", "m"), f"at = {self.where()}", *self.update()]
        lines = [
            f"point = cuda.blockIdx.x * {THREADS} + cuda.threadIdx.x",
            f"if point < {self.table.size(points)}:",
            *indent([*self.indices(own, "point", "o"), *loop("turn", "0", count, turn)]),
        ]
        return lines, dims.ceil_div(points, THREADS), 0

    def by_places(self, apart: list[int], alike: list[int]) -> tuple[list[str], Size, int]:
        """A block for a range of places at each point of the axes ``apart``; its threads share those of ``alike``."""
        table, threads = self.table, self.threads
        warps = threads // 32
        points, meeting = self.size(apart), self.size(self.meeting)
        count = table.size(meeting)
        ranges = max(_BLOCKS // max(typical(points), 1), 1)
        if isinstance(self.core.size, int):
            ranges = max(min(ranges, self.core.size), 1)
        each = table.size(dims.ceil_div(self.core.size, ranges))
        look = [
            "turn = first + cuda.threadIdx.x",
            "at = -1",
            f"if turn < {count}:",
            *indent([*self.indices(self.meeting, "turn", "m"), f"at = {self.where()}"]),
            "mine = (at >= low) & (at < high)",
            "found = ballot(select(mine, 1, 0))",
            "if lane == 0:",
            "    store_shared_i64(counts, warp, count_bits(found))",
            "cuda.syncthreads()",
            "listed = 0",
            "before = count_bits(found & ((1 << lane) - 1))",
            f"for other in range({warps}):",
            "    here = load_shared_i64(counts, other)",
            "    listed = listed + here",
            "    before = before + select(other < warp, here, 0)",
            "if mine:",
            "    store_shared_i64(turns, before, turn)",
            "    store_shared_i64(wheres, before, at)",
            "cuda.syncthreads()",
        ]
        fall = [
            "turn = load_shared_i64(turns, k)",
            "at = load_shared_i64(wheres, k)",
            *self.indices(self.meeting, "turn", "m"),
            "one = cuda.threadIdx.x",
            f"while one < {table.size(self.size(alike))}:",
            *indent([*self.indices(alike, "one", "l"), *self.update(), f"one = one + {threads}"]),
        ]
        number = "cuda.blockIdx.x"
        head = []
        if points != 1:
            head = [f"point = quotient({number}, {ranges})", *self.indices(apart, "point", "o")]
            number = f"({number} - point * {ranges})"
        lines = [
            *head,
            f"low = {number} * {each}",
            f"high = low + {each}",
            "lane = cuda.threadIdx.x & 31",
            "warp = cuda.threadIdx.x >> 5",
            "counts = shared_memory()",
            f"turns = counts + {8 * warps}",
            f"wheres = turns + {8 * threads}",
            f"for first in range(0, {count}, {threads}):",
            *indent([*look, *loop("k", "0", "listed", fall), "cuda.syncthreads()"]),
        ]
        return lines, points * ranges, 8 * warps + 16 * threads
