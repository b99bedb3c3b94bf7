"""What runs along an axis: cumulative sums and products as linear recurrences, and greatest and least so far.

Many lines have a thread each, neighbours side by side where memory lies so. Few have a block each, whose threads take
neighbouring elements: what comes before joins what comes after, over lanes, then over warps, then from one stretch of
the line to the next. That a product of factors is taken before it meets a term rounds otherwise than one step after the
other does, as in any parallel scan.
"""

from __future__ import annotations

from engine import dims, dtypes
from engine.dims import Size
from engine.dtypes import DType
from engine.memory import round_up
from engine.program import Lowered
from engine.records import dataclass
from engine.schedule import KernelSpec, RunningExtremum, Scan
from runtime.cuda.emit import kernel
from runtime.cuda.shuffles import SHUFFLES, shuffled
from runtime.element import Element
from runtime.emit import ArgTable, call, cast, constant, indent, loop, vocabulary
from runtime.tasks import outer_indices, typical

_MANY_LINES = 2048
_THREADS = 128


@dataclass(frozen=True)
class _State:
    """What a scan carries along a line: ``names`` with their dtypes, how it is loaded at an element, how what came
    before (the names with ``before_``) joins it, and what is stored."""

    names: dict[str, DType]
    load: list[str]
    join: list[str]
    store: list[str]


def lower_scan(spec: KernelSpec, core: Scan | RunningExtremum) -> Lowered:
    """One call: each line is walked by a thread, or by a block."""
    table = ArgTable()
    axis = core.axis
    reverse = isinstance(core, Scan) and core.reverse
    state = _recurrence(spec, table) if isinstance(core, Scan) else _running(spec, core, table)
    guide = spec.writes[0].strides
    kept = sorted((i for i in range(len(spec.axes)) if i != axis), key=lambda i: guide[i] == 1)
    lines = dims.product(spec.axes[i] for i in kept)
    split, names = outer_indices(table, tuple(spec.axes[i] for i in kept), "line", "k")
    split += [f"i{i} = {name}" for i, name in zip(kept, names, strict=True)]
    length = table.size(spec.axes[axis])
    at = f"i{axis} = {length} - 1 - n" if reverse else f"i{axis} = n"
    if typical(lines) >= _MANY_LINES:
        walk = [
            at,
            *state.load,
            "if n > 0:",
            *indent(state.join),
            *state.store,
            *(f"before_{name} = {name}" for name in state.names),
        ]
        source = [
            f"line = cuda.blockIdx.x * {_THREADS} + cuda.threadIdx.x",
            f"if line < {table.size(lines)}:",
            *indent([*split, *_nothing(state, "before_"), *loop("n", "0", length, walk)]),
        ]
        tasks: Size = dims.ceil_div(lines, _THREADS)
        shared = 0
    else:
        body, shared = _by_block(state, length, at)
        source, tasks = ["line = cuda.blockIdx.x", *split, *body], lines
    modules = {"runtime.cuda.ptx": ["shared_memory", *SHUFFLES]}
    code = kernel(spec.name, source, table, _THREADS, shared, modules=modules)
    return Lowered((call(spec, code, table, tasks),), (code,))


def _nothing(state: _State, prefix: str = "") -> list[str]:
    """Lines that give the names values of their types, which nobody looks at."""
    return [f"{prefix}{name} = {constant(0, dtype)}" for name, dtype in state.names.items()]


