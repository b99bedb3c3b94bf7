"""Lowering a contraction to tensor cores: how operands lie, which tile it gets, and the kernel around the main loop.

Of each operand one stride is 1 as a rule: that along k, or that along rows (columns), so that a chunk of 16 bytes is a
stretch of memory. Both kinds run the same loop; only the way from shared memory to fragments differs. Where a stride is
symbolic, memory may or may not be aligned: then there are two kernels, and one of them has no tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from engine import dtypes
from engine.dims import Expr, Size, ceil_div, product
from engine.program import Call, Kernel, Lowered, Pointer, joined
from engine.schedule import Contraction, KernelSpec
from runtime.choices import pick
from runtime.cuda.contraction_hopper import hopper_kernel, hopper_way, readable
from runtime.cuda.contraction_plain import lower_plain_contraction
from runtime.cuda.contraction_skinny import is_skinny, skinny_kernel
from runtime.cuda.contraction_split import PIECES, pieces, split
from runtime.cuda.copies import MatrixLoader, copy_width
from runtime.cuda.emit import kernel
from runtime.cuda.epilogue import body_lines, enter_rows, stage_lines, staged_bytes, staged_value, warp_region
from runtime.cuda.mainloop import MODULES, MainLoop, place_threads, place_tile, place_warps
from runtime.cuda.operands import FEW, Operand, nonzero, operands, simplified, touched
from runtime.cuda.products import Products, product_kind
from runtime.cuda.tiles import CHUNK, SharedTile, Tile, by_wgmma, tuned_tile
from runtime.emit import ArgTable, BodyEmitter, times, total
from runtime.tasks import coordinates, typical

WORTH_TWO_KERNELS = 1 << 18
"""Elements of b from which on rows of a symbolic number get a kernel for the case that they are few."""


def lower_contraction(spec: KernelSpec, lower: Callable[[KernelSpec], Lowered], architecture: str) -> Lowered:
    """The calls for ``spec``, whose core is a Contraction. ``lower`` lowers a kernel that adds up what others left."""
    core = spec.core
    assert isinstance(core, Contraction)
    if core.a.dtype != core.b.dtype or core.a.dtype not in (dtypes.f16, dtypes.bf16, dtypes.f32):
        return lower_plain_contraction(spec, core)
    spec = simplified(spec)
    rows, columns = spec.axes[-2:]
    if not is_skinny(spec):
        return _lower_many(spec, 1, lower, architecture)
    if isinstance(rows, int):
        return _alone(*skinny_kernel(spec)) if rows <= FEW else _lower_many(spec, 1, lower, architecture)
    if typical(columns) * typical(core.k) < WORTH_TWO_KERNELS:
        return _lower_many(spec, 1, lower, architecture)
    more = nonzero(rows // (FEW + 1))
    return joined([_alone(*skinny_kernel(spec, 1 - more)), _lower_many(spec, more, lower, architecture)])


def _lower_many(spec: KernelSpec, share: Size, lower: Callable[[KernelSpec], Lowered], architecture: str) -> Lowered:
    """The calls for ``spec``, whose rows may be many; their tasks are multiplied by ``share``."""
    way = hopper_way(spec, share == 1) if architecture == "sm_90a" else None
    if way is not None and by_wgmma():
        tile, count = way
        before, spec = readable(spec, lower)
        if count == 1:
            return joined([before, _alone(*hopper_kernel(spec, tile, share))])

        def piecewise(first: KernelSpec, piece: Size) -> Lowered:
            return _alone(*hopper_kernel(first, tile, split=piece))

        return joined([before, _lower_split(spec, count, piecewise, lower)])
    count = _pieces(spec) if share == 1 else 1
    return lower_tiled(spec, share=share) if count == 1 else _lower_split(spec, count, lower_tiled, lower)


def _pieces(spec: KernelSpec) -> int:
    """In how many pieces k is cut: as many as are expected to be soonest, or half or twice as many."""
    count = pieces(spec)
    near = (n for n in (count // 2, 2 * count) if n in PIECES)
    return pick("pieces of k", {str(n): n for n in (count, *near)})


def _lower_split(spec: KernelSpec, count: int, multiply: Callable[[KernelSpec, Size], Lowered],
                 lower: Callable[[KernelSpec], Lowered]) -> Lowered:  # fmt: skip
    first, piece, second, between = split(spec, count)
    return joined([Lowered((), (), (between,)), multiply(first, piece), lower(second)])


def _alone(call: Call, kernel: Kernel) -> Lowered:
    return Lowered((call,), (kernel,))


# --- aligned or not ------------------------------------------------------------------------------------------


def lower_tiled(spec: KernelSpec, split: Size | None = None, share: Size = 1) -> Lowered:
    """``spec`` on tensor cores, its tasks times ``share``. With ``split`` the first batch axis counts pieces of k, so
    long."""
    core = spec.core
    assert isinstance(core, Contraction)
    size = core.a.dtype.itemsize
    sides = operands(core)
    known = [copy_width(side.steps, size) if side.gap == 1 else 4 * (size == 4) for side in sides]
    symbolic = [s for side in sides for s in side.steps if isinstance(s, Expr) and side.gap == 1]
    hoped = [
        copy_width([s for s in side.steps if not isinstance(s, Expr)], size) if side.gap == 1 else width
        for side, width in zip(sides, known, strict=True)
    ]
    if hoped == known:
        return _alone(*tiled_kernel(spec, known, share, split))
    unaligned = nonzero(sum((s % (CHUNK // size) for s in symbolic), 0))
    ways = ((hoped, share * (1 - unaligned)), (known, share * unaligned))
    return joined([_alone(*tiled_kernel(spec, widths, part, split)) for widths, part in ways])


# --- the kernel ----------------------------------------------------------------------------------------------


def tiled_kernel(spec: KernelSpec, widths: Sequence[int], share: Size = 1, split: Size | None = None,
                 tile: Tile | None = None) -> tuple[Call, Kernel]:  # fmt: skip
    """The call that multiplies and runs the body, its tasks times ``share``. ``widths`` are those of the operands'
    copies; left out, ``tile`` is chosen."""
    core = spec.core
    assert isinstance(core, Contraction)
    dtype, size = core.a.dtype, core.a.dtype.itemsize
    kind = product_kind(dtype, spec.products)
    m, n = spec.axes[-2:]
    tile = tile or tuned_tile(size, product(spec.axes[:-2]), m, n)
    table = ArgTable()
    batch = {f"batch{i}": extent for i, extent in enumerate(spec.axes[:-2])}
    m_blocks, n_blocks = ceil_div(m, tile.rows), ceil_div(n, tile.columns)
    table.declare(m=m, n=n, k=core.k, m_blocks=m_blocks, n_blocks=n_blocks)
    lines = [*place_threads(), *coordinates(table, "block", {**batch, "tile": m_blocks * n_blocks})]
    lines += [
        *place_tile(tile.rows, tile.columns),
        "k_end = k",
        *place_warps(tile),
    ]
    if split is not None:
        table.declare(k_piece=split)
        lines += ["k_end = min(k_piece, k - batch0 * k_piece)"]
    lines += [f"k_tiles = (k_end + {tile.depth - 1}) // {tile.depth}"]
    loaders = []
    for name, side, width, extent, first, limit in zip(
        "ab", operands(core), widths, (tile.rows, tile.columns), ("tile_row", "tile_column"), "mn", strict=True
    ):
        shared = tile.side(extent, size, side.along_k)
        lines += _operand(table, name, side, shared, batch, first)
        gap = "1" if side.gap == 1 else f"{name}_k"
        loaders.append(MatrixLoader(name, shared, tile.threads, first, limit, "k_end", width, gap))
    products = Products(kind, *tile.fragments)
    main = MainLoop(tile, loaders[0], loaders[1], products)
    emitter = BodyEmitter(
        spec.body, spec.reads, spec.writes, len(spec.axes), table, core={0: staged_value(tile.warp_columns)}
    )
    before, by_row = enter_rows(emitter, batch)
    lines += [*main.lines(), *stage_lines(tile, products), *before]
    lines += body_lines(warp_region(tile, "m", "n"), spec, emitter, by_row)
    shared_bytes = max(main.shared, staged_bytes(tile))
    code = kernel(f"contract_{dtype}", lines, table, tile.threads, shared_bytes, modules=MODULES)
    reads, writes = touched(spec)
    tasks = product(batch.values()) * m_blocks * n_blocks * share
    return Call(code.key, spec.name, table.args, tasks, reads, writes, 0, spec.nodes), code


def _operand(table: ArgTable, name: str, side: Operand, shared: SharedTile, batch: Mapping[str, Size],
             first: str) -> list[str]:  # fmt: skip
    """Lines that set what a MatrixLoader needs in scope."""
    table.declare(**{f"{name}_memory": Pointer(side.access.buffer, side.access.offset * shared.itemsize)})
    moving = {b: stride for b, stride in zip(batch, side.batch, strict=True) if stride != 0}
    table.declare(**{f"{name}_{b}": stride for b, stride in moving.items()})
    if shared.along_k:
        table.declare(**{f"{name}_stride": side.stride})
    if not shared.along_k or side.gap != 1:
        table.declare(**{f"{name}_k": side.k_stride})
    row = times(first, f"{name}_stride") if shared.along_k else first
    return [f"{name}_base = {name}_memory + ({total(*(f'{b} * {name}_{b}' for b in moving), row)}) * {shared.itemsize}"]
