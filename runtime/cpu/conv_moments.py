"""Mean and variance of a convolution's channels, taken of every block of results while it is near.

Of a block the mean comes first, then the squares of what it leaves, so nothing cancels. The blocks of a task are joined
by what Chan, Golub and LeVeque ("Updating formulae and a pairwise algorithm for computing sample variances", 1979) give
for two sets: of ``m`` and ``n`` elements, whose means lie ``gap`` apart, the squares are those of both and
``gap * gap * m * n / (m + n)``. A task leaves a row: a mean and a sum of squares for each channel, and their number.
Tasks do not depend on threads. A reduction by columns joins the rows, and computes what follows for each channel.
"""

from __future__ import annotations

from dataclasses import replace

from engine import dims, dtypes
from engine.bodies import compact
from engine.buffers import Buffer
from engine.dims import Size
from engine.dtypes import DType
from engine.program import Lowered, Pointer, joined
from engine.schedule import Access, Conv2d, KernelSpec, Stmt
from runtime.cpu.reduce import lower_reduction
from runtime.emit import SCRATCH, ArgTable, computed_type, constant, indent, load, loop, store

_AT_ONCE = 4
"""Points that are added to one another before they reach the sum in memory."""
_POINTS = 3
"""The axes over which the moments are taken; the channels follow."""


def pointwise(spec: KernelSpec) -> KernelSpec:
    """``spec`` as far as it does something at each point."""
    return _storing(spec, of_points=True) if spec.reduced else spec


class Moments:
    """Lines of a kernel that take the moments of ``spec``'s convolution, whose blocks have up to ``channels`` columns.
    The kernel has set ``columns``, their number, and ``channel0``, the first of them, out of ``outputs``."""

    def __init__(self, spec: KernelSpec, dtype: DType, channels: int, table: ArgTable):
        self.dtype = dtype
        self.names = (_buffer_name(spec),)
        self.parts = dict.fromkeys(("means", "squares", "centers", "sums"), channels * dtype.itemsize)
        self._scopes = {name: table.scope(f"{SCRATCH}.{name}") for name in self.parts}
        self._block = table.scope(SCRATCH)
        self._row = table.scope(self.names[0])
        table.declare(moments=Pointer(self.names[0]), moments_row=_row_elements(spec))

    @property
    def start(self) -> list[str]:
        """Lines before the first block of a task."""
        return [f"seen = {constant(0, self.dtype)}", *self._clear("means", "squares")]

    def block(self, block: str, points: str) -> list[str]:
        """Lines that take in ``points`` rows of ``block``, ``block_channels`` elements apart."""
        joined_lines = [
            f"gap = {self._read('centers')} - {self._read('means')}",
            self._write("means", f"{self._read('means')} + gap * share"),
            self._write("squares", f"{self._read('squares')} + ({self._read('sums')} + gap * gap * both)"),
        ]
        return [
            f"count = {computed_type(self.dtype)}({points})",
            *self._clear("centers", "sums"),
            *self._added("centers", block, points, "{}"),
            *self._columns([self._write("centers", f"{self._read('centers')} / count")]),
            *self._added("sums", block, points, "({0} - center) * ({0} - center)", f"center = {self._read('centers')}"),
            "share = count / (seen + count)",
            "both = seen * share",
            *self._columns(joined_lines),
            "seen += count",
        ]

    def finish(self, row: str) -> list[str]:
        """Lines behind the last block, which leave what was found in the row of this number."""
        size = self.dtype.itemsize
        return [
            f"place = moments + ({row}) * moments_row * {size}",
            *self._columns([
                store(self.dtype, "place", "channel0 + j", self._read("means"), self._row),
                store(self.dtype, "place", "outputs + channel0 + j", self._read("squares"), self._row),
            ]),
            "if channel0 == 0:",
            *indent([store(self.dtype, "place", "2 * outputs", "seen", self._row)]),
        ]  # fmt: skip

    def _added(self, name: str, block: str, points: str, term: str, *before: str) -> list[str]:
        """Lines that add up ``term`` of all values of the block."""
        size = self.dtype.itemsize

        def rows(count: int) -> list[str]:
            terms = [f"value{k}" for k in range(count)]
            loads = [
                f"{t} = {load(self.dtype, 'values', 'j' if k == 0 else f'j + {k} * block_channels', self._block)}"
                for k, t in enumerate(terms)
            ]
            sums = [term.format(t) for t in terms]
            while len(sums) > 1:
                sums = [f"({a} + {b})" for a, b in zip(sums[::2], sums[1::2], strict=True)]
            return [
                f"values = {block} + r * block_channels * {size}",
                *self._columns([*before, *loads, self._write(name, f"{self._read(name)} + {sums[0]}")]),
            ]

        return [
            f"whole = ({points}) & {-_AT_ONCE}",
            f"for r in range(0, whole, {_AT_ONCE}):",
            *indent(rows(_AT_ONCE)),
            *loop("r", "whole", points, rows(1)),
        ]

    def _columns(self, lines: list[str]) -> list[str]:
        return loop("j", "0", "columns", lines)

    def _clear(self, *names: str) -> list[str]:
        return self._columns([self._write(name, constant(0, self.dtype)) for name in names])

    def _read(self, name: str) -> str:
        return load(self.dtype, name, "j", self._scopes[name])

    def _write(self, name: str, value: str) -> str:
        return store(self.dtype, name, "j", value, self._scopes[name])