def _by_block(state: _State, length: str, at: str) -> tuple[list[str], int]:
    """Lines in which a block walks a line, and the shared memory that they take."""
    warps = _THREADS // 32
    ends, carried, size = {}, {}, 0
    for name, dtype in state.names.items():
        ends[name], carried[name] = size, size + warps * dtype.itemsize
        size += round_up((warps + 1) * dtype.itemsize)

    def stored(place: int, index: str, name: str, dtype: DType) -> str:
        return f"store_shared_{dtype}(shared + {place}, {index}, {name})"

    def loaded(place: int, index: str, dtype: DType) -> str:
        return f"load_shared_{dtype}(shared + {place}, {index})"

    across: list[str] = []
    for distance in (1, 2, 4, 8, 16):
        across += [f"before_{n} = {shuffled('up', d, n, distance)}" for n, d in state.names.items()]
        across += [f"if lane >= {distance}:", *indent(state.join)]
    before = [
        *(f"own_{n} = {n}" for n in state.names),
        *_nothing(state, "before_"),
        f"for other in range({warps}):",
        *indent([
            "if other < warp:",
            *indent([
                *(f"{n} = {loaded(ends[n], 'other', d)}" for n, d in state.names.items()),
                "if other > 0:",
                *indent(state.join),
                *(f"before_{n} = {n}" for n in state.names),
            ]),
        ]),
        *(f"{n} = own_{n}" for n in state.names),
        "if warp > 0:",
        *indent(state.join),
    ]  # fmt: skip
    carry = [
        "if first > 0:",
        *indent([*(f"before_{n} = carried_{n}" for n in state.names), *state.join]),
        "if n < length:",
        *indent(state.store),
        f"if cuda.threadIdx.x == {_THREADS - 1}:",
        *indent([stored(carried[n], "0", n, d) for n, d in state.names.items()]),
        "cuda.syncthreads()",
        *(f"carried_{n} = {loaded(carried[n], '0', d)}" for n, d in state.names.items()),
    ]
    stretch = [
        "n = first + cuda.threadIdx.x",
        *_nothing(state),
        "if n < length:",
        *indent([at, *state.load]),
        *across,
        "if lane == 31:",
        *indent([stored(ends[n], "warp", n, d) for n, d in state.names.items()]),
        "cuda.syncthreads()",
        *before,
        *carry,
    ]
    lines = [
        f"length = {length}",
        "lane = cuda.threadIdx.x & 31",
        "warp = cuda.threadIdx.x >> 5",
        "shared = shared_memory()",
        *_nothing(state, "carried_"),
        f"for first in range(0, length, {_THREADS}):",
        *indent(stretch),
    ]
    return lines, size


def _recurrence(spec: KernelSpec, table: ArgTable) -> _State:
    """``term`` is h: that of all elements so far, from a beginning in which ``factor`` is multiplied with what is
    before."""
    factor, term, out = (Element(a, table) for a in (*spec.reads, *spec.writes))
    every = range(len(spec.axes))
    dtype = spec.writes[0].dtype.computed

    def of(op: str, a: str, b: str) -> str:
        return vocabulary(op, [a, b], dtype, dtype)

    return _State(
        {"factor": dtype, "term": dtype},
        [
            f"factor = {cast(factor.load(factor.at(every)), spec.reads[0].dtype, dtype)}",
            f"term = {term.load(term.at(every))}",
        ],
        [
            f"scaled = {of('mul', 'factor', 'before_term')}",
            f"term = {of('add', 'scaled', 'term')}",
            f"factor = {of('mul', 'factor', 'before_factor')}",
        ],
        [out.store(out.at(every), "term")],
    )


def _running(spec: KernelSpec, core: RunningExtremum, table: ArgTable) -> _State:
    """``best`` and its ``place``: the last of equal ones; NaN wins."""
    source, out, position = (Element(a, table) for a in (*spec.reads, *spec.writes))
    every = range(len(spec.axes))
    dtype = spec.reads[0].dtype
    better = f"(best {'>=' if core.greatest else '<='} before_best)"
    if dtype.is_float:
        better += " | (best != best)"
    return _State(
        {"best": dtype.computed, "place": dtypes.i64},
        [f"best = {source.load(source.at(every))}", f"place = i{core.axis}"],
        [
            f"better = {better}",
            "best = select(better, best, before_best)",
            "place = select(better, place, before_place)",
        ],
        [out.store(out.at(every), "best"), position.store(position.at(every), "place")],
    )
