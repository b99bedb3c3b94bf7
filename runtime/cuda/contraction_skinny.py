"""Products with a few rows, as in decoding: reading b takes all the time, so b goes from memory straight to registers.

A warp reads 16 bytes a lane, and multiplies them by tensor cores in whatever order they arrive: the order of k is the
same for a and b, and which column of the result is whose is put right when it is stored. The warps of a block share k,
and their sums are added, in order, in shared memory, before the body runs.
"""

from __future__ import annotations

from engine.dims import Size, ceil_div, product
from engine.program import Call, Kernel, Pointer
from engine.records import dataclass
from engine.schedule import Contraction, KernelSpec
from runtime.cuda.copies import copy_width, divisor_of
from runtime.cuda.emit import kernel
from runtime.cuda.epilogue import enter_rows
from runtime.cuda.mainloop import MODULES, place_threads
from runtime.cuda.operands import Operand, operands, touched
from runtime.cuda.products import Products, product_kind
from runtime.cuda.tiles import CHUNK, FRAGMENT_ROWS
from runtime.emit import ArgTable, BodyEmitter, indent, times, total
from runtime.tasks import coordinates, typical

ROWS = FRAGMENT_ROWS
"""What this kernel takes at most."""
WARPS = 8
AHEAD = 4
"""Units of k that a warp reads before it multiplies them."""
FEW_COLUMNS = 2048
"""Below so many columns a block takes half as many, that there be blocks enough."""


def is_skinny(spec: KernelSpec) -> bool:
    """Whether this kernel can run ``spec``, of whatever size, as long as it has no more than :data:`ROWS` rows: a's and
    b's rows are made of whole chunks, aligned, and b is contiguous one way or the other."""
    core = spec.core
    assert isinstance(core, Contraction)
    a, b = operands(core)
    size = a.access.dtype.itemsize
    whole = divisor_of(core.k) * size % CHUNK == 0
    aligned = all(copy_width(side.steps, size) == CHUNK for side in (a, b))
    readable = b.k_stride == 1 or (b.stride == 1 and divisor_of(spec.axes[-1]) % 4 == 0)
    return whole and aligned and a.k_stride == 1 and readable


@dataclass(frozen=True)
class Strip:
    """How a warp reads b: ``tiles`` fragments of 8 columns at once, ``words`` 32-bit words a lane of each of ``loads``
    places, which make ``steps`` steps of k. ``unit`` elements of k are read at once, ``each`` of them by a lane."""

    along_k: bool
    tiles: int
    words: int
    loads: int
    steps: int
    unit: int
    each: int

    @property
    def columns(self) -> int:
        return 8 * self.tiles

    @property
    def rows_words(self) -> int:
        """Words that a lane reads of a row of a."""
        return 2 * self.steps


def strip(b: Operand, columns: Size) -> Strip:
    """How b is read: along k 16 bytes a lane, four lanes beside each other; along columns four elements a lane, eight
    lanes beside each other, whose columns go to as many fragments."""
    elements = CHUNK // b.access.dtype.itemsize
    if b.k_stride == 1:
        tiles = 2 if typical(columns) >= FEW_COLUMNS else 1
        return Strip(True, tiles, 4, tiles, 2, 4 * elements, elements)
    return Strip(False, 4, b.access.dtype.itemsize, elements // 2, 1, 2 * elements, elements // 2)


def skinny_kernel(spec: KernelSpec, share: Size = 1) -> tuple[Call, Kernel]:
    """The call that runs ``spec``, its tasks times ``share``."""
    core = spec.core
    assert isinstance(core, Contraction)
    a, b = operands(core)
    dtype, size = core.a.dtype, core.a.dtype.itemsize
    kind = product_kind(dtype, spec.products)
    products = Products("tf32" if kind == "medium" else kind, 1, strip(b, spec.axes[-1]).tiles)
    m, n = spec.axes[-2:]
    half = isinstance(m, int) and m <= ROWS // 2
    way = strip(b, n)
    table = ArgTable()
    batch = {f"batch{i}": extent for i, extent in enumerate(spec.axes[:-2])}
    n_blocks = ceil_div(n, way.columns)
    table.declare(m=m, n=n, k=core.k)
    lines = [*place_threads(), *coordinates(table, "block", {**batch, "n_block": n_blocks})]
    for name, side in (("a", a), ("b", b)):
        table.declare(**{f"{name}_memory": Pointer(side.access.buffer, side.access.offset * size)})
        moving = {axis: stride for axis, stride in zip(batch, side.batch, strict=True) if stride != 0}
        table.declare(**{f"{name}_{axis}": stride for axis, stride in moving.items()})
        place = total(*(f"{axis} * {name}_{axis}" for axis in moving))
        lines.append(f"{name}_base = {name}_memory + {times(f'({place})' if '+' in place else place, str(size))}")
    table.declare(a_stride=a.stride, **({"b_stride": b.stride} if way.along_k else {"b_k": b.k_stride}))
    lines += [
        "warp = thread >> 5",
        "group = lane >> 2",
        f"lane_k = (lane & 3) * {way.each}",
        f"column_first = n_block * {way.columns}",
        *_places(way, size, half),
        *products.declare(),
        f"x = cuda.local.array({AHEAD * 2 * way.rows_words}, uint32)",
        f"w = cuda.local.array({AHEAD * way.loads * way.words}, uint32)",
        *products.clear(),
        f"for first in range(warp * {AHEAD * way.unit}, k, {WARPS * AHEAD * way.unit}):",
        f"    for u in range({AHEAD}):",
        f"        at = first + u * {way.unit} + lane_k",
        *indent(_loads(way, size, half), 2),
        "    cuda.syncwarp()  # without it ptxas puts each load next to its products, and few are under way at a time",
        f"    for u in range({AHEAD}):",
        *indent(_multiply(way, size, products), 2),
        *_reduced(way, products),
    ]
    value = " + ".join(f"load_shared_f32(shared, at + {w * ROWS * way.columns})" for w in range(WARPS))
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, len(spec.axes), table, core={0: "sum"})
    before, by_row = enter_rows(emitter, batch)
    by_column = emitter.enter(len(batch) + 1, "column", inline=True)
    lines += [
        *before,
        f"for at in range(thread, m * {way.columns}, {32 * WARPS}):",
        f"    row = at // {way.columns}",
        f"    column = column_first + at % {way.columns}",
        "    if column < n:",
        f"        sum = {value}",
        *indent([*by_row, *by_column], 2),
    ]
    shared = WARPS * ROWS * way.columns * 4
    code = kernel(f"contract_skinny_{dtype}", lines, table, 32 * WARPS, shared, modules=MODULES)
    reads, writes = touched(spec)
    tasks = product(batch.values()) * n_blocks * share
    return Call(code.key, spec.name, table.args, tasks, reads, writes, 0, spec.nodes), code


