"""Lowering a contraction: which operand gives the rows, what is packed, how the result is cut into tasks.

The microkernel makes tiles of ``rows x columns``. Rows come from the operand that is read in place, through a table
of row addresses; columns from the other one, which is packed into panels unless its rows lie ready in memory.
A task computes one block of the result in scratch, over the whole of k, and then runs the body on it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import product as pairs

from engine import dtypes
from engine.dims import Size, ceil_div, product
from engine.program import Call, Kernel, Lowered, Pointer
from engine.records import dataclass
from engine.schedule import Access, Contraction, KernelSpec
from runtime.choices import pick
from runtime.cpu.contraction_scalar import lower_scalar_contraction
from runtime.cpu.emit import kernel
from runtime.cpu.packing import Axis, Packed, Panels, pack, panel_lines
from runtime.cpu.scratch import scratch_lines, scratch_parts
from runtime.cpu.tiles import LINE, Tile, host_tile, multiplies_halves
from runtime.emit import SCRATCH, ArgTable, BodyEmitter, indent, load, loop, note, times, total
from runtime.tasks import coordinates, typical

PANEL_BYTES = 32768
"""One panel over one block of k stays in the first-level cache."""
SECOND_CACHE = 1 << 19
"""Bytes of panels that may be read again for every block of rows: they share the second-level cache with these."""
BLOCK = (96, 4)
"""The largest block of a task: rows, panels."""
NEAR_ROWS = 128
"""So few rows are one task's, which then packs the panels that it meets itself, near and for nobody else."""
NEAR_COST = 0.1
"""What packing near takes, of what it takes by itself: nothing is written far away and read again."""
SHORT = 128
"""Up to so many products in a sum, its result is worth as much thought as the sum."""
STRIP = 24
"""Rows that are computed before the body runs on them where k is short: few, so that its stores drain while the next
are multiplied."""
BY_TILE = 16
"""From so many products in a sum on the body runs on every tile as soon as it is multiplied, where it only writes."""
TASK_OVERHEAD = 400
"""What a task costs besides its products and its body, in vector multiply-adds."""
THREADS = (2, 8)
"""The numbers of threads that tasks should suit."""
FEW_TASKS = 32
"""So few tasks are counted one by one: what a thread is left with matters."""
ENOUGH_TASKS = 16
LEAST_LANES = 4
"""The shortest vectors."""
_LEAST, _TYPICAL = 1, 64
"""The values of dims for which blocks are chosen."""


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
    """``rows`` read in place, ``columns`` packed or not, blocks of ``block_rows`` x ``block_columns``. Where panels are
    ``near`` every task packs its own."""

    rows: Operand
    columns: Operand
    packed: bool
    tile: Tile
    block_rows: int
    block_columns: int
    near: bool = False


def lower_contraction(spec: KernelSpec, constant: Collection[str] = ()) -> Lowered:
    """The calls for ``spec``, whose core is a Contraction. ``constant`` names the buffers that do not change while
    a program runs: a pack call that reads only those may be hoisted, which counts when operands are chosen."""
    core = spec.core
    assert isinstance(core, Contraction)
    if core.a.dtype != core.b.dtype or core.a.dtype not in (dtypes.f32, dtypes.f64):
        return lower_scalar_contraction(spec, core)
    return _lower_tiled(spec, core, choose(spec, core, constant))


# --- choices -----------------------------------------------------------------------------------------------


def choose(spec: KernelSpec, core: Contraction, constant: Collection[str]) -> Plan:
    """The cheaper of the two ways to hand out the operands. Equal costs keep a on the rows."""
    m, n = len(spec.axes) - 2, len(spec.axes) - 1
    b = core.b
    a_side = Operand(core.a, m, spec.axes[m])
    swapped = Access(b.buffer, b.dtype, (*b.strides[:-2], b.strides[-1], b.strides[-2]), b.offset)
    b_side = Operand(swapped, n, spec.axes[n])
    tile = host_tile(core.a.dtype)
    ways = [(a_side, b_side), (b_side, a_side)]
    ways.sort(key=lambda way: _cost(spec, core, tile, way[0], way[1], constant))
    rows, columns = pick("rows from", {"a" if way[0] is a_side else "b": way for way in ways})
    tile = fitting(tile, columns.size)
    packed = not _readable(columns, rows, tile)
    if not packed and rows.size == 1 and columns.size % tile.flat.columns == 0:
        tile = tile.flat
    near = packed and _met_once(spec, rows, columns) and columns.access.buffer not in constant
    return Plan(rows, columns, packed, tile, *_block(spec, rows, columns, core.k, tile, near), near)


