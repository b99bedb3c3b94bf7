"""The tiles of a convolution: output points, computed from a padded copy of what they read.

A tile of one image and group is made at a time: its input is copied into scratch (see conv_patch.py), the address of
every output point's first input written down, and the microkernel sums over the taps. No matrix of patches is
built. The finished tile stays in the nearest caches while the body (conv_direct.py), or a pooling window
(conv_pool.py), runs on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from engine import dtypes
from engine.dims import Size, ceil_div, product
from engine.dtypes import DType
from engine.errors import UnsupportedError
from engine.program import Pointer
from engine.records import dataclass
from engine.schedule import Conv2d, KernelSpec
from runtime.choices import pick
from runtime.cpu.contraction import block_height, ends_narrow, fitting, row_blocks
from runtime.cpu.conv_groups import SmallGroups, pack_groups, small_groups
from runtime.cpu.conv_patch import Patch
from runtime.cpu.packing import Axis, Packed, Panels, pack
from runtime.cpu.scratch import scratch_parts
from runtime.cpu.tiles import Tile, host_tile
from runtime.emit import SCRATCH, ArgTable, indent, load, loop, note, total
from runtime.tasks import coordinates, piece

PATCH_BYTES = 32768
"""The most that the copy of a tile's input should take, so that it stays in the first-level cache."""
FAR_PATCH_BYTES = 8 * PATCH_BYTES
"""The most that it may take where the tile has few points: weights, which all are read for every tile, cost more."""
FEW_POINTS = 56
BLOCK_BYTES = 65536
"""The most that a tile's outputs should take."""
POINTS = 24
"""How many outputs are computed before the body runs on them: few, so that its stores drain while the next are
multiplied, yet enough to use a panel of weights several times while it is near."""
WIDEST = 64
"""The most output columns of a tile."""
PANELS = 4
"""The most panels of output channels that are computed with one copy of the input."""