def _places(way: Strip, size: int, half: bool) -> list[str]:
    """Lines that set where this lane reads. Columns past the end are the last ones again, and not stored."""
    lines = [f"a_source = a_base + group * a_stride * {size}"]
    if not half:
        lines.append(f"a_below = {ROWS // 2} * a_stride * {size}")
    if way.along_k:
        for j in range(way.tiles):
            lines.append(f"b_source{j} = b_base + min(column_first + {8 * j} + group, n - 1) * b_stride * {size}")
    else:
        lines += [f"b_source = b_base + min(column_first + group * 4, n - 4) * {size}"]
    return lines


def _loads(way: Strip, size: int, half: bool) -> list[str]:
    """Lines that read unit ``u`` at k ``at``: 0 past the end."""
    wide = {2: "ld_global_v2_u32", 4: "ld_global_v4_u32"}
    lines = []
    for h in range(1 if half else 2):
        words = _words("x", f"(u * 2 + {h}) * {way.rows_words}", way.rows_words)
        place = f"a_source + at * {size}" if h == 0 else f"a_source + a_below + at * {size}"
        row = "group" if h == 0 else f"group + {ROWS // 2}"
        lines += [
            f"if at < k and {row} < m:",
            f"    {', '.join(words)} = {wide[way.rows_words]}({place})",
            "else:",
            *(f"    {word} = 0" for word in words),
        ]
    if half:
        lines += [f"{word} = 0" for word in _words("x", f"(u * 2 + 1) * {way.rows_words}", way.rows_words)]
    load = {2: "ld_global_v2_u32", 4: "ld_global_nc_v4_u32"}[way.words]
    read, empty = [], []
    for i in range(way.loads):
        words = _words("w", f"(u * {way.loads} + {i}) * {way.words}", way.words)
        place = f"b_source{i} + at * {size}" if way.along_k else f"b_source + (at + {i}) * b_k * {size}"
        read.append(f"    {', '.join(words)} = {load}({place})")
        empty += [f"    {word} = 0" for word in words]
    return [*lines, "if at < k:", *read, "else:", *empty]


def _words(name: str, first: str, count: int) -> list[str]:
    return [f"{name}[{first} + {i}]" for i in range(count)]


def _multiply(way: Strip, size: int, products: Products) -> list[str]:
    """Lines that multiply unit ``u``."""
    lines = [
        "for h in range(2):",
        "    for q in range(2):",
        f"        a[h + 2 * q] = x[(u * 2 + h) * {way.rows_words} + 2 * step + q]",
    ]
    if way.along_k:
        lines += [
            f"for j in range({way.tiles}):",
            "    for q in range(2):",
            f"        b[2 * j + q] = w[(u * {way.loads} + j) * {way.words} + 2 * step + q]",
        ]
    elif size == 4:
        lines += [
            f"for j in range({way.tiles}):",
            "    for q in range(2):",
            f"        b[2 * j + q] = w[(u * {way.loads} + q) * {way.words} + j]",
        ]
    else:
        lines += [
            f"for j in range({way.tiles}):",
            "    for q in range(2):",
            f"        at = (u * {way.loads} + 2 * q) * {way.words} + (j >> 1)",
            "        low = w[at] >> 16 * (j & 1) & 0xFFFF",
            f"        b[2 * j + q] = low | w[at + {way.words}] >> 16 * (j & 1) << 16",
        ]
    lines += [*products.prepare("a"), *products.prepare("b"), *products.multiply()]
    return [f"for step in range({way.steps}):", *indent(lines)]


def _reduced(way: Strip, products: Products) -> list[str]:
    """Lines that put the sums of every warp into shared memory, by rows of the strip's columns."""
    column = "8 * j + (lane & 3) * 2 + (e & 1)" if way.along_k else "((lane & 3) * 2 + (e & 1)) * 4 + j"
    return [
        f"for j in range({way.tiles}):",
        "    for e in range(4):",
        f"        column = {column}",
        f"        row = warp * {ROWS} + group + 8 * (e >> 1)",
        f"        store_shared_f32(shared, row * {way.columns} + column, {products.value('4 * j + e')})",
        "cuda.syncthreads()",
    ]
