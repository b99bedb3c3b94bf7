"""Lowering a contraction: which operand gives the rows, what is packed, how the result is cut into tasks.

The microkernel makes tiles of ``rows x columns``. Rows come from the operand that is read in place, through a table
of row addresses; columns from the other one, which is packed into panels unless its rows lie ready in memory.
A task computes one block of the result in scratch, over the whole of k, and then runs the body on it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from engine import dims, dtypes
from engine.dims import Size, ceil_div, product
from engine.program import Call, Lowered
from engine.schedule import Access, Contraction, KernelSpec
from runtime.cpu.contraction_scalar import lower_scalar_contraction
from runtime.cpu.emit import SCRATCH, ArgTable, BodyEmitter, kernel, load, loop, store, times, total
from runtime.cpu.loops import outer_indices
from runtime.cpu.packing import Axis, Packed, Panels, pack
from runtime.cpu.tiles import Tile, host_tile

TYPICAL = 64
"""What a symbolic size is taken to be where costs are weighed."""
PANEL_BYTES = 32768
"""One panel over one block of k stays in the first-level cache."""
BLOCK = (96, 4)
"""The largest block of a task: rows, panels."""
TASK_WORK = 1 << 20
"""Multiply-adds below which a task is not cut further."""
ENOUGH_TASKS = 16


@dataclass(frozen=True)
class Operand:
    """One side of the product: its strides over the batch axes, along its own axis and along k."""

    access: Access
    axis: int
    size: Size

    @property
    def batch(self) -> tuple[Size, ...]:
        return self.access.strides[:-2]

    @property
    def stride(self) -> Size:
        return self.access.strides[-2]

    @property
    def k_stride(self) -> Size:
        return self.access.strides[-1]


@dataclass(frozen=True)
class Plan:
    """``rows`` read in place, ``columns`` packed or not, blocks of ``block_rows`` x ``block_columns``."""

    rows: Operand
    columns: Operand
    packed: bool
    tile: Tile
    block_rows: int
    block_columns: int


def lower_contraction(spec: KernelSpec, constant: Collection[str] = ()) -> Lowered:
    """The calls for ``spec``, whose core is a Contraction. ``constant`` names the buffers that do not change while
    a program runs: a pack call that reads only those may be hoisted, which counts when operands are chosen."""
    core = spec.core
    assert isinstance(core, Contraction)
    if core.a.dtype != core.b.dtype or core.a.dtype not in (dtypes.f32, dtypes.f64):
        return lower_scalar_contraction(spec, core)
    return _lower_tiled(spec, core, choose(spec, core, constant))


# --- choices -----------------------------------------------------------------------------------------------


def typical(size: Size) -> int:
    """``size`` with every dim at its typical value, for weighing costs only."""
    return dims.evaluate(size, dict.fromkeys(dims.names(size), TYPICAL))


def choose(spec: KernelSpec, core: Contraction, constant: Collection[str]) -> Plan:
    """The cheaper of the two ways to hand out the operands. Equal costs keep a on the rows."""
    m, n = len(spec.axes) - 2, len(spec.axes) - 1
    b = core.b
    a_side = Operand(core.a, m, spec.axes[m])
    swapped = Access(b.buffer, b.dtype, (*b.strides[:-2], b.strides[-1], b.strides[-2]), b.offset)
    b_side = Operand(swapped, n, spec.axes[n])
    tile = host_tile(core.a.dtype)
    ways = [(a_side, b_side), (b_side, a_side)]
    rows, columns = min(ways, key=lambda way: _cost(spec, core, tile, way[0], way[1], constant))
    packed = not _readable(columns, rows, tile)
    return Plan(rows, columns, packed, tile, *_block(spec, rows, columns, core.k, tile))


def _cost(spec: KernelSpec, core: Contraction, tile: Tile, rows: Operand, columns: Operand,
          constant: Collection[str]) -> float:  # fmt: skip
    """Estimated cycles: multiply-adds with their padding, packing, and the body, slow where it walks in strides."""
    m, n, k = typical(rows.size), typical(columns.size), typical(core.k)
    batch = typical(product(spec.axes[:-2]))
    quarter = tile.rows // 2
    compute = batch * -(-m // quarter) * quarter * -(-n // tile.columns) * tile.columns * k / (2 * tile.lanes)
    packing = 0.0
    if not _readable(columns, rows, tile) and columns.access.buffer not in constant:
        packing = typical(product(s for s, st in zip(spec.axes, columns.batch, strict=False) if st != 0)) * n * k
        packing *= 0.25 if columns.stride == 1 else 0.75
    strided = sum(access.strides[columns.axis] not in (0, 1) for access in (*spec.reads, *spec.writes))
    return compute + packing + batch * m * n * (1.5 * strided + 0.25)


def _readable(columns: Operand, rows: Operand, tile: Tile) -> bool:
    """Whether panels can be read where they lie: whole vectors side by side, and no rows that fall on each other in
    the cache unless each is read only a few times."""
    if columns.stride != 1 or not isinstance(columns.size, int) or columns.size % tile.columns:
        return False
    k_bytes = columns.k_stride * columns.access.dtype.itemsize
    return typical(rows.size) <= 2 * tile.rows or not isinstance(k_bytes, int) or k_bytes % 2048 != 0


def _block(spec: KernelSpec, rows: Operand, columns: Operand, k: Size, tile: Tile) -> tuple[int, int]:
    """Rows and columns of a task's block: as large as leaves enough tasks of enough work each."""
    m, n = typical(rows.size), typical(columns.size)
    work = typical(product(spec.axes[:-2]))
    height = min(BLOCK[0], -(-m // tile.rows) * tile.rows)
    panels = min(BLOCK[1], -(-n // tile.columns))

    def tasks() -> int:
        return work * -(-m // height) * -(-n // (panels * tile.columns))

    while tasks() < ENOUGH_TASKS and height * panels * tile.columns * typical(k) > TASK_WORK:
        if panels > 1:
            panels = -(-panels // 2)
        elif height > 2 * tile.rows:
            height = -(-height // (2 * tile.rows)) * tile.rows
        else:
            break
    return max(height, tile.rows), max(panels, 1) * tile.columns


# --- the tiled kernel --------------------------------------------------------------------------------------


def _lower_tiled(spec: KernelSpec, core: Contraction, plan: Plan) -> Lowered:
    batch_axes = range(len(spec.axes) - 2)
    kept = [axis for axis in batch_axes if plan.columns.batch[axis] != 0] if plan.packed else list(batch_axes)
    packed: Packed | None = None
    if plan.packed:
        side = plan.columns
        panels = Panels(
            side.access.buffer, side.access.offset, side.access.dtype,
            [Axis(spec.axes[a], side.batch[a]) for a in kept], [Axis(core.k, side.k_stride)],
            Axis(side.size, side.stride), plan.tile.columns, core.a.dtype,
        )  # fmt: skip
        packed = pack(panels, f"{spec.name}.panels", spec.name, spec.nodes)
    main, code = _main_call(spec, core, plan, kept, packed)
    if packed is None:
        return Lowered((main,), (code,))
    return Lowered((packed.call, main), (packed.kernel, code), (packed.buffer,))


def heights(rows: Size | None, tile: Tile) -> list[int]:
    """Rows of the microkernels that a kernel needs for ``rows`` rows (None: any number): the tile's, and half of
    it where that may be enough for the last."""
    half = tile.rows // 2
    if isinstance(rows, int) and not 0 < rows % tile.rows <= half:
        return [tile.rows]
    return [tile.rows, half]


def row_blocks(names: Sequence[str], sizes: Sequence[int], call: str) -> list[str]:
    """Lines that run the microkernels ``names`` (of ``sizes`` rows) over ``rows`` rows; ``call`` has a ``{tile}``.
    Inside it ``r`` is the first row. A last part that fits the smaller one takes that."""
    full = call.format(tile=names[0])
    if len(names) == 1:
        return [f"for r in range(0, rows, {sizes[0]}):", f"    {full}"]
    return [
        f"for r in range(0, rows, {sizes[0]}):",
        f"    if rows - r > {sizes[1]}:",
        f"        {full}",
        "    else:",
        f"        {call.format(tile=names[1])}",
    ]


def _main_call(spec: KernelSpec, core: Contraction, plan: Plan, kept: list[int], packed: Packed | None):  # type: ignore[no-untyped-def]
    table = ArgTable()
    dtype, tile = core.a.dtype, plan.tile
    size, width = dtype.itemsize, tile.columns
    rows, columns = plan.rows, plan.columns
    unit_k = rows.k_stride == 1
    a = table.pointer(rows.access.buffer, rows.access.offset * size)
    b = table.pointer(packed.buffer.name) if packed else table.pointer(columns.access.buffer,
                                                                       columns.access.offset * size)  # fmt: skip
    m, n, k = table.size(rows.size), table.size(columns.size), table.size(core.k)
    block_rows, block_columns = table.size(plan.block_rows), table.size(plan.block_columns)
    scope = table.scope(SCRATCH)
    depth = max(PANEL_BYTES // (width * size), 1)
    tile_bytes = plan.block_rows * plan.block_columns * size

    space = (*spec.axes[:-2], ceil_div(columns.size, plan.block_columns), ceil_div(rows.size, plan.block_rows))
    split, indices = outer_indices(table, space, "task")
    *batch, n_block, m_block = indices
    a_batch = total(*(times(batch[i], table.size(rows.batch[i])) for i in range(len(batch))))
    row_stride, row_k, column_k = (table.size(s) for s in (rows.stride, rows.k_stride, columns.k_stride))
    if packed:
        number = "0"
        for axis in kept:
            number = total(times(number, table.size(spec.axes[axis])), batch[axis])
        panels = table.size(ceil_div(columns.size, width))
        first_panel = total(times(number, panels), f"quotient(n0, {width})")
        b_first, b_panel = f"{b} + ({first_panel}) * {k} * {width * size}", f"{k} * {width * size}"
        b_row = str(width * size)
    else:
        b_batch = total(*(times(batch[i], table.size(columns.batch[i])) for i in range(len(batch))), "n0")
        b_first, b_panel = f"{b} + ({b_batch}) * {size}", str(width * size)
        b_row = f"{column_k} * {size}"

    row_address = f"a_first + ({total('row', times('k0', row_k))}) * {size}"
    sizes = heights(rows.size, tile)
    names = [tile.name(dtype, height, unit_k, plan.packed) for height in sizes]
    call = (
        f"{{tile}}(1, deep, {times(row_k, str(size))}, row_table + r * 8, panel, {b_row}, "
        f"block + (r * {block_columns} + c) * {size}, {block_columns} * {size}, k0)"
    )
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, len(spec.axes), table,
                          core={0: load(dtype, "values", "j", scope)})  # fmt: skip
    lines = emitter.start()
    task = [*split]
    for axis, name in enumerate(batch):
        task += emitter.enter(axis, name)
    task += [
        f"m0 = {m_block} * {block_rows}",
        f"n0 = {n_block} * {block_columns}",
        f"rows = minimum({block_rows}, {m} - m0)",
        f"columns = minimum({block_columns}, {n} - n0)",
        f"a_first = {a} + ({total(a_batch, times('m0', row_stride))}) * {size}",
        f"b_first = {b_first}",
        "k0 = 0",
        "while True:",
        f"    deep = minimum({depth}, {k} - k0)",
        f"    for r in range(rows + {tile.rows - 1}):",
        f"        row = {times('minimum(r, rows - 1)', row_stride)}",
        f"        {store(dtypes.i64, 'row_table', 'r', row_address, scope)}",
        f"    panel = b_first + k0 * {b_row}",
        f"    for c in range(0, columns, {width}):",
        *("        " + line for line in row_blocks(names, sizes, call)),
        f"        panel += {b_panel}",
        f"    k0 += {depth}",
        f"    if k0 >= {k}:",
        "        break",
    ]
    inner = emitter_loop(emitter, rows.axis, columns.axis, block_columns, size)
    lines += ["block = scratch", f"row_table = scratch + {tile_bytes}", *loop("task", "lo", "hi", task + inner)]
    code = kernel(f"contract_{dtype}", lines, table, modules={"runtime.cpu.microkernel": names})
    scratch = tile_bytes + (plan.block_rows + tile.rows) * 8
    reads = dict.fromkeys([rows.access.buffer, packed.buffer.name if packed else columns.access.buffer,
                           *(access.buffer for access in spec.reads)])  # fmt: skip
    writes = dict.fromkeys(access.buffer for access in spec.writes)
    made = Call(code.key, spec.name, table.args, product(space), tuple(reads), tuple(writes), scratch, spec.nodes)
    return made, code


def emitter_loop(emitter: BodyEmitter, row_axis: int, column_axis: int, row_length: str, size: int) -> list[str]:
    """The body on the finished block: rows ``m0 + r``, columns ``n0 + j``; ``values`` is a row of the block."""
    outside = emitter.enter(row_axis, "i")
    inside = emitter.enter(column_axis, "n0 + j", inline=True)
    return loop("r", "0", "rows", [
        "i = m0 + r",
        f"values = block + r * {row_length} * {size}",
        *outside,
        *loop("j", "0", "columns", inside),
    ])  # fmt: skip
