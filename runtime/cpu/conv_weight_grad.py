"""Lowering the weight gradient of a convolution: partial sums over parts of the batch, then their total.

One tile of one image is a product: its rows are (input channel, tap), read from the padded copy of the image that
the convolution uses too; its columns are output channels; k runs over the tile's points. A task adds up the tiles of
one chunk of the batch for one block of channels. How many chunks there are depends on shapes alone; where it is one,
sums stay in scratch and the body runs on them there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from engine import dtypes
from engine.buffers import Buffer
from engine.dims import Size, ceil_div, product
from engine.dtypes import DType
from engine.errors import UnsupportedError
from engine.program import Call, Kernel, Lowered, Pointer
from engine.records import dataclass
from engine.schedule import ConvWeightGrad, KernelSpec
from runtime.axes import all_strides, groups, regroup, reordered
from runtime.cpu.contraction import ENOUGH_TASKS, fitting, row_blocks
from runtime.cpu.conv_patch import Patch
from runtime.cpu.emit import kernel
from runtime.cpu.scratch import scratch_lines, scratch_parts
from runtime.cpu.tiles import Tile, host_tile, transpose_name
from runtime.cpu.turned import square_lines, turning
from runtime.emit import SCRATCH, ArgTable, BodyEmitter, cast, constant, indent, load, loop, note, store
from runtime.tasks import coordinates, divisor, piece, typical

ByTap = Callable[[list[str]], list[str]]
"""What puts lines into a loop over taps: row ``kh`` and column ``kw`` of the window, in all number ``tap``."""

TILE_BYTES = 32768
"""The most that a tile's part of dy, or of x, should take: both stay in the first-level cache."""
WIDEST = 64
"""The most columns of a tile."""
ROWS = 160
"""About how many (input channel, tap) rows a task computes where it copies the image: few, so that the copy stays near
beside a panel of dy."""
PIXEL_ROWS = 320
"""The same where it reads the image in place."""
PANELS = 4
"""The most panels of output channels that a task computes."""
POINTS = 128
"""The most points of a tile of single pixels that are read where they lie."""


