"""Products by TMA and wgmma (runtime/cuda/hopper.py): which ones, and how TMA is told of their operands.

TMA sees an operand as an array with an axis for its rows, one for k, and one for each batch axis that moves it. What
lies outside of it arrives as zeros, so nothing but the body looks at edges. An operand that lies otherwise is copied
first, where the product is worth it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engine.buffers import Buffer
from engine.dims import Size, ceil_div, product
from engine.program import BoxMap, Call, Kernel, Lowered, Pointer, joined
from engine.schedule import Contraction, KernelSpec
from runtime.cuda.contraction_split import copying, soonest, soonest_by_mma
from runtime.cuda.copies import copy_width
from runtime.cuda.dense import Lower, dense_copy, dense_strides
from runtime.cuda.emit import kernel
from runtime.cuda.epilogue import staged_value
from runtime.cuda.hopper import (
    MODULES,
    PIECE,
    ROW_BYTES,
    ROWS,
    THREADS,
    HopperTile,
    depth_of,
    hopper_work,
    is_multiplied,
)
from runtime.cuda.hopper_single import hopper_of, tiles_of
from runtime.cuda.mainloop import place_tile
from runtime.cuda.operands import Operand, nonzero, operands, touched
from runtime.cuda.tiles import CHUNK, PROCESSORS
from runtime.emit import ArgTable, BodyEmitter
from runtime.tasks import coordinates

MOST_BATCH_AXES = 2
"""That an operand may move along: with its own two axes it has four."""


def _is_readable(side: Operand, exact: bool) -> bool:
    """Whether TMA and wgmma read ``side`` as it lies.

    TMA wants neighbours along one axis, and whole chunks of 16 bytes from one row to the next, forwards. wgmma takes
    elements of 2 bytes with k along rows or across them, tf32 with k along rows only, or as ``exact`` kernels turn it.
    """
    size = side.access.dtype.itemsize
    row = side.stride if side.along_k else side.k_stride
    return (
        side.gap == 1 and row != 0 and copy_width(side.steps, size) == CHUNK and (side.along_k or exact or size == 2)
        and not any(isinstance(step, int) and step < 0 for step in (row, *side.batch))
    )  # fmt: skip


def hopper_way(spec: KernelSpec, alone: bool = True) -> tuple[HopperTile, int] | None:
    """The tile with which wgmma is expected soonest and the number of pieces that k is cut into, or None where mma.sync
    is sooner or must do. Only a kernel that runs ``alone`` may be cut, and have operands that are copied first, as
    :func:`readable` does it."""
    core = spec.core
    assert isinstance(core, Contraction)
    sides = operands(core)
    if not is_multiplied(core.a.dtype, spec.products) or any(len(_moving(s)) > MOST_BATCH_AXES for s in sides):
        return None
    tiles = tiles_of(core.a.dtype, spec.products)
    shapes = zip(sides, _shapes(spec), strict=True)
    unread = [shape for side, shape in shapes if not _is_readable(side, tiles[0].lower)]
    if unread and not alone:
        return None
    (m, n), size = spec.axes[-2:], core.a.dtype.itemsize
    before = sum(copying(product(shape), size) for shape in unread)

    def found(tile: HopperTile) -> tuple[float, int]:
        cycles, count = soonest(spec, lambda b: (hopper_work(tile, b, m, n), depth_of(core.a.dtype)), alone)
        return before + cycles, count

    best = min(tiles, key=found)
    return (best, found(best)[1]) if found(best) < soonest_by_mma(spec, alone) else None


def _moving(side: Operand) -> list[int]:
    """The batch axes along which ``side`` moves."""
    return [axis for axis, stride in enumerate(side.batch) if stride != 0]


def _shapes(spec: KernelSpec) -> list[tuple[Size, ...]]:
    """Of each operand the sizes of the axes along which it moves, those of its rows and of k last."""
    core = spec.core
    assert isinstance(core, Contraction)
    a, b = operands(core)
    return [(*(spec.axes[i] for i in _moving(s)), n, core.k) for s, n in zip((a, b), spec.axes[-2:], strict=True)]


def readable(spec: KernelSpec, lower: Lower) -> tuple[Lowered, KernelSpec]:
    """``spec`` with operands that TMA and wgmma read, and the calls that copy those there which lie otherwise."""
    core = spec.core
    assert isinstance(core, Contraction)
    before, sides = [], []
    exact = tiles_of(core.a.dtype, spec.products)[0].lower
    for name, side, shape in zip("ab", operands(core), _shapes(spec), strict=True):
        if not _is_readable(side, exact):
            copy, buffer, side = _into_rows(spec, name, side, shape)
            before += [Lowered((), (), (buffer,)), lower(copy)]
        sides.append(side)
    a, b = sides
    core = replace(
        core, a=replace(a.access, strides=(*a.batch, a.stride, a.k_stride)),
        b=replace(b.access, strides=(*b.batch, b.k_stride, b.stride)),
    )  # fmt: skip
    return joined(before), replace(spec, core=core)


def _into_rows(
    spec: KernelSpec, name: str, side: Operand, shape: tuple[Size, ...]
) -> tuple[KernelSpec, Buffer, Operand]:
    """The kernel that copies ``side`` into rows which begin at whole chunks, the buffer for them, and the copy."""
    size, along_k = side.access.dtype.itemsize, side.along_k or side.access.dtype.itemsize == 4
    *outer, extent, k = shape
    rows, columns = (extent, k) if along_k else (k, extent)
    inner = (side.stride, side.k_stride) if along_k else (side.k_stride, side.stride)
    moving = _moving(side)
    source = replace(side.access, strides=(*(side.batch[i] for i in moving), *inner))
    pitch = ceil_div(columns, CHUNK // size) * (CHUNK // size)
    strides = (*dense_strides((*outer, rows, pitch))[:-1], 1)
    copy, buffer, made = dense_copy(spec, source, (*outer, rows, columns), side.access.dtype, name, strides,
                                    product((*outer, rows, pitch)))  # fmt: skip
    *apart, row, _ = strides
    batch = [apart[moving.index(i)] if i in moving else 0 for i in range(len(side.batch))]
    return copy, buffer, Operand(made, tuple(batch), *((row, 1) if along_k else (1, row)))


def hopper_kernel(spec: KernelSpec, tile: HopperTile, share: Size = 1, blocks: int = PROCESSORS,
                  split: Size | None = None) -> tuple[Call, Kernel]:  # fmt: skip
    """The call that multiplies and runs the body of a spec that is :func:`readable`, in ``blocks`` blocks times
    ``share``. With ``split`` the first batch axis counts pieces of k, so long."""
    core = spec.core
    assert isinstance(core, Contraction)
    dtype = core.a.dtype
    a, b = operands(core)
    m, n = spec.axes[-2:]
    hopper = hopper_of(dtype, tile, a.along_k, b.along_k)
    batch = {f"batch{i}": extent for i, extent in enumerate(spec.axes[:-2])}
    m_blocks, n_blocks = ceil_div(m, ROWS), ceil_div(n, tile.columns)
    table = ArgTable()
    fetch: list[str] = []
    for name, side, extent, first, size in (("a", a, m, "tile_row", ROWS), ("b", b, n, "tile_column", tile.columns)):
        if split is not None:
            side = replace(side, batch=(0, *side.batch[1:]))
        table.declare(**{f"{name}_map": _map(side, spec.axes[:-2], extent, core.k, size)})
        at_k = f"k_first + {hopper.depth} * k_tile"
        corner = [at_k, first] if side.along_k else [f"{first} + {hopper.depth} * box", at_k]
        corner += [axis for axis, stride in reversed([*zip(batch, side.batch, strict=True)]) if stride != 0]
        fetch += hopper.boxes(name, f"tma_load_{len(corner)}d(to, {name}_map, {', '.join(corner)}, arrived)")
    table.declare(m=m, n=n, k=core.k, m_blocks=m_blocks, n_blocks=n_blocks)
    place = [*coordinates(table, "number", {**batch, "tile": m_blocks * n_blocks}), *place_tile(ROWS, tile.columns)]
    if split is None:
        place += ["k_first = 0", "k_end = k"]
    else:
        table.declare(k_piece=split)
        place += ["k_first = batch0 * k_piece", "k_end = min(k_piece, k - k_first)"]
    place.append(f"k_tiles = (k_end + {hopper.depth - 1}) // {hopper.depth}")
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, len(spec.axes), table, core={0: staged_value(PIECE)})
    before = emitter.start()
    by_tile = [line for axis, name in enumerate(batch) for line in emitter.enter(axis, name)]
    multiplied = [*by_tile, *hopper.result(spec, emitter, "m", "n", emitter.enter(len(batch), "row"))]
    number = product(batch.values()) * m_blocks * n_blocks
    table.declare(tiles=number)
    lines = hopper.lines(place, [], fetch, multiplied, before)
    code = kernel(f"contract_hopper_{dtype}", lines, table, THREADS, tile.shared, modules=MODULES)
    reads, writes = touched(spec)
    return Call(code.key, spec.name, table.args, blocks * nonzero(number) * share, reads, writes, 0, spec.nodes), code


def _map(side: Operand, batch: Sequence[Size], extent: Size, k: Size, tile_extent: int) -> BoxMap:
    """What TMA is told of ``side``, over the axes of the ``batch`` that move it, of which a box has one place."""
    size = side.access.dtype.itemsize
    outer = [(n, stride) for n, stride in zip(batch, side.batch, strict=True) if stride != 0]
    rows, columns = (extent, k) if side.along_k else (k, extent)
    apart = side.stride if side.along_k else side.k_stride
    box = (tile_extent if side.along_k else ROW_BYTES // size, ROW_BYTES // size)
    return BoxMap(
        Pointer(side.access.buffer, side.access.offset * size), (*(n for n, _ in outer), rows, columns),
        (*(stride * size for _, stride in outer), apart * size), size, (*(1 for _ in outer), *box),
    )  # fmt: skip
