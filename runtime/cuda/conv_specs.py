"""Convolutions made ready for the GPU's kernels, as specs: a pool apart from its convolution, parts of sums.

Each of these is a rewriting from spec to spec; what they add are kernels without products, lowered as any others are.
"""

from __future__ import annotations

from dataclasses import replace

from engine.buffers import Buffer
from engine.dims import Size, product
from engine.dtypes import DType
from engine.records import dataclass
from engine.schedule import Access, Conv2d, ConvWeightGrad, KernelSpec, MaxPool2d, Stmt
from runtime.axes import all_strides, groups, regroup, reordered
from runtime.cuda.dense import dense_strides
from runtime.emit import ArgTable
from runtime.tasks import outer_indices, typical


def pool_apart(spec: KernelSpec) -> tuple[KernelSpec, KernelSpec, Buffer]:
    """``spec``, a MaxPool2d over a convolution, as the convolution with the inner body into a buffer, the pool that
    reads it, and that buffer."""
    core = spec.core
    assert isinstance(core, MaxPool2d) and core.source is not None
    value = core.inner[-1]
    axes = (spec.axes[0], *core.in_size, spec.axes[3])
    buffer = Buffer(f"{spec.name}.convolved", "temp", value.dtype, product(axes))
    between = Access(buffer.name, value.dtype, dense_strides(axes))
    convolution = replace(
        spec, name=f"{spec.name} convolution", axes=axes, writes=(between,), core=core.source,
        body=(*core.inner, Stmt("$between", "store", (0, value.name), value.dtype)),
    )  # fmt: skip
    pool = replace(
        spec, reads=(*spec.reads, between),
        core=replace(core, inner=(Stmt("$between", "load", (len(spec.reads),), value.dtype),), source=None),
    )  # fmt: skip
    return convolution, pool, buffer


def by_pixel(spec: KernelSpec, table: ArgTable) -> tuple[KernelSpec, tuple[list[str], list[str]]]:
    """``spec`` with those of the axes of pixels made one that every access walks as one; the lines that split ``row``,
    a pixel's number, into what remains of them, and the names."""
    kept = groups(spec.axes[:3], [strides[:3] for strides in all_strides(spec)]) or [(2,)]
    flat = regroup(spec, [*kept, (3,)])
    return flat, outer_indices(table, flat.axes[:-1], "row", "p")


def weights_by_output(core: Conv2d) -> tuple[Access, tuple[Size, ...]]:
    """The weights over ``(groups, outputs, kh, kw, inputs)``, taps in the order in which they meet the input, and those
    sizes."""
    outputs, inputs, h, w = core.w.strides
    offset = core.w.offset
    if core.flip:
        offset = offset + (core.kernel[0] - 1) * h + (core.kernel[1] - 1) * w
        h, w = -1 * h, -1 * w
    shape = (core.groups, core.group_outputs, *core.kernel, core.group_inputs)
    return replace(core.w, strides=(core.w_group, outputs, h, w, inputs), offset=offset), shape


PIXELS = 512
"""The least pixels that a part of a weight gradient sums up."""


def most_parts(core: ConvWeightGrad) -> int:
    """Into how many parts the pixels go at most."""
    return max(typical(core.batch * product(core.out_size)) // PIXELS, 1)


@dataclass(frozen=True)
class Partial:
    """Sums over parts of the pixels, for a weight gradient: ``chunks`` of them, ``strides`` over the kernel's axes."""

    buffer: Buffer
    chunks: int
    size: Size
    strides: tuple[Size, ...]


def partial_sums(spec: KernelSpec, dtype: DType, chunks: int, order: tuple[int, ...] = (0, 1, 2, 3, 4)) -> Partial:
    """Room for the sums of ``spec``'s core, those of a chunk dense with its axes in this ``order``."""
    dense = dense_strides(tuple(spec.axes[axis] for axis in order))
    strides = tuple(dense[order.index(axis)] for axis in range(len(order)))
    size = product(spec.axes)
    return Partial(Buffer(f"{spec.name}.partial", "temp", dtype, chunks * size), chunks, size, strides)


def sums_of_parts(spec: KernelSpec, partial: Partial, shape: tuple[Size, ...]) -> KernelSpec:
    """The kernel whose core's sums go into ``partial``, each chunk's dense over ``shape``."""
    axes, dtype = (partial.chunks, *shape), partial.buffer.dtype
    return KernelSpec(
        f"{spec.name} chunks", axes, (), (Access(partial.buffer.name, dtype, dense_strides(axes)),),
        (Stmt("sum", "core", (0,), dtype), Stmt("stored", "store", (0, "sum"), dtype)),
        nodes=spec.nodes, products=spec.products, location=spec.location,
    )  # fmt: skip


def total_of(spec: KernelSpec, partial: Partial) -> KernelSpec:
    """The kernel that adds up the chunks in order and runs the body on the total, along memory as its first write
    lies."""
    outer = partial.chunks > 1
    body: list[Stmt] = []
    for stmt in spec.body:
        body += _from_partial(stmt, len(spec.reads), partial.buffer.dtype, outer) if stmt.op == "core" else [stmt]
    flat = replace(
        spec, core=None, body=tuple(body),
        reads=(*spec.reads, Access(partial.buffer.name, partial.buffer.dtype, partial.strides)),
    )  # fmt: skip
    along = spec.writes[0].strides if spec.writes else partial.strides
    order = tuple(sorted(range(len(spec.axes)), key=lambda axis: -typical(along[axis])))
    flat = reordered(flat, order)
    if not outer:
        return flat
    summed = flat.reads[-1]
    return replace(
        flat, axes=(partial.chunks, *flat.axes), reduced=(0,),
        reads=(*(_unmoved(a) for a in flat.reads[:-1]), replace(summed, strides=(partial.size, *summed.strides))),
        writes=tuple(_unmoved(a) for a in flat.writes),
        body=tuple(replace(s, sizes=(0, *s.sizes)) if s.op == "index" else s for s in flat.body),
    )  # fmt: skip


def _unmoved(access: Access) -> Access:
    return replace(access, strides=(0, *access.strides))


def _from_partial(stmt: Stmt, read: int, dtype: DType, reduced: bool) -> list[Stmt]:
    """``stmt``, which names the core, as the sum of what ``read`` gives."""
    lines = [Stmt("$partial", "load", (read,), dtype)]
    if reduced:
        lines.append(Stmt("$total", "reduce_sum", ("$partial",), dtype))
    return [*lines, Stmt(stmt.name, "cast", (lines[-1].name,), stmt.dtype)]