@dataclass(frozen=True)
class ConvTile:
    """The blocking of a convolution. ``points`` is a tile in what is made of it (its outputs, or points that pool
    these), ``size`` in the outputs which that takes, ``channels`` how many output channels of a group a task
    computes. ``taken``: where groups are small, those that count as one in ``core``."""

    core: Conv2d
    tile: Tile
    dtype: DType
    points: tuple[int, int]
    size: tuple[int, int]
    channels: int
    taken: SmallGroups | None = None

    @property
    def panel(self) -> tuple[int, int]:
        """A panel of weights: its output channels, and its elements."""
        if self.taken is None:
            return self.tile.columns, self.depth * self.tile.columns
        return self.taken.panel_outputs, self.core.kernel[0] * self.core.kernel[1] * self.taken.row

    @property
    def strips(self) -> int:
        """Panels of a block of channels."""
        return self.channels // self.tile.columns if self.taken is None else self.taken.panels

    @property
    def channel_blocks(self) -> int:
        return ceil_div(self.core.group_outputs, self.channels)  # type: ignore[return-value]

    @property
    def patch(self) -> Patch:
        return Patch(self.core, self.size, self.core.group_inputs, self.dtype)

    @property
    def depth(self) -> int:
        """Products in one sum."""
        return self.core.kernel[0] * self.core.kernel[1] * self.core.group_inputs

    @property
    def rows(self) -> int:
        """Outputs of a tile, filled up to whole microkernels."""
        return -(-self.size[0] * self.size[1] // self.tile.rows) * self.tile.rows

    @property
    def block_bytes(self) -> int:
        return self.rows * self.channels * self.dtype.itemsize

    def scratch(self, points: int, **more: int) -> dict[str, int]:
        """The byte offset of every part of the scratch memory, and its ``end``. The block holds ``points`` outputs;
        ``more`` parts are given by name and bytes."""
        sizes = {
            "block": points * self.channels * self.dtype.itemsize,
            "patch": self.patch.bytes + self.tile.lanes * self.dtype.itemsize,
            "bases": (self.rows + self.tile.rows) * 8,
            "table": self.rows * self.core.kernel[0] * self.patch.runs()[0] * 8,
        }  # fmt: skip
        return scratch_parts(sizes | more)


def computed_dtype(core: Conv2d) -> DType:
    """The dtype of the sums. Raises UnsupportedError for what the microkernel cannot add up."""
    found = dtypes.promote(core.x.dtype, core.w.dtype)
    if not found.is_float:
        raise UnsupportedError(f"the CPU convolves floats only, not {core.x.dtype} with {core.w.dtype}")
    return found.computed


def plan_tile(core: Conv2d, counts: tuple[Size, Size], span: Callable[[int, int], int],
              block_bytes: int = BLOCK_BYTES, patch_bytes: int = PATCH_BYTES) -> ConvTile:  # fmt: skip
    """The largest tile that fits the nearest caches, as wide as the image where that can be.

    ``counts`` rows and columns of points are to be made; ``span(axis, n)`` says how many outputs of ``core`` along
    ``axis`` it takes to make ``n`` of them. The tile's outputs take ``block_bytes`` at most, and the copy of its input
    ``patch_bytes`` if the tile has more than a few points.
    """
    dtype = computed_dtype(core)
    taken = small_groups(core, dtype)
    if taken is None:
        tile = fitting(host_tile(dtype), core.group_outputs)
        panels = -(-core.group_outputs // tile.columns)
        blocks = [tile.columns * -(-panels // -(-panels // most)) for most in (PANELS, 1, 2, 2 * PANELS)]
        channels = pick("channels", {str(block): block for block in blocks})
    else:
        core, tile = replace(core, groups=core.groups // taken.groups), taken.tile
        channels = max(taken.panels * taken.panel_outputs, tile.lanes)  # the block may be turned over in squares

    def sized(points: tuple[int, int]) -> ConvTile:
        return ConvTile(core, tile, dtype, points, (span(0, points[0]), span(1, points[1])), channels, taken)

    def fits(rows: int) -> bool:
        trial = sized((rows, columns))
        room = FAR_PATCH_BYTES if trial.size[0] * trial.size[1] <= FEW_POINTS else patch_bytes
        return trial.block_bytes <= block_bytes and trial.patch.bytes <= room

    columns = WIDEST
    while columns > 1 and span(1, columns) > WIDEST:
        columns -= 1
    columns = piece(counts[1], columns)
    rows = 1
    while rows < WIDEST and fits(rows + 1):
        rows += 1
    best = sized((piece(counts[0], rows), columns))
    tried = [sized((piece(counts[0], n), width)) for width in (columns, -(-columns // 2)) for n in (1, 2, 4, 8, 16)]
    near = [shape for shape in tried if shape.block_bytes <= block_bytes and shape.patch.bytes <= FAR_PATCH_BYTES]
    return pick("tile", {"{} x {}".format(*shape.points): shape for shape in (best, *near)})


def tap_axes(core: Conv2d) -> tuple[Size, list[Axis]]:
    """The first tap's offset in the weights, and the axes of the taps in the order in which they meet the input."""
    offset, strides = core.w.offset, core.w.strides[2:]
    if core.flip:
        for size, stride in zip(core.kernel, strides, strict=True):
            offset = offset + (size - 1) * stride
        strides = tuple(-1 * stride for stride in strides)
    return offset, [Axis(size, stride) for size, stride in zip(core.kernel, strides, strict=True)]


def pack_weights(spec: KernelSpec, plan: ConvTile) -> Packed:
    """The call that packs the weights of every group: ``[group][panel][kh, kw, ic][columns]``."""
    core = plan.core
    offset, taps = tap_axes(core)
    if plan.taken is not None:
        return pack_groups(spec, core, plan.taken, offset, taps, plan.dtype)
    oc_stride, ic_stride = core.w.strides[:2]
    panels = Panels(
        core.w.buffer, offset, core.w.dtype, [Axis(core.groups, core.w_group)],
        [*taps, Axis(core.group_inputs, ic_stride)], Axis(core.group_outputs, oc_stride), plan.tile.columns, plan.dtype,
    )  # fmt: skip
    return pack(panels, f"{spec.name}.weights", spec.name, spec.nodes)


def image_lines(plan: ConvTile, table: ArgTable, weights: str) -> list[str]:
    """Lines that copy what the tile reads into ``patch``, and set ``columns``, its number of channels, ``channel0``,
    the first of these, and ``first_panel``, the address of their weights.

    ``n`` is the image's number; :func:`tile_tasks` sets that and which of the channels."""
    return [*patch_lines(plan, table), panel_line(plan, table, weights)]


def patch_lines(plan: ConvTile, table: ArgTable) -> list[str]:
    """Those of :func:`image_lines` that know nothing of weights."""
    core, columns = plan.core, plan.panel[0]
    table.declare(
        x=Pointer(core.x.buffer, core.x.offset * core.x.dtype.itemsize), x_n=core.x.strides[0],
        x_group=core.x.strides[3] * core.group_inputs, outputs=core.group_outputs, block_channels=plan.channels,
        panels=ceil_div(core.group_outputs, columns),
    )  # fmt: skip
    return [
        f"image = x + (n * x_n + group * x_group) * {core.x.dtype.itemsize}",
        *plan.patch.copy_lines(table, table.scope(SCRATCH), keep=True),
        f"first_channel = channel_block * block_channels + first_strip * {columns}",
        f"columns = minimum(strip_count * {columns}, outputs - first_channel)",
        "channel0 = group * outputs + first_channel",
    ]


def panel_line(plan: ConvTile, table: ArgTable, weights: str, tag: str = "") -> str:
    """The line that sets ``first_panel``, whose name, as those of what it needs, ends in ``tag``."""
    columns, elements = plan.panel
    table.declare(**{f"weights{tag}": Pointer(weights)})
    table.declare(**{f"panel_bytes{tag}": elements * plan.dtype.itemsize})
    panel = f"group * panels + quotient(first_channel, {columns})"
    return f"first_panel{tag} = weights{tag} + ({panel}) * panel_bytes{tag}"


def tile_lines(plan: ConvTile, table: ArgTable, weights: str) -> tuple[list[str], list[str], list[str]]:
    """Lines that prepare the tile at (``oh0``, ``ow0``) of ``tile_h`` x ``tile_w`` points, lines that compute its
    points ``first_row`` .. ``stop_row`` into ``block``, and the names of the microkernels used. The first lines are
    those of :func:`image_lines`, and set ``rows``, the number of points."""
    multiply, names = product_lines(plan)
    lines = [
        *image_lines(plan, table, weights),
        *point_lines(plan, table),
        *table_lines(plan, table, plan.patch),
    ]
    return lines, multiply, names


def point_lines(plan: ConvTile, table: ArgTable) -> list[str]:
    """Lines that set ``rows`` and note where every point's part of the patch begins."""
    tile, scope = plan.tile, table.scope(SCRATCH)
    table.declare(step_h=plan.patch.step(0), step_w=plan.patch.step(1))
    return [
        "rows = tile_h * tile_w",
        *loop("r", "0", "tile_h", loop("s", "0", "tile_w", [
            note("bases", "r * tile_w + s", "patch + r * step_h + s * step_w", scope)
        ])),
        *loop("r", "rows", f"rows + {tile.rows - 1}", [
            note("bases", "r", load(dtypes.i64, "bases", "rows - 1", scope), scope)
        ]),
    ]  # fmt: skip


def table_lines(plan: ConvTile, table: ArgTable, patch: Patch, tag: str = "", at: str = "0") -> list[str]:
    """Lines that note the addresses of all that meets a tap of ``plan``, for every microkernel: runs of ``patch`` that
    begin ``at`` so many bytes from where a point's part does. Names end in ``tag``."""
    core, scope = plan.core, table.scope(SCRATCH)
    taps_across, run = (1, core.kernel[1]) if plan.taken else patch.runs(core)
    numbers = {
        "taps": core.kernel[0] * taps_across, "taps_h": core.kernel[0], "taps_w": taps_across, "run": run,
        "tap_h": patch.tap(0, core), "tap_w": patch.tap(1, core),
    }  # fmt: skip
    table.declare(**{name + tag: number for name, number in numbers.items()})
    start = total(load(dtypes.i64, "bases", "r + i", scope), at)
    address = f"{start} + kh * tap_h{tag} + kw * tap_w{tag}"
    return [
        f"for r in range(0, rows, {plan.tile.rows}):",
        f"    high = {block_height(plan.tile.heights, 'rows - r')}",
        f"    entry = r * taps{tag}",
        *indent(loop("kh", "0", f"taps_h{tag}", loop("kw", "0", f"taps_w{tag}", [
            *loop("i", "0", "high", [note(f"table{tag}", "entry + i", address, scope)]),
            "entry += high",
        ]))),
    ]  # fmt: skip


def product_lines(plan: ConvTile, tag: str = "", across: int = 1, rows: tuple[str, str] = ("first_row", "stop_row"),
                  ) -> tuple[list[str], list[str]]:  # fmt: skip
    """Lines that compute the points between ``rows`` into every ``across``-th place of ``block``, and the names of the
    microkernels used. Other names end in ``tag``, as those of :func:`table_lines` do."""
    core, tile, size = plan.core, plan.tile, plan.dtype.itemsize
    sizes = tile.heights
    step, origin, way = str(size), str(tile.columns * size), ""
    if plan.taken:
        step, origin, way = f"tap_w{tag}", "origin", f"fold{plan.taken.lanes.inputs}"
    names = [tile.name(plan.dtype, height, plan.taken is None, True, way) for height in sizes]
    point, row = (
        (f"(r - {rows[0]})", "block_channels")
        if across == 1
        else (f"(r - {rows[0]}) * {across}", f"{across} * block_channels")
    )
    call = (
        f"{{tile}}(taps{tag}, run{tag}, {step}, table{tag} + r * taps{tag} * 8, panel, {origin}, "
        f"block{tag} + ({point} * block_channels + c) * {size}, {row} * {size}, 0)"
    )
    blocks = row_blocks(names, sizes, call, *rows)
    if plan.taken is None and ends_narrow(core.group_outputs, tile):
        narrow = [tile.narrow.name(plan.dtype, height, True, False) for height in sizes]
        blocks = [f"if columns - c > {tile.lanes}:", *indent(blocks), "else:",
                  *indent(row_blocks(narrow, sizes, call, *rows))]  # fmt: skip
        names += narrow
    return [
        f"panel = first_panel{tag}",
        *([f"origin = first_strip * {plan.taken.panel_inputs * size}"] if plan.taken else []),
        f"for c in range(0, columns, {plan.panel[0]}):",
        *indent(blocks),
        f"    panel += panel_bytes{tag}",
        *([f"    origin += {plan.taken.panel_inputs * size}"] if plan.taken else []),
    ], names


def whole_tiles(plan: ConvTile, table: ArgTable, images: Size, tile: list[str]) -> tuple[Size, list[str]]:
    """As :func:`tile_tasks`, where a task is a tile with all channels of a block: whatever threads there are, the tiles
    are the same."""
    (down, across), (tall, wide) = plan.core.out_size, plan.points
    space: dict[str, Size] = {
        "channel_block": plan.channel_blocks, "n": images, "group": plan.core.groups,
        "tile_column": ceil_div(across, wide), "tile_row": ceil_div(down, tall),
    }  # fmt: skip
    table.declare(tall=tall, wide=wide, points_h=down, points_w=across, strips=plan.strips)
    return product(space.values()), [
        *plan.patch.start_lines,
        *loop("task", "lo", "hi", [
            *coordinates(table, "task", space),
            "tile_x = tile_column * wide",
            "tile_y = tile_row * tall",
            "tile_columns = minimum(wide, points_w - tile_x)",
            "tile_rows = minimum(tall, points_h - tile_y)",
            "first_strip = 0",
            "strip_count = strips",
            *tile,
        ]),
    ]  # fmt: skip


def tile_tasks(plan: ConvTile, table: ArgTable, images: Size, points: tuple[Size, Size],
               tile: list[str]) -> tuple[Size, list[str]]:  # fmt: skip
    """How many tasks a convolution has that makes ``points`` rows and columns of every image, and the loop that does
    those from ``lo`` to ``hi``; ``tile`` are the lines that make a tile.

    A task is a panel of channels of one row of points, so that threads get equal shares; those that follow one another
    are done as one tile, as large as the plan allows. The lines of a tile are told its first row and column ``tile_y``
    and ``tile_x``, how many they are, ``tile_rows`` and ``tile_columns``, and its first panel and their number,
    ``first_strip`` and ``strip_count``, of the panels in ``channel_block``. Blocks of channels come first: so a thread
    stays with its part of the weights."""
    down, (tall, wide) = points[0], plan.points
    strips = plan.strips
    space: dict[str, Size] = {
        "channel_block": plan.channel_blocks, "n": images, "group": plan.core.groups,
        "tile_column": ceil_div(points[1], wide), "tile_y": down, "first_strip": strips,
    }  # fmt: skip
    table.declare(tall=tall, wide=wide, points_h=down, points_w=points[1], strips=strips)
    return product(space.values()), [
        *plan.patch.start_lines,
        "task = lo",
        "while task < hi:",
        *indent([
            *coordinates(table, "task", space),
            "tile_x = tile_column * wide",
            "tile_columns = minimum(wide, points_w - tile_x)",
            "tile_rows = 1",
            "strip_count = minimum(strips - first_strip, hi - task)",
            "if strip_count == strips:",
            "    tile_rows = minimum(minimum(tall, points_h - tile_y), quotient(hi - task, strips))",
            *tile,
            "task += tile_rows * strip_count",
        ]),
    ]  # fmt: skip
