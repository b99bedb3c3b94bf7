"""Long sums of few results: k is cut in pieces, so that all processors have work, and a second kernel adds them up.

The first kernel's pieces are a batch axis of its own, and its sums go to memory in float32. The second one reduces
them along that axis, in order, and runs the body: a kernel like any other that reduces columns. How many pieces there
are follows from sizes as they are expected, so a sum does not depend on the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from engine import dtypes
from engine.buffers import Buffer
from engine.dims import Expr, Size, ceil_div, product
from engine.dtypes import DType
from engine.schedule import Access, Contraction, KernelSpec, Stmt
from runtime.cuda.copies import copy_width
from runtime.cuda.operands import Operand, operands
from runtime.cuda.tiles import CHUNK, PROCESSORS, choose_tile, work
from runtime.tasks import typical

PIECES = (1, 2, 4, 8, 16, 32)
ALIGNMENT = 64
"""Elements of k that pieces are multiples of: whole stages."""
SPEED = {2: 600, 4: 100}
"""Products of a processor in a cycle, by the size of operands."""
TURN = 300
"""Cycles that a stage takes at least: it has to be waited for."""
BANDWIDTH = 15 * PROCESSORS
"""Bytes of memory in a cycle."""
LAUNCH = 5000
"""Cycles that another kernel takes, with nothing to do."""
NARROW = 2.0
"""How much longer mma.sync takes where operands are copied by less than 16 bytes at a time."""


def soonest(spec: KernelSpec, work: Callable[[Size], tuple[float, int]], may_split: bool = True) -> tuple[float, int]:
    """The cycles that multiplying ``spec`` is expected to take, and in how many pieces of k it is soonest so. ``work``
    says what a processor does for each element of k with so many results of m by n, in products at the speed of
    mma.sync's largest tile, and how many elements of k a stage has."""
    core = spec.core
    assert isinstance(core, Contraction)
    m, n = spec.axes[-2:]
    batch, k, size = product(spec.axes[:-2]), typical(core.k), core.a.dtype.itemsize
    results = typical(batch) * typical(m) * typical(n)

    def cycles(count: int) -> float:
        each, stage = work(batch * count)
        depth = -(-k // count)
        found = max(each * depth / SPEED[size], depth / stage * TURN)
        return found if count == 1 else found + LAUNCH + count * results * 8 / BANDWIDTH

    return min((cycles(count), count) for count in (PIECES if may_split else PIECES[:1]))


def soonest_by_mma(spec: KernelSpec, may_split: bool = True) -> tuple[float, int]:
    """The same by mma.sync, with the tiles that :func:`choose_tile` takes."""
    core = spec.core
    assert isinstance(core, Contraction)
    (m, n), size = spec.axes[-2:], core.a.dtype.itemsize
    slow = NARROW if any(_is_narrow(side) for side in operands(core)) else 1.0
    return soonest(spec, lambda b: (slow * work(size, b, m, n), choose_tile(size, b, m, n).depth), may_split)


def _is_narrow(side: Operand) -> bool:
    """Whether copies of ``side`` move less than a chunk, for all that is known."""
    known = [step for step in side.steps if not isinstance(step, Expr)]
    return side.gap != 1 or copy_width(known, side.access.dtype.itemsize) < CHUNK


def copying(size: Size, itemsize: int) -> float:
    """The cycles that a copy of so many elements is expected to take, as a kernel of its own."""
    return LAUNCH + 2 * typical(size) * itemsize / BANDWIDTH


def pieces(spec: KernelSpec) -> int:
    """How many pieces of k are expected to be soonest by mma.sync."""
    return soonest_by_mma(spec)[1]


def split(spec: KernelSpec, count: int) -> tuple[KernelSpec, Size, KernelSpec, Buffer]:
    """``spec`` in ``count`` pieces: the kernel that multiplies them, the length of a piece, the kernel that adds them
    up, and the memory between the two."""
    core = spec.core
    assert isinstance(core, Contraction)
    piece = ceil_div(ceil_div(core.k, count), ALIGNMENT) * ALIGNMENT
    axes = (count, *spec.axes)
    strides: list[Size] = [1]
    for extent in reversed(axes[1:]):
        strides.insert(0, strides[0] * extent)
    sums = Access(f"{spec.name}.pieces", dtypes.f32, tuple(strides))
    first = KernelSpec(
        f"{spec.name}.pieces", axes, (), (sums,),
        (Stmt("sum", "core", (0,), dtypes.f32), Stmt("stored", "store", (0, "sum"), dtypes.f32)),
        Contraction(_along(core.a, piece * core.a.strides[-1]), _along(core.b, piece * core.b.strides[-2]), core.k),
        products=spec.products, nodes=spec.nodes, location=spec.location,
    )  # fmt: skip
    second = replace(
        spec,
        axes=axes,
        reads=(*(_along(access, 0) for access in spec.reads), sums),
        writes=tuple(_along(access, 0) for access in spec.writes),
        body=_reducing(spec.body, len(spec.reads)),
        core=None,
        reduced=(0,),
    )
    return first, piece, second, Buffer(sums.buffer, "temp", dtypes.f32, product(axes))


def _along(access: Access, stride: Size) -> Access:
    """``access`` with an axis in front."""
    return replace(access, strides=(stride, *access.strides))


def _reducing(body: tuple[Stmt, ...], read: int) -> tuple[Stmt, ...]:
    """``body`` over one axis more, with the sum of ``read`` along it as its core's value."""
    made = [
        Stmt("core.piece", "load", (read,), dtypes.f32),
        Stmt("core.sum", "reduce_sum", ("core.piece",), dtypes.f32),
    ]
    for stmt in body:
        if stmt.op == "core":
            stmt = Stmt(stmt.name, "cast", ("core.sum",), _summed(stmt.dtype))
        elif stmt.op == "index":
            stmt = replace(stmt, sizes=(0, *stmt.sizes))
        made.append(stmt)
    return tuple(made)


def _summed(dtype: DType) -> DType:
    """The dtype of a sum that nothing has rounded yet."""
    return dtype.computed
