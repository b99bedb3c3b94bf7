"""Lowering a convolution: tiles of output points, computed from a padded copy of what they read.

A task makes one tile of one image and group: it copies the tile's input into scratch (see conv_patch.py), writes down
the address of every output point's first input, and lets the microkernel sum over the taps. No matrix of patches is
built. The finished tile stays in the nearest caches while the body, or a pooling window, runs on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine import dtypes
from engine.dims import Size, ceil_div, product
from engine.dtypes import DType
from engine.errors import UnsupportedError
from engine.program import Call, Lowered
from engine.schedule import Conv2d, KernelSpec
from runtime.cpu.contraction import heights, row_blocks
from runtime.cpu.conv_patch import Patch
from runtime.cpu.emit import SCRATCH, ArgTable, BodyEmitter, indent, kernel, load, loop, store, times, total
from runtime.cpu.loops import outer_indices
from runtime.cpu.packing import Axis, Packed, Panels, pack
from runtime.cpu.tiles import Tile, host_tile, scratch_parts

TILE_BYTES = 32768
"""The most that the output block of a tile, or the copy of its input, should take."""
WIDEST = 64
"""The most output columns of a tile."""
PANELS = 4
"""The most panels of output channels that one task computes."""


@dataclass(frozen=True)
class ConvTile:
    """The blocking of a convolution. ``points`` is a tile in what is made of it (its outputs, or points that pool
    these), ``size`` in the outputs which that takes, ``channels`` how many output channels of a group a task
    computes, ``ragged`` whether some tiles are smaller."""

    core: Conv2d
    tile: Tile
    dtype: DType
    points: tuple[int, int]
    size: tuple[int, int]
    channels: int
    ragged: bool

    @property
    def group_inputs(self) -> int:
        return self.core.in_channels // self.core.groups

    @property
    def group_outputs(self) -> int:
        return self.core.out_channels // self.core.groups

    @property
    def channel_blocks(self) -> int:
        return ceil_div(self.group_outputs, self.channels)  # type: ignore[return-value]

    @property
    def patch(self) -> Patch:
        return Patch(self.core, self.size, self.group_inputs, self.dtype)

    @property
    def depth(self) -> int:
        """Products in one sum."""
        return self.core.kernel[0] * self.core.kernel[1] * self.group_inputs

    @property
    def rows(self) -> int:
        """Outputs of a tile, filled up to whole microkernels."""
        return -(-self.size[0] * self.size[1] // self.tile.rows) * self.tile.rows

    @property
    def block_bytes(self) -> int:
        return self.rows * self.channels * self.dtype.itemsize

    def scratch(self, **more: int) -> dict[str, int]:
        """The byte offset of every part of the scratch memory, and its ``end``; ``more`` parts by name and bytes."""
        sizes = {"block": self.block_bytes, "patch": self.patch.bytes, "bases": (self.rows + self.tile.rows) * 8,
                 "table": self.rows * self.patch.runs()[0] * 8}  # fmt: skip
        return scratch_parts(sizes | more)


def computed_dtype(core: Conv2d) -> DType:
    """The dtype of the sums. Raises UnsupportedError for what the microkernel cannot add up."""
    found = dtypes.promote(core.x.dtype, core.w.dtype)
    if not found.is_float:
        raise UnsupportedError(f"the CPU convolves floats only, not {core.x.dtype} with {core.w.dtype}")
    return dtypes.f32 if found.storage_only else found


def plan_tile(core: Conv2d, counts: tuple[Size, Size], span: Callable[[int, int], int]) -> ConvTile:
    """A tile that fits the first-level cache, as wide as the image where that can be.

    ``counts`` rows and columns of points are to be made; ``span(axis, n)`` says how many outputs of ``core`` along
    ``axis`` it takes to make ``n`` of them.
    """
    dtype = computed_dtype(core)
    tile = host_tile(dtype)
    panels = -(-(core.out_channels // core.groups) // tile.columns)
    channels = -(-panels // -(-panels // PANELS)) * tile.columns

    def sized(points: tuple[int, int]) -> ConvTile:
        ragged = any(not isinstance(n, int) or n % p for n, p in zip(counts, points, strict=True))
        return ConvTile(core, tile, dtype, points, (span(0, points[0]), span(1, points[1])), channels, ragged)

    def fits(rows: int) -> bool:
        trial = sized((rows, columns))
        return max(trial.block_bytes, trial.patch.bytes) <= TILE_BYTES

    columns = WIDEST
    while columns > 1 and span(1, columns) > WIDEST:
        columns -= 1
    columns = piece(counts[1], columns)
    rows = 1
    while rows < WIDEST and fits(rows + 1):
        rows += 1
    return sized((piece(counts[0], rows), columns))


def piece(size: Size, limit: int) -> int:
    """The length of equal pieces of ``size``, of at most ``limit``."""
    if not isinstance(size, int):
        return limit
    return max(-(-size // max(-(-size // limit), 1)), 1)


def pack_weights(spec: KernelSpec, plan: ConvTile) -> Packed:
    """The call that packs the weights of every group: ``[group][panel][kh, kw, ic][columns]``."""
    core, offset = plan.core, plan.core.w.offset
    oc_stride, ic_stride, *tap_strides = core.w.strides
    if core.flip:
        for size, stride in zip(core.kernel, tap_strides, strict=True):
            offset = offset + (size - 1) * stride
        tap_strides = [-1 * stride for stride in tap_strides]
    taps = [Axis(size, stride) for size, stride in zip(core.kernel, tap_strides, strict=True)]
    panels = Panels(
        core.w.buffer, offset, core.w.dtype, [Axis(core.groups, core.w_group)],
        [*taps, Axis(plan.group_inputs, ic_stride)], Axis(plan.group_outputs, oc_stride), plan.tile.columns, plan.dtype,
    )  # fmt: skip
    return pack(panels, f"{spec.name}.weights", spec.name, spec.nodes)


def tile_lines(plan: ConvTile, table: ArgTable, weights: str) -> tuple[list[str], list[str]]:
    """Lines that compute the tile at (``oh0``, ``ow0``) of ``tile_h`` x ``tile_w`` points into ``block``, and the
    names of the microkernels used. ``image`` is the address of the group's first input, ``group`` and
    ``channel_block`` say which of the channels; ``columns`` of them are to be computed."""
    core, tile, patch = plan.core, plan.tile, plan.patch
    size, scope = plan.dtype.itemsize, table.scope(SCRATCH)
    outer, inner = patch.runs()
    kernel_height, taps_wide = core.kernel[0], outer // core.kernel[0]
    run, taps = (table.size(v) for v in (inner, outer))
    pitches = patch.pitch * size, plan.group_inputs * size
    step_h, step_w = (table.size(p * s) for p, s in zip(pitches, core.stride, strict=True))
    tap_h, tap_w = (table.size(p * d) for p, d in zip(pitches, core.dilation, strict=True))
    panels = table.size(ceil_div(plan.group_outputs, tile.columns))
    panel_bytes = table.size(plan.depth * tile.columns * size)
    channels = table.size(plan.channels)
    sizes = heights(None if plan.ragged else plan.size[0] * plan.size[1], tile)
    names = [tile.name(plan.dtype, height, True, True) for height in sizes]
    half = sizes[-1]
    high = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} if rows - r > {half} else {half}"
    at = f"r * {taps} + tap * high + i"
    first_input = total("patch", times("r", step_h), times("s", step_w))
    first_panel = f"group * {panels} + channel_block * {table.size(plan.channels // tile.columns)}"
    entry = total(times("kh", tap_h), times("kw", tap_w))
    call = (
        f"{{tile}}({taps}, {run}, {size}, table + r * {taps} * 8, panel, {tile.columns * size}, "
        f"block + (r * {channels} + c) * {size}, {channels} * {size}, 0)"
    )
    lines = [
        *patch.copy_lines(table, scope),
        "rows = tile_h * tile_w",
        *loop("r", "0", "tile_h", loop("s", "0", "tile_w", [
            store(dtypes.i64, "bases", "r * tile_w + s", first_input, scope)
        ])),
        *loop("r", "rows", f"rows + {tile.rows - 1}", [
            store(dtypes.i64, "bases", "r", load(dtypes.i64, "bases", "rows - 1", scope), scope)
        ]),
        f"for r in range(0, rows, {tile.rows}):",
        f"    high = {high}",
        "    tap = 0",
        *indent(loop("kh", "0", table.size(kernel_height), loop("kw", "0", table.size(taps_wide), [
            f"moved = {entry}",
            *loop("i", "0", "high", [
                store(dtypes.i64, "table", at, f"{load(dtypes.i64, 'bases', 'r + i', scope)} + moved", scope)
            ]),
            "tap += 1",
        ]))),
        f"panel = {weights} + ({first_panel}) * {panel_bytes}",
        f"for c in range(0, columns, {tile.columns}):",
        *indent(row_blocks(names, sizes, call)),
        f"    panel += {panel_bytes}",
    ]  # fmt: skip
    return lines, names


def lower_conv2d(spec: KernelSpec) -> Lowered:
    """The calls for ``spec``, whose core is a Conv2d: one packs the weights, one convolves and runs the body."""
    core = spec.core
    assert isinstance(core, Conv2d)
    plan = plan_tile(core, core.out_size, lambda _, points: points)
    packed = pack_weights(spec, plan)
    table = ArgTable()
    size = plan.dtype.itemsize
    tiles = [ceil_div(n, t) for n, t in zip(core.out_size, plan.size, strict=True)]
    space = (spec.axes[0], *tiles, core.groups, plan.channel_blocks)
    split, (n, tile_y, tile_x, group, channel_block) = outer_indices(table, space, "task")
    lines = [*split, f"group = {group}", f"channel_block = {channel_block}"]
    for axis, (index, letter) in enumerate(((tile_y, "h"), (tile_x, "w"))):
        limit, step = table.size(core.out_size[axis]), table.size(plan.size[axis])
        lines += [f"o{letter}0 = {times(index, step)}", f"tile_{letter} = minimum({step}, {limit} - o{letter}0)"]
    lines += image_lines(plan, table, n)
    computed, names = tile_lines(plan, table, table.pointer(packed.buffer.name))
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, 4, table,
                          core={0: load(plan.dtype, "values", "j", table.scope(SCRATCH))})  # fmt: skip
    start = [*scratch_lines(plan.scratch(), table), *emitter.start()]
    lines += [*computed, *emitter.enter(0, n)]
    by_row = ["oh = oh0 + r", *emitter.enter(1, "oh")]
    by_column = ["ow = ow0 + s", *emitter.enter(2, "ow"),
                 f"values = block + (r * tile_w + s) * {table.size(plan.channels)} * {size}"]  # fmt: skip
    inside = emitter.enter(3, "channel0 + j", inline=True)
    lines += loop("r", "0", "tile_h", by_row + loop("s", "0", "tile_w", by_column + loop("j", "0", "columns", inside)))
    code = kernel(f"conv2d_{plan.dtype}", [*start, *loop("task", "lo", "hi", lines)], table,
                  modules={"runtime.cpu.microkernel": names})  # fmt: skip
    reads = dict.fromkeys([core.x.buffer, packed.buffer.name, *(access.buffer for access in spec.reads)])
    writes = dict.fromkeys(access.buffer for access in spec.writes)
    main = Call(code.key, spec.name, table.args, product(space), tuple(reads), tuple(writes), plan.scratch()["end"],
                spec.nodes)  # fmt: skip
    return Lowered((packed.call, main), (packed.kernel, code), (packed.buffer,))


def scratch_lines(parts: dict[str, int], table: ArgTable) -> list[str]:
    """Name the parts of the scratch memory."""
    return [f"{name} = {total('scratch', table.size(at))}" for name, at in parts.items() if name != "end"]


def image_lines(plan: ConvTile, table: ArgTable, n: str) -> list[str]:
    """``image``, the address of image ``n`` at the group's first channel, and the task's range of output channels."""
    core = plan.core
    x = table.pointer(core.x.buffer, core.x.offset * core.x.dtype.itemsize)
    n_stride, c_stride = (table.size(core.x.strides[axis]) for axis in (0, 3))
    first = times(f"group * {table.size(plan.group_inputs)}", c_stride)
    outputs = table.size(plan.group_outputs)
    return [
        f"image = {x} + ({total(times(n, n_stride), first)}) * {core.x.dtype.itemsize}",
        f"first_channel = channel_block * {table.size(plan.channels)}",
        f"columns = minimum({table.size(plan.channels)}, {outputs} - first_channel)",
        f"channel0 = group * {outputs} + first_channel",
    ]