def _met_once(spec: KernelSpec, rows: Operand, columns: Operand) -> bool:
    """Whether every panel is met by few rows, and by one element of the batch."""
    few = isinstance(rows.size, int) and 0 < rows.size <= NEAR_ROWS
    return few and all(stride != 0 or size == 1 for size, stride in zip(spec.axes, columns.batch, strict=False))


def _cost(spec: KernelSpec, core: Contraction, tile: Tile, rows: Operand, columns: Operand,
          constant: Collection[str]) -> float:  # fmt: skip
    """Estimated cycles: multiply-adds with their padding, packing, and the body, slow where it walks in strides."""
    m, n, k = typical(rows.size), typical(columns.size), typical(core.k)
    batch = typical(product(spec.axes[:-2]))
    half = tile.rows // 2
    whole = m if m == 1 else -(-m // half) * half
    width = tile.lanes if ends_narrow(columns.size, tile) else tile.columns
    compute = batch * whole * -(-n // width) * width * k / (2 * tile.lanes)
    packing = 0.0
    if not _readable(columns, rows, tile) and columns.access.buffer not in constant:
        packing = typical(product(s for s, st in zip(spec.axes, columns.batch, strict=False) if st != 0)) * n * k
        packing *= 0.25 if columns.stride == 1 else 0.75
        if _met_once(spec, rows, columns):
            packing *= NEAR_COST
    strided = sum(access.strides[columns.axis] not in (0, 1) for access in (*spec.reads, *spec.writes))
    return compute + packing + batch * m * n * (1.5 * strided + 0.25)


def _readable(columns: Operand, rows: Operand, tile: Tile) -> bool:
    """Whether panels can be read where they lie: whole vectors side by side, and no rows that fall on each other in
    the cache unless each is read only a few times."""
    if columns.stride != 1 or not isinstance(columns.size, int) or columns.size % tile.columns:
        return False
    k_bytes = columns.k_stride * columns.access.dtype.itemsize
    return typical(rows.size) <= 2 * tile.rows or not isinstance(k_bytes, int) or k_bytes % 2048 != 0


def fitting(tile: Tile, columns: Size) -> Tile:
    """``tile``, or the narrow one where all columns fit in that, of the shortest vectors that hold them: processors
    with wide ones may multiply twice as many short ones at a time. Where this one does, three short ones may do."""
    lanes = tile.lanes
    if not isinstance(columns, int) or columns > lanes:
        three = isinstance(columns, int) and tile.vectors == 2 and 2 * columns <= 3 * lanes and multiplies_halves()
        return replace(tile, vectors=3, lanes=lanes // 2) if three else tile
    while lanes > LEAST_LANES and 2 * columns <= lanes:
        lanes //= 2
    return replace(tile.narrow, lanes=lanes)


def ends_narrow(columns: Size, tile: Tile) -> bool:
    """Whether the last panel of so many columns fills one vector at most of several."""
    return tile.vectors > 1 and isinstance(columns, int) and 0 < columns % tile.columns <= tile.lanes


def _block(spec: KernelSpec, rows: Operand, columns: Operand, k: Size, tile: Tile,
           near: bool) -> tuple[int, int]:  # fmt: skip
    """Rows and columns of a task's block: those with which two threads and eight are expected to be done soonest, for
    dims that are typical and for dims of 1. Where panels are ``near`` a block has all rows."""
    cases = [
        [max(typical(size, value), 1) for size in (product(spec.axes[:-2]), rows.size, columns.size, k)]
        for value in ((_LEAST, _TYPICAL) if _symbolic(spec, k) else (_TYPICAL,))
    ]
    body = 1 + len(spec.reads) + len(spec.writes)  # the vectors that are moved for one of results
    most_rows, most_columns = max(case[1] for case in cases), max(case[2] for case in cases)

    def time(height: int, panels: int) -> float:
        found = 0.0
        for batch, m, n, depth in cases:
            across, width = -(-n // (panels * tile.columns)), min(panels * tile.columns, n)
            tasks = batch * -(-m // height) * across

            # In vector multiply-adds: the products, and reading the panels, of which an eighth of a vector comes at a
            # time from the second cache.
            def cost(high: int, wide: int, depth: int = depth) -> float:
                products = (high + tile.lanes / 8) * wide * depth / tile.lanes
                return products + high * wide * body / tile.lanes + TASK_OVERHEAD

            ideal = batch * m * n * (depth + body) / tile.lanes
            if tasks <= FEW_TASKS:
                across_rows = shared(m, height, tile.rows)
                across_columns = shared(n, panels * tile.columns, tile.columns)
                if _rows_first(columns, k):
                    costs = [cost(high, wide) for high, wide in pairs(across_rows, across_columns)]
                else:
                    costs = [cost(high, wide) for wide, high in pairs(across_columns, across_rows)]
                costs *= batch
                found += sum(max(shares(costs, threads)) * threads / ideal for threads in THREADS)
            else:
                task = cost(min(height, m), width)
                found += sum(-(-tasks // threads) * task * threads / ideal for threads in THREADS)
        return found

    whole = -(-most_rows // tile.rows)
    heights = [whole] if near else range(1, min(BLOCK[0] // tile.rows, whole) + 1)
    widths = range(1, min(BLOCK[1], -(-most_columns // tile.columns)) + 1)
    _, height, panels = min((time(h * tile.rows, p), h, p) for h in heights for p in widths)
    tried = itertools.product(_halvings(heights, height), _halvings(widths, panels))
    sizes = [(h * tile.rows, p * tile.columns) for h, p in ((height, panels), *tried)]
    return pick("block", {f"{height} x {width}": (height, width) for height, width in sizes})


def _rows_first(columns: Operand, k: Size) -> bool:
    """Whether tasks with the same rows follow one another, so that a thread has the same rows in every layer and finds
    in its own cache what it wrote; else those with the same columns do. Every block of rows reads all panels again, so
    these must fit the second-level cache."""
    panels = columns.size * k * columns.access.dtype.itemsize
    return isinstance(panels, int) and panels <= SECOND_CACHE


def shared(size: int, block: int, tile: int) -> list[int]:
    """The lengths of the blocks that ``size`` comes to, as :func:`_share` has it."""
    tiles, blocks = -(-size // tile), -(-size // block)
    edges = [min(tiles * i // blocks * tile, size) for i in range(blocks + 1)]
    return [end - first for first, end in itertools.pairwise(edges)]


def shares(costs: Sequence[float], threads: int) -> list[float]:
    """What each of ``threads`` gets of tasks of these ``costs``."""
    edges = [len(costs) * i // threads for i in range(threads + 1)]
    return [sum(costs[first:end]) for first, end in itertools.pairwise(edges)]


def _halvings(counts: Sequence[int], best: int) -> list[int]:
    """The numbers of microkernels that are worth a measurement: ``best``, and powers of two."""
    return [count for count in counts if count == best or count & count - 1 == 0]


def _symbolic(spec: KernelSpec, k: Size) -> bool:
    return not all(isinstance(size, int) for size in (*spec.axes, k))


# --- the tiled kernel --------------------------------------------------------------------------------------


def _lower_tiled(spec: KernelSpec, core: Contraction, plan: Plan) -> Lowered:
    if plan.near or not plan.packed:
        main, code = _multiply(spec, core, plan, None)
        return Lowered((main,), (code,))
    side = plan.columns
    batch = [Axis(size, stride) for size, stride in zip(spec.axes[:-2], side.batch, strict=True) if stride != 0]
    panels = Panels(
        side.access.buffer, side.access.offset, side.access.dtype, batch, [Axis(core.k, side.k_stride)],
        Axis(side.size, side.stride), plan.tile.columns, side.access.dtype,
    )  # fmt: skip
    packed = pack(panels, f"{spec.name}.panels", spec.name, spec.nodes)
    main, code = _multiply(spec, core, plan, packed)
    return Lowered((packed.call, main), (packed.kernel, code), (packed.buffer,))


def row_blocks(names: Sequence[str], sizes: Sequence[int], call: str, first: str = "0", stop: str = "rows",
               row: str = "r") -> list[str]:  # fmt: skip
    """Lines that run the microkernels ``names``, of ``sizes`` rows, largest first, over rows ``first`` to ``stop``;
    ``call`` has a ``{tile}``. Inside it ``row`` is the first row. What is left at the end takes the smallest that it
    fits in."""
    return rows_by_height([[call.format(tile=name)] for name in names], sizes, first, stop, row)


def rows_by_height(ways: Sequence[list[str]], sizes: Sequence[int], first: str, stop: str, row: str) -> list[str]:
    """The same for any lines, the first of ``ways`` for ``sizes[0]`` rows and so on."""
    smaller = ways[-1]
    for lines, below in reversed(list(zip(ways, sizes[1:], strict=False))):
        smaller = [f"if {stop} - {row} > {below}:", *indent(lines), "else:", *indent(smaller)]
    return [f"for {row} in range({first}, {stop}, {sizes[0]}):", *indent(smaller)]


def by_width(columns: Size, tile: Tile, left: str, panel: Callable[[Tile, bool], list[str]]) -> list[str]:
    """Lines of ``panel`` for one of the panels of so many ``columns``, of which ``left`` are left: the last may be
    narrow. It is told the tile, and whether that walks over rows of just its width."""
    lines = panel(tile, True)
    if ends_narrow(columns, tile):
        lines = [f"if {left} > {tile.lanes}:", *indent(lines), "else:", *indent(panel(tile.narrow, False))]
    return lines


def block_height(sizes: Sequence[int], left: str) -> str:
    """The expression of how many rows the microkernel of :func:`row_blocks` has where ``left`` rows are left."""
    *larger, smallest = sizes
    text = str(smallest)
    for size, below in reversed(list(zip(larger, sizes[1:], strict=True))):
        text = f"{size} if {left} > {below} else {text}"
    return text


def share_lines(axis: str, tiles: str, size: int, length: str) -> list[str]:
    """Lines that set where a task's block begins along ``axis``, and its ``length``: the blocks share out the tiles, of
    ``size`` elements, as evenly as can be, so that no thread is left with what remains."""
    first, end = (f"quotient({number} * {tiles}, {axis}_blocks) * {size}" for number in
                  (f"{axis}_block", f"({axis}_block + 1)"))  # fmt: skip
    return [f"{axis}0 = {first}", f"{length} = minimum({end}, {axis}) - {axis}0"]


def _by_tile(spec: KernelSpec, core: Contraction, plan: Plan) -> bool:
    """Whether the body runs on every tile as soon as it is multiplied: what it writes is drained while the next is. One
    that reads what it writes (an optimizer's) would have to wait for that tile by tile, and where there is nothing but
    to store, long rows are faster."""
    whole, k = isinstance(plan.columns.size, int) and plan.columns.size % plan.tile.columns == 0, core.k
    only_writes = not {access.buffer for access in spec.reads} & {access.buffer for access in spec.writes}
    neighbours = all(access.strides[plan.columns.axis] == 1 for access in spec.writes)
    works = any(stmt.op not in ("core", "store") for stmt in spec.body)
    return whole and isinstance(k, int) and k >= BY_TILE and works and only_writes and neighbours


def _claims(emitter: BodyEmitter, spec: KernelSpec, plan: Plan) -> list[str]:
    """Lines that have what the body writes of a tile on its way while that is multiplied: its stores would wait for
    their lines, and what is read next for stores to the same place of another page."""
    place = emitter.fork(only=())
    lines = place.enter(plan.rows.axis, "(m0 + r0 + q)")
    place.enter(plan.columns.axis, "n0 + c", inline=True)
    for number, access in enumerate(spec.writes):
        pointer, index, _ = place.written(number)
        size = access.dtype.itemsize
        lines += [f"claim({pointer} + ({total(index, str(at))}) * {size})"
                  for at in range(0, plan.tile.columns, LINE // size)]  # fmt: skip
    return loop("q", "r", "below", lines)


def _multiply(spec: KernelSpec, core: Contraction, plan: Plan, packed: Packed | None) -> tuple[Call, Kernel]:
    """The call that multiplies and runs the body."""
    dtype, tile, rows, columns = core.a.dtype, plan.tile, plan.rows, plan.columns
    size, width = dtype.itemsize, tile.columns
    table = ArgTable()
    scope = table.scope(SCRATCH)
    batch = {f"b{i}": axis_size for i, axis_size in enumerate(spec.axes[:-2])}
    space: dict[str, Size] = dict(batch)
    blocks = {"n_block": ceil_div(columns.size, plan.block_columns), "m_block": ceil_div(rows.size, plan.block_rows)}
    space |= reversed(blocks.items()) if _rows_first(columns, core.k) else blocks
    depth = max(PANEL_BYTES // (width * size), 1)
    deep = str(depth) if plan.near else f"({depth} if rows > 1 else k)"  # a single row meets a panel only once
    strip = plan.block_rows
    if isinstance(core.k, int) and core.k <= SHORT and not plan.near:
        strip = min(strip, -(-STRIP // tile.rows) * tile.rows)
    tile_bytes = strip * plan.block_columns * size
    table.declare(
        left=Pointer(rows.access.buffer, rows.access.offset * size), m=rows.size, n=columns.size, k=core.k,
        left_m=rows.stride, left_k=rows.k_stride, block_columns=plan.block_columns, strip=strip,
        n_blocks=blocks["n_block"], n_panels=ceil_div(columns.size, width),
        m_blocks=blocks["m_block"], m_tiles=ceil_div(rows.size, tile.rows),
        **{f"left_{name}": stride for name, stride in zip(batch, rows.batch, strict=True)},
    )  # fmt: skip
    if packed:
        # Panels are packed once for batch axes along which the operand does not move.
        moving = [name for name, stride in zip(batch, columns.batch, strict=True) if stride != 0]
        number = "0"
        for name in moving:
            table.declare(**{f"{name}_size": batch[name]})
            number = total(times(number, f"{name}_size"), name)
        table.declare(right=Pointer(packed.buffer.name), panels=ceil_div(columns.size, width))
        right_row, next_panel = str(width * size), f"k * {width * size}"
        right_first = f"({total(times(number, 'panels'), f'quotient(n0, {width})')}) * {next_panel}"
    else:
        table.declare(
            right=Pointer(columns.access.buffer, columns.access.offset * size), right_k=columns.k_stride,
            **{f"right_{name}": stride for name, stride in zip(batch, columns.batch, strict=True)},
        )  # fmt: skip
        right_row, next_panel = f"right_k * {size}", str(width * size)
        right_n = "1" if columns.stride == 1 else "right_n"
        right_first = f"({total(*(f'{name} * right_{name}' for name in batch), times('n0', right_n))}) * {size}"
    parts = {"block": tile_bytes, "row_table": (strip + tile.rows) * 8}
    modules: dict[str, list[str]] = {}
    fetch: list[str] = []
    panel = f"right_first + k0 * {right_row}"
    if plan.near:
        parts["near"] = depth * width * size
        table.declare(right_n=columns.stride)
        right_k = "1" if columns.k_stride == 1 else "right_k"
        fetch, modules = panel_lines(dtype, width, right_n, right_k, table.scope(columns.access.buffer), scope)
        fetch = [
            f"start = right_first + ({times('c', right_n)} + k0 * right_k) * {size}",
            f"present = minimum({width}, columns - c)",
            *fetch,
        ]
        panel, right_row, next_panel = "near", str(width * size), "0"

    unit_k = rows.k_stride == 1
    sizes = tile.heights
    names = [tile.name(dtype, height, unit_k, plan.packed) for height in sizes]
    call = (
        f"{{tile}}(1, deep, left_k * {size}, row_table + r * 8, panel, {right_row}, "
        f"block + (r * block_columns + c) * {size}, block_columns * {size}, k0)"
    )
    by_tile = _by_tile(spec, core, plan)
    address = f"left_first + (minimum(r0 + r, rows - 1) * left_m + k0 * left_k) * {size}"
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, len(spec.axes), table,
                          core={0: load(dtype, "values", "j", scope)})  # fmt: skip
    lines = emitter.start()
    task = coordinates(table, "task", space)
    for axis, name in enumerate(batch):
        task += emitter.enter(axis, name)
    task += [
        *share_lines("m", "m_tiles", tile.rows, "rows"),
        *share_lines("n", "n_panels", width, "columns"),
        f"left_first = left + ({total(*(f'{name} * left_{name}' for name in batch), 'm0 * left_m')}) * {size}",
        f"right_first = right + {right_first}",
    ]
    claims = _claims(emitter, spec, plan) if by_tile else []
    by_row = emitter.enter(rows.axis, "i")
    inside = emitter.enter(columns.axis, "n0 + j", inline=True)

    def finished(first: str, stop: str, columns: tuple[str, str]) -> list[str]:
        """Lines that run the body on these rows and columns of the block."""
        return loop("q", first, stop, [
            "i = m0 + r0 + q",
            f"values = block + q * block_columns * {size}",
            *by_row,
            *loop("j", *columns, inside),
        ])  # fmt: skip

    multiply = row_blocks(names, sizes, call, "0", "here")
    if by_tile:
        first, *products = multiply
        finish = finished("r", "below", ("c", f"c + {width}"))
        multiply = [
            first,
            *indent([f"below = minimum(r + {tile.rows}, here)", "if k0 + deep >= k:", *indent(claims)]),
            *products,
            *indent(["if k0 + deep >= k:", *indent(finish)]),
        ]
    elif ends_narrow(columns.size, tile):
        narrow = [tile.narrow.name(dtype, height, unit_k, False) for height in sizes]
        multiply = [f"if columns - c > {tile.lanes}:", *indent(multiply), "else:",
                    *indent(row_blocks(narrow, sizes, call, "0", "here"))]  # fmt: skip
        names += narrow
    task += loop("part", "0", "quotient(rows + strip - 1, strip)", [
        "r0 = part * strip",
        "here = minimum(strip, rows - r0)",
        "k0 = 0",
        "while True:",
        f"    deep = minimum({deep}, k - k0)",
        *indent(loop("r", "0", f"here + {tile.rows - 1}", [note("row_table", "r", address, scope)])),
        f"    panel = {panel}",
        f"    for c in range(0, columns, {width}):",
        *indent([*fetch, *multiply], 2),
        f"        panel += {next_panel}",
        "    k0 += deep",
        "    if k0 >= k:",
        "        break",
        *([] if by_tile else finished("0", "here", ("0", "columns"))),
    ])  # fmt: skip
    offsets = scratch_parts(parts)
    lines = [*scratch_lines(offsets, table), *lines, *loop("task", "lo", "hi", task)]
    code = kernel(f"contract_{dtype}", lines, table, modules={"runtime.cpu.microkernel": names, **modules})
    reads = dict.fromkeys([rows.access.buffer, packed.buffer.name if packed else columns.access.buffer,
                           *(access.buffer for access in spec.reads)])  # fmt: skip
    writes = dict.fromkeys(access.buffer for access in spec.writes)
    made = Call(code.key, spec.name, table.args, product(space.values()), tuple(reads), tuple(writes), offsets["end"],
                spec.nodes)  # fmt: skip
    return made, code