@dataclass(frozen=True)
class GradTile:
    """The blocking of a weight gradient. ``size`` is a tile in output points; a task computes ``inputs`` x
    ``outputs`` channels of a group over one of ``chunks`` parts of the tiles of the batch."""

    core: ConvWeightGrad
    tile: Tile
    dtype: DType
    size: tuple[int, int]
    inputs: int
    outputs: int
    chunks: int

    @property
    def patch(self) -> Patch:
        return Patch(self.core, self.size, self.inputs, self.dtype)

    @property
    def rows(self) -> int:
        """Rows of a task's block."""
        return self.core.kernel[0] * self.core.kernel[1] * self.inputs

    @property
    def block(self) -> int:
        """Elements of a task's block, filled up to whole microkernels, and to whole squares of a vector's width."""
        whole = math.lcm(self.tile.rows, self.tile.lanes)
        return -(-self.rows // whole) * whole * self.outputs

    @property
    def points(self) -> int:
        return self.size[0] * self.size[1]

    @property
    def channel_blocks(self) -> tuple[int, int]:
        """Blocks of input and of output channels in a group."""
        return self.core.group_inputs // self.inputs, -(-self.core.group_outputs // self.outputs)

    @property
    def tiles(self) -> tuple[Size, Size]:
        """Tiles of an image, down and across."""
        height, width = (ceil_div(n, t) for n, t in zip(self.core.out_size, self.size, strict=True))
        return height, width

    @property
    def reads_pixels(self) -> bool:
        """Whether rows are read where they lie: every point of dy meets one pixel."""
        return _meets_pixels(self.core) and self.core.x.dtype == self.dtype

    @property
    def reads_rows(self) -> bool:
        """The same, of pixels that lie side by side along a row."""
        return self.reads_pixels and self.core.x.strides[2] * self.core.stride[1] == 1

    @property
    def in_place(self) -> bool:
        """Whether the rows of a tile of dy can be read where they lie: evenly spaced, whole vectors, and not so far
        apart that they fall on each other in the cache."""
        dy, width = self.core.dy, self.core.out_size[1]
        spacing = dy.strides[2]
        return (
            dy.dtype == self.dtype and dy.strides[3] == 1 and self.core.group_outputs % self.outputs == 0
            and dy.strides[1] == width * spacing and width == self.size[1]
            and isinstance(spacing, int) and spacing * self.dtype.itemsize % 256 != 0
        )  # fmt: skip


def plan_grad(core: ConvWeightGrad) -> GradTile:
    """The blocking for ``core``. Raises UnsupportedError for dtypes that have no microkernel."""
    dtype = dtypes.promote(core.x.dtype, core.dy.dtype)
    if not dtype.is_float:
        raise UnsupportedError(f"the CPU convolves floats only, not {core.x.dtype} with {core.dy.dtype}")
    dtype = dtype.computed
    tile = fitting(host_tile(dtype), core.group_outputs)
    most = PIXEL_ROWS if _meets_pixels(core) else ROWS
    inputs = divisor(core.group_inputs, max(most // (core.kernel[0] * core.kernel[1]), 1))
    panels = -(-core.group_outputs // tile.columns)
    outputs = -(-panels // -(-panels // PANELS)) * tile.columns

    def sized(size: tuple[int, int], chunks: int = 1) -> GradTile:
        return GradTile(core, tile, dtype, size, inputs, outputs, chunks)

    def fits(height: int) -> bool:
        trial = sized((height, width))
        return max(trial.points * tile.columns * dtype.itemsize, trial.patch.bytes) <= TILE_BYTES

    if core.out_size[0] == 1 and sized((1, 1)).reads_pixels:
        width = piece(core.out_size[1], POINTS)
    else:
        width = piece(core.out_size[1], WIDEST)
    height = 1
    while height < WIDEST and fits(height + 1):
        height += 1
    size = piece(core.out_size[0], height), width
    blocks = core.groups * product(sized(size).channel_blocks)
    units = typical(core.batch * product(sized(size).tiles))
    return sized(size, max(min(ENOUGH_TASKS // typical(blocks), units), 1))


def lower_conv_weight_grad(spec: KernelSpec) -> Lowered:
    """The calls for ``spec``, whose core is a ConvWeightGrad: one, or partial sums, then their total with the body."""
    core = spec.core
    assert isinstance(core, ConvWeightGrad)
    plan = plan_grad(_in_one_row(core))
    if plan.chunks == 1:
        made, code = _sum_tiles(spec, plan, None)
        return Lowered((made,), (code,))
    blocks = plan.chunks * core.groups * product(plan.channel_blocks)
    partial = Buffer(f"{spec.name}.partial", "temp", plan.dtype, blocks * plan.block)
    sums, sums_code = _sum_tiles(spec, plan, partial)
    total, total_code = combine(spec, plan, partial)
    return Lowered((sums, total), (sums_code, total_code), (partial,))


def _meets_pixels(core: ConvWeightGrad) -> bool:
    return core.kernel == (1, 1) and core.padding == (0, 0)


def _in_one_row(core: ConvWeightGrad) -> ConvWeightGrad:
    """``core`` over images of one row where every point meets its own pixel, and both images' rows follow on one
    another."""
    height, width = core.out_size
    follow = all(access.strides[1] == width * access.strides[2] for access in (core.x, core.dy))
    if not (_meets_pixels(core) and core.stride == (1, 1) and follow):
        return core
    return replace(core, in_size=(1, height * width), out_size=(1, height * width))


def _sum_tiles(spec: KernelSpec, plan: GradTile, partial: Buffer | None) -> tuple[Call, Kernel]:
    """The call that adds up chunks of the batch into ``partial`` or, where there is none, all of it, and then runs the
    body."""
    core, tile, size = plan.core, plan.tile, plan.dtype.itemsize
    table = ArgTable()
    scope = table.scope(SCRATCH)
    units = core.batch * product(plan.tiles)
    table.declare(
        x=Pointer(core.x.buffer, core.x.offset * core.x.dtype.itemsize), x_n=core.x.strides[0], x_c=core.x.strides[3],
        dy=Pointer(core.dy.buffer, core.dy.offset * core.dy.dtype.itemsize), dy_n=core.dy.strides[0],
        dy_h=core.dy.strides[1], dy_w=core.dy.strides[2], dy_channel=core.dy.strides[3],
        group_inputs=core.group_inputs, group_outputs=core.group_outputs, inputs=plan.inputs, outputs=plan.outputs,
        out_h=core.out_size[0], out_w=core.out_size[1], tall=plan.size[0], wide=plan.size[1], rows=plan.rows,
        block_size=plan.block, units=units, per_chunk=ceil_div(units, plan.chunks), kernel_w=core.kernel[1],
        taps=product(core.kernel),
    )  # fmt: skip
    space: dict[str, Size] = {"chunk": plan.chunks, "group": core.groups}
    space |= dict(zip(("in_block", "out_block"), plan.channel_blocks, strict=True))
    sizes = [tile.rows, tile.rows // 2]
    unit_k = plan.reads_rows
    names = [tile.name(plan.dtype, height, unit_k, not plan.in_place) for height in sizes]
    parts = {"table": (plan.rows + tile.rows) * plan.size[0] * 8}
    if partial is None:
        finish = Finish(spec, plan, table)
        parts |= {"block": plan.block * size, **finish.parts}
        place, target, before, last = [], scope, finish.emitter.start(), finish.block_lines()
        modules, accesses, writes = finish.modules, spec.reads, [access.buffer for access in spec.writes]
    else:
        table.declare(partial=Pointer(partial.name))
        place, target = [f"block = partial + task * block_size * {size}"], table.scope(partial.name)
        before, last, modules, accesses, writes = [], [], {}, (), [partial.name]
    first_rows, rows_of_tile = _row_lines(plan, table, scope, sizes, parts)
    if plan.in_place:
        fetch, panel, step = [], f"gradient + c * {size}", f"dy_w * {size}"
    else:
        parts["panels"] = plan.points * plan.outputs * size
        table.declare(points=plan.points)
        fetch = _copy_gradient(plan, table, scope)
        panel, step = f"panels + c * points * {size}", str(tile.columns * size)
    call = (
        f"{{tile}}(tile_h, tile_w, step_w, table + r * tall * 8, panel, {step}, "
        f"block + (r * outputs + c) * {size}, outputs * {size}, unit - begin)"
    )
    unit = [
        *coordinates(table, "unit", dict(zip(("n", "tile_y", "tile_x"), (core.batch, *plan.tiles), strict=True))),
        "oh0 = tile_y * tall",
        "ow0 = tile_x * wide",
        "tile_h = minimum(tall, out_h - oh0)",
        "tile_w = minimum(wide, out_w - ow0)",
        f"image = x + (n * x_n + first_input * x_c) * {core.x.dtype.itemsize}",
        *rows_of_tile,
        f"gradient = dy + (n * dy_n + oh0 * dy_h + ow0 * dy_w + channel0 * dy_channel) * {core.dy.dtype.itemsize}",
        *fetch,
        f"for c in range(0, outputs, {tile.columns}):",
        f"    panel = {panel}",
        *indent(row_blocks(names, sizes, call)),
    ]
    zero = store(plan.dtype, "block", "v", constant(0, plan.dtype), target)
    task = [
        *coordinates(table, "task", space),
        "first_input = group * group_inputs + in_block * inputs",
        "channel0 = group * group_outputs + out_block * outputs",
        "columns = minimum(outputs, group_outputs - out_block * outputs)",
        *place,
        "begin = chunk * per_chunk",
        "end = minimum(begin + per_chunk, units)",
        "if begin >= end:",
        *indent(loop("v", "0", "block_size", [zero])),
        *loop("unit", "begin", "end", unit),
        *last,
    ]
    offsets = scratch_parts(parts)
    lines = [*scratch_lines(offsets, table), *before, *first_rows, *loop("task", "lo", "hi", task)]
    code = kernel(f"conv_weight_grad_{plan.dtype}", lines, table,
                  modules={"runtime.cpu.microkernel": names, **modules,
                           **turning(plan.dtype, tile.lanes, host_tile(plan.dtype).lanes)})  # fmt: skip
    reads = dict.fromkeys([core.x.buffer, core.dy.buffer, *(access.buffer for access in accesses)])
    label = spec.name if partial is None else f"{spec.name} tiles"
    made = Call(code.key, label, table.args, product(space.values()), tuple(reads), tuple(dict.fromkeys(writes)),
                offsets["end"], spec.nodes)  # fmt: skip
    return made, code


def _row_lines(plan: GradTile, table: ArgTable, scope: int, sizes: list[int],
               parts: dict[str, int]) -> tuple[list[str], list[str]]:  # fmt: skip
    """Lines before all tasks, and those of a tile of the image at address ``image``, that write down where its rows
    are: in a copy, for which ``parts`` get room, or in the image itself."""
    core, patch, size = plan.core, plan.patch, plan.dtype.itemsize
    if plan.reads_pixels:
        (_, x_h, x_w, _), (stride_h, stride_w) = core.x.strides, core.stride
        table.declare(step_h=x_h * stride_h * size, step_w=x_w * stride_w * size)
        place = [f"base = corner + channel * x_c * {size}"]
    else:
        parts["patch"] = patch.bytes
        table.declare(step_h=patch.step(0), step_w=patch.step(1), tap_h=patch.tap(0), tap_w=patch.tap(1))
        place = [
            "tap = tap_row - channel * taps",
            "kh = quotient(tap, kernel_w)",
            "kw = tap - kh * kernel_w",
            f"base = patch + kh * tap_h + kw * tap_w + channel * {size}",
        ]
    entry = note("table", "r * tall + t * high + i", "base + t * step_h", scope)
    lines = [
        f"for r in range(0, rows, {plan.tile.rows}):",
        f"    high = {sizes[0]} if rows - r > {sizes[1]} else {sizes[1]}",
        *indent(loop("i", "0", "high", [
            "tap_row = minimum(r + i, rows - 1)",
            "channel = quotient(tap_row, taps)",
            *place,
            *loop("t", "0", "tall", [entry]),
        ])),
    ]  # fmt: skip
    if plan.reads_pixels:
        return [], ["corner = image + oh0 * step_h + ow0 * step_w", *lines]
    return lines, patch.copy_lines(table, scope)


def _copy_gradient(plan: GradTile, table: ArgTable, scope: int) -> list[str]:
    """Lines that copy the tile of dy at address ``gradient`` into ``panels``, with zeros beyond ``columns``."""
    dy, tile, size = plan.core.dy, plan.tile, plan.dtype.itemsize
    channel = "(c + j)" if dy.strides[3] == 1 else "(c + j) * dy_channel"
    value = load(dy.dtype, "gradient", f"r * dy_h + s * dy_w + {channel}", table.scope(dy.buffer))
    value = cast(value, dy.dtype.computed, plan.dtype)
    point = [
        f"out = panels + (c * points + (r * tile_w + s) * {tile.columns}) * {size}",
        *loop("j", "0", "present", [store(plan.dtype, "out", "j", value, scope)]),
        *loop("j", "present", str(tile.columns), [store(plan.dtype, "out", "j", constant(0, plan.dtype), scope)]),
    ]
    by_point = loop("r", "0", "tile_h", loop("s", "0", "tile_w", point))
    panel = [f"present = maximum(minimum({tile.columns}, columns - c), 0)"]
    if dy.strides[2] == 1 != dy.strides[3] and dy.dtype == plan.dtype:
        source = f"gradient + (r * dy_h + c * dy_channel) * {size}"
        target = f"panels + (c * points + r * tile_w * {tile.columns}) * {size}"
        width = str(tile.columns)
        panel += [
            f"if tile_w >= {tile.lanes} and present == {width}:",
            *indent(loop("r", "0", "tile_h",
                         square_lines(plan.dtype, tile.lanes, source, "dy_channel", target, width, "tile_w", width))),
            "else:",
            *indent(by_point),
        ]  # fmt: skip
    else:
        panel += by_point
    return [f"for c in range(0, outputs, {tile.columns}):", *indent(panel)]


def combine(spec: KernelSpec, plan: GradTile, partial: Buffer) -> tuple[Call, Kernel]:
    """The call that adds up the chunks and runs the body on the total. A task takes one vector of output channels of
    one block of input channels."""
    core, size, lanes = plan.core, plan.dtype.itemsize, plan.tile.lanes
    table = ArgTable()
    scope, read = table.scope(SCRATCH), table.scope(partial.name)
    table.declare(
        partial=Pointer(partial.name), in_blocks=plan.channel_blocks[0], out_blocks=plan.channel_blocks[1],
        group_outputs=core.group_outputs, block_size=plan.block, chunks=plan.chunks,
        chunk_bytes=core.groups * product(plan.channel_blocks) * plan.block * size,
    )  # fmt: skip
    finish = Finish(spec, plan, table)
    offsets = scratch_parts({"total": finish.padded * lanes * size, **finish.parts})
    lines = [*scratch_lines(offsets, table), *finish.emitter.start()]
    space: dict[str, Size] = {"group": core.groups, "in_block": plan.channel_blocks[0]}
    space["strip"] = ceil_div(core.group_outputs, lanes)
    here, there, at = load(plan.dtype, "to", "j", scope), load(plan.dtype, "row", "j", read), f"r * {lanes * size}"

    def vector(value: str) -> list[str]:
        return loop("j", "0", str(lanes), [store(plan.dtype, "to", "j", value, scope)])

    task = [
        *coordinates(table, "task", space),
        f"first = strip * {lanes}",
        f"columns = minimum({lanes}, group_outputs - first)",
        "out_block = quotient(first, outputs)",
        "number = (group * in_blocks + in_block) * out_blocks + out_block",
        f"start = partial + (number * block_size + first - out_block * outputs) * {size}",
        *loop("r", "0", "rows", [
            f"to = total + {at}",
            f"row = start + r * outputs * {size}",
            *vector(there),
            *loop("chunk", "1", "chunks", ["row += chunk_bytes", *vector(f"{here} + {there}")]),
        ]),
        *finish.start("group"),
        *finish.lines("total", str(lanes * size), "first"),
    ]  # fmt: skip
    code = kernel(f"conv_weight_grad_total_{plan.dtype}", [*lines, *loop("task", "lo", "hi", task)], table,
                  modules=finish.modules)  # fmt: skip
    reads = dict.fromkeys([partial.name, *(access.buffer for access in spec.reads)])
    writes = dict.fromkeys(access.buffer for access in spec.writes)
    made = Call(code.key, spec.name, table.args, product(space.values()), tuple(reads), tuple(writes),
                offsets["end"], spec.nodes)  # fmt: skip
    return made, code


class Finish:
    """Runs the body on sums that lie with output channels side by side.

    Where what the body touches lies so too, it walks the sums as they are, and may leave out taps. Otherwise weights
    lie with the taps of one channel side by side: the sums of one vector of output channels are turned over in scratch,
    and the body walks memory in the order of the weights."""

    def __init__(self, spec: KernelSpec, plan: GradTile, table: ArgTable):
        self.plan, self.table = plan, table
        self.lanes = plan.tile.lanes
        self.padded = -(-plan.rows // self.lanes) * self.lanes
        touched = [(a, 1) for a in spec.writes] + [(a, 0) for a in spec.reads]
        self.along_outputs = all(a.strides[-1] in (1, least) for a, least in touched)
        self.parts: dict[str, int] = {}
        """What scratch it needs."""
        self.modules: dict[str, list[str]] = {}
        table.declare(inputs=plan.inputs, outputs=plan.outputs, rows=plan.rows)
        at = "j" if self.along_outputs else "at"
        if self.along_outputs:
            table.declare(kernel_h=plan.core.kernel[0], kernel_w=plan.core.kernel[1], taps=product(plan.core.kernel))
        else:
            self.parts["sums"] = self.lanes * self.padded * plan.dtype.itemsize
            self.turn = transpose_name(plan.dtype, self.lanes)
            self.modules["runtime.cpu.transpose"] = [self.turn]
            spec, self.inside = _by_output(spec)
            table.declare(padded=self.padded)
        self.emitter = BodyEmitter(spec.body, spec.reads, spec.writes, len(spec.axes), table,
                                   core={0: load(plan.dtype, "values", at, table.scope(SCRATCH))})  # fmt: skip

    def start(self, group: str) -> list[str]:
        """The lines that follow from the number of the group."""
        return self.emitter.enter(0, group)

    def block_lines(self, by_tap: ByTap | None = None) -> list[str]:
        """Lines for all sums of a task's block, at the address ``block``: see :meth:`lines`."""
        step = f"outputs * {self.plan.dtype.itemsize}"
        start = self.start("group")
        if self.along_outputs:
            return [*start, *self.lines("block", step, "out_block * outputs", by_tap)]
        strip = self.lines(f"block + strip * {self.plan.dtype.itemsize}", step, "out_block * outputs + strip")
        return [
            *start,
            "all_columns = columns",
            f"for strip in range(0, all_columns, {self.lanes}):",
            f"    columns = minimum({self.lanes}, all_columns - strip)",
            *indent(strip),
        ]

    def lines(self, source: str, step: str, first: str, by_tap: ByTap | None = None) -> list[str]:
        """Lines for the ``columns`` output channels from ``first`` on, whose sums are at the address ``source``, rows
        ``step`` bytes apart, with room for whole squares: a vector of channels, or any number where these lie side by
        side. Then ``by_tap``, if given, puts lines into a loop over the taps to be visited."""
        if self.along_outputs:
            return self._rows(source, step, first, by_tap or _every_tap)
        return self._turned(source, step, first)

    def _rows(self, source: str, step: str, first: str, by_tap: ByTap) -> list[str]:
        emitter = self.emitter
        taps = [*emitter.enter(1, "kh"), *emitter.enter(2, "kw")]
        channel = emitter.enter(3, "(in_block * inputs + channel)")
        walk = loop("j", "0", "columns", emitter.enter(4, f"({first} + j)", inline=True))
        return by_tap([
            *taps,
            *loop("channel", "0", "inputs", [
                *channel, f"values = {source} + (channel * taps + tap) * {step}", *walk,
            ]),
        ])  # fmt: skip

    def _turned(self, source: str, step: str, first: str) -> list[str]:
        size, emitter = self.plan.dtype.itemsize, self.emitter
        turned = [
            f"for r in range(0, rows, {self.lanes}):",
            f"    {self.turn}({source} + r * {step}, {step}, sums + r * {size}, padded * {size})",
        ]
        channel = [f"channel = {first} + j", *emitter.enter(1, "channel"), f"values = sums + j * padded * {size}"]
        loops = []
        at = ""
        for number, (elements, blocked) in enumerate(self.inside):
            count = self.table.size(self.plan.inputs * elements if blocked else elements)
            variable = f"q{number}"
            at = f"({at}) * {count} + {variable}" if at else variable
            place = f"in_block * {count} + {variable}" if blocked else variable
            head = emitter.enter(2 + number, place, inline=number == len(self.inside) - 1)
            loops.append((variable, count, head))
        variable, count, head = loops.pop()
        walk = loop(variable, "0", count, [f"at = {at}", *head])
        for variable, count, head in reversed(loops):
            walk = loop(variable, "0", count, head + walk)
        return [*turned, *loop("j", "0", "columns", [*channel, *walk])]


def _every_tap(lines: list[str]) -> list[str]:
    return loop("kh", "0", "kernel_h", loop("kw", "0", "kernel_w", ["tap = kh * kernel_w + kw", *lines]))


def _by_output(spec: KernelSpec) -> tuple[KernelSpec, list[tuple[Size, bool]]]:
    """``spec`` over (group, output, ...) with input channels and taps as few axes inside, and for each of those how
    many elements it has, of one input channel where it is the one that runs along the channels."""
    spec = reordered(spec, (0, 4, 3, 1, 2))
    inner = [strides[2:] for strides in all_strides(spec)]
    kept = [tuple(axis + 2 for axis in group) for group in groups(spec.axes[2:], inner)] or [(4,)]
    sizes = [product(spec.axes[axis] for axis in group if axis != 2) for group in kept]
    return regroup(spec, [(0,), (1,), *kept]), [(size, 2 in group) for size, group in zip(sizes, kept, strict=True)]