def with_moments(spec: KernelSpec, lowered: Lowered, rows: Size) -> Lowered:
    """``lowered``, and the call that joins the ``rows`` its tasks leave, where ``spec`` wants moments."""
    if not spec.reduced:
        return lowered
    dtype = _values(spec)[0].dtype
    buffer = Buffer(_buffer_name(spec), "temp", dtype, rows * _row_elements(spec))
    return joined([replace(lowered, buffers=(*lowered.buffers, buffer)), lower_reduction(_joining(spec, rows))])


def _values(spec: KernelSpec) -> list[Stmt]:
    return [s for s in spec.body if s.op in ("reduce_mean", "reduce_variance")]


def _outputs(spec: KernelSpec) -> int:
    assert isinstance(spec.core, Conv2d)
    return spec.core.out_channels


def _row_elements(spec: KernelSpec) -> int:
    return 2 * _outputs(spec) + 1


def _buffer_name(spec: KernelSpec) -> str:
    return f"{spec.name}.moments"


def _joining(spec: KernelSpec, rows: Size) -> KernelSpec:
    """The kernel that makes the moments of ``rows``, and all that ``spec`` does for each channel."""
    kept = _storing(spec, of_points=False)
    outputs, width = _outputs(spec), _row_elements(spec)
    dtype = _values(spec)[0].dtype
    of_channels = (width, 1)
    left = [Access(_buffer_name(spec), dtype, *place) for place in (
        (of_channels, 0), (of_channels, outputs), ((width, 0), 2 * outputs))]  # fmt: skip
    first = len(kept.reads)
    body = [
        *(Stmt(name, "load", (first + i,), dtype) for i, name in enumerate(("means", "squares", "counts"))),
        Stmt("points", "size", (), dtypes.i64, (dims.product(spec.axes[:_POINTS]),)),
        Stmt("count", "cast", ("points",), dtype),
        Stmt("weighted", "mul", ("means", "counts"), dtype),
        Stmt("total", "reduce_sum", ("weighted",), dtype),
        Stmt("mean", "div", ("total", "count"), dtype),
        Stmt("gap", "sub", ("means", "mean"), dtype),
        Stmt("distance", "square", ("gap",), dtype),
        Stmt("between", "mul", ("distance", "counts"), dtype),
        Stmt("both", "add", ("squares", "between"), dtype),
        Stmt("spread", "reduce_sum", ("both",), dtype),
        Stmt("variance", "div", ("spread", "count"), dtype),
    ]
    found = {s.name: s.op.removeprefix("reduce_") for s in _values(kept)}
    for s in kept.body:
        if s.name not in found and s.op != "core":
            args = tuple(found.get(a, a) if isinstance(a, str) else a for a in s.args)
            sizes = (0, *s.sizes[_POINTS:]) if s.op == "index" else s.sizes
            body.append(replace(s, args=args, sizes=sizes))

    def flat(access: Access) -> Access:
        return replace(access, strides=(0, *access.strides[_POINTS:]))

    return compact(replace(
        kept, name=f"{spec.name} moments", axes=(rows, spec.axes[_POINTS]), reads=(*map(flat, kept.reads), *left),
        writes=tuple(map(flat, kept.writes)), body=tuple(body), core=None, reduced=(0,),
    ))  # fmt: skip


def _storing(spec: KernelSpec, of_points: bool) -> KernelSpec:
    """``spec`` with those stores only that differ from point to point, or do not."""
    writes = [i for i, w in enumerate(spec.writes) if any(s != 0 for s in w.strides[:_POINTS]) == of_points]
    body = tuple(s for s in spec.body if s.op != "store" or s.args[0] in writes)
    return compact(replace(spec, body=body, reduced=() if of_points else spec.reduced))
