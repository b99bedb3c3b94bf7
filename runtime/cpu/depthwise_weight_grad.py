"""Lowering the weight gradient of a depthwise convolution: sums over all points, for a block of channels side by side.

A task takes one part of the batch's tiles and one block of channels. It copies a tile's input into scratch with its
padding (see conv_patch.py) and walks the points of a row a few at a time: every tap's sum is loaded once, gets the
products of these points, and is stored again. A second call adds up the parts and runs the body.
"""

from __future__ import annotations

from engine import dtypes
from engine.buffers import Buffer
from engine.dims import Size, ceil_div, product
from engine.dtypes import DType
from engine.program import Call, Kernel, Lowered, Pointer
from engine.records import dataclass
from engine.schedule import ConvWeightGrad, KernelSpec
from runtime.cpu.contraction import ENOUGH_TASKS
from runtime.cpu.conv_patch import Patch
from runtime.cpu.depthwise import CHANNELS, MOST_TAPS, PATCH_BYTES, WIDEST
from runtime.cpu.emit import kernel
from runtime.cpu.scratch import scratch_lines, scratch_parts
from runtime.cpu.tiles import host_tile
from runtime.cpu.turned import square_lines
from runtime.emit import SCRATCH, ArgTable, BodyEmitter, cast, constant, indent, load, loop, store, total
from runtime.tasks import coordinates, divisor, piece, typical

UNROLLED = 72
"""About how many products are written out: those of as many points as that leaves."""


def is_depthwise_gradient(core: ConvWeightGrad) -> bool:
    """Whether this kernel serves ``core``: one input and one output a group, a window that can be written out."""
    depthwise = core.group_inputs == core.group_outputs == 1 and core.groups > 1
    return depthwise and core.x.dtype.is_float and core.dy.dtype.is_float and product(core.kernel) <= MOST_TAPS


@dataclass(frozen=True)
class DepthwiseGradTile:
    """The blocking: ``size`` in points of dy, ``channels`` a task, over one of ``chunks`` parts of the tiles."""

    core: ConvWeightGrad
    dtype: DType
    size: tuple[int, int]
    channels: int
    chunks: int

    @property
    def taps(self) -> list[tuple[int, int]]:
        return [(kh, kw) for kh in range(self.core.kernel[0]) for kw in range(self.core.kernel[1])]

    @property
    def points(self) -> int:
        """Points side by side in the innermost loop."""
        return min(max(UNROLLED // len(self.taps), 1), self.size[1])

    @property
    def patch(self) -> Patch:
        return Patch(self.core, self.size, self.channels, self.dtype)

    @property
    def turns(self) -> bool:
        """Whether the rows of dy lie along memory: a tile of it is copied too, and turned over."""
        dy = self.core.dy
        return dy.strides[2] == 1 != dy.strides[3] and dy.dtype == self.dtype and self.patch.turns

    @property
    def blocks(self) -> int:
        return self.core.groups // self.channels

    @property
    def block(self) -> int:
        """The sums of a task: ``[tap][channel]``."""
        return len(self.taps) * self.channels

    @property
    def units(self) -> dict[str, Size]:
        """The tiles of the batch."""
        down, across = (ceil_div(n, t) for n, t in zip(self.core.out_size, self.size, strict=True))
        return {"n": self.core.batch, "tile_y": down, "tile_x": across}


def plan_depthwise_gradient(core: ConvWeightGrad) -> DepthwiseGradTile:
    """Tiles whose patches stay near, and enough parts for the threads."""
    dtype = dtypes.promote(core.x.dtype, core.dy.dtype).computed
    channels = divisor(core.groups, CHANNELS)
    width = piece(core.out_size[1], WIDEST)

    def sized(height: int, chunks: int = 1) -> DepthwiseGradTile:
        return DepthwiseGradTile(core, dtype, (height, width), channels, chunks)

    height = 1
    while height < typical(core.out_size[0]) and sized(height + 1).patch.bytes <= PATCH_BYTES:
        height += 1
    height = piece(core.out_size[0], height)
    found = sized(height)
    return sized(height, max(min(ENOUGH_TASKS // found.blocks, typical(product(found.units.values()))), 1))


def lower_depthwise_weight_grad(spec: KernelSpec) -> Lowered:
    """The calls for ``spec``, whose core is a depthwise ConvWeightGrad: sums, then their total with the body."""
    core = spec.core
    assert isinstance(core, ConvWeightGrad)
    plan = plan_depthwise_gradient(core)
    partial = Buffer(f"{spec.name}.partial", "temp", plan.dtype, plan.chunks * plan.blocks * plan.block)
    sums, sums_code = _sum_tiles(spec, plan, partial)
    combine, combine_code = _combine(spec, plan, partial)
    return Lowered((sums, combine), (sums_code, combine_code), (partial,))


def _sum_tiles(spec: KernelSpec, plan: DepthwiseGradTile, partial: Buffer) -> tuple[Call, Kernel]:
    core, patch, size = plan.core, plan.patch, plan.dtype.itemsize
    table = ArgTable()
    units = product(plan.units.values())
    table.declare(
        x=Pointer(core.x.buffer, core.x.offset * core.x.dtype.itemsize), x_n=core.x.strides[0],
        x_channel=core.x.strides[3], dy=Pointer(core.dy.buffer, core.dy.offset * core.dy.dtype.itemsize),
        partial=Pointer(partial.name), out_h=core.out_size[0], out_w=core.out_size[1], tall=plan.size[0],
        wide=plan.size[1], step_h=patch.step(0), step_w=patch.step(1), block_size=plan.block, units=units,
        per_chunk=ceil_div(units, plan.chunks), dilation_h=core.dilation[0],
        **{f"dy_{name}": stride for name, stride in zip(("n", "h", "w", "c"), core.dy.strides, strict=True)},
    )  # fmt: skip
    zero = store(plan.dtype, "block", "v", constant(0, plan.dtype), table.scope(partial.name))
    row = [
        f"whole = quotient(tile_w, {plan.points}) * {plan.points}",
        f"for s in range(0, whole, {plan.points}):",
        *indent(_point_lines(plan, table, partial.name, plan.points)),
    ]
    if plan.points > 1:
        row += loop("s", "whole", "tile_w", _point_lines(plan, table, partial.name, 1))
    unit = [
        *coordinates(table, "unit", plan.units),
        "oh0 = tile_y * tall",
        "ow0 = tile_x * wide",
        "tile_h = minimum(tall, out_h - oh0)",
        "tile_w = minimum(wide, out_w - ow0)",
        f"image = x + (n * x_n + channel0 * x_channel) * {core.x.dtype.itemsize}",
        *patch.copy_lines(table, table.scope(SCRATCH)),
        *(_turn_lines(plan, table) if plan.turns else []),
        *(f"row_{kh} = {kh} * dilation_h * pitch" for kh in range(core.kernel[0])),
        *loop("r", "0", "tile_h", row),
    ]
    task = [
        *coordinates(table, "task", {"chunk": plan.chunks, "channel_block": plan.blocks}),
        "channel0 = channel_block * channels",
        f"block = partial + task * block_size * {size}",
        *loop("v", "0", "block_size", [zero]),
        *loop("unit", "chunk * per_chunk", "minimum((chunk + 1) * per_chunk, units)", unit),
    ]
    sizes = {"patch": patch.bytes}
    if plan.turns:
        sizes["slopes"] = plan.size[0] * plan.size[1] * plan.channels * size
    parts = scratch_parts(sizes)
    lines = [*scratch_lines(parts, table), *loop("task", "lo", "hi", task)]
    code = kernel(f"depthwise_weight_grad_{plan.dtype}", lines, table, modules=patch.modules)
    made = Call(code.key, f"{spec.name} tiles", table.args, plan.chunks * plan.blocks, (core.x.buffer, core.dy.buffer),
                (partial.name,), parts["end"], spec.nodes)  # fmt: skip
    return made, code


def _turn_lines(plan: DepthwiseGradTile, table: ArgTable) -> list[str]:
    """Lines that copy the tile of dy into ``slopes``, its channels side by side."""
    size, lanes, dy = plan.dtype.itemsize, host_tile(plan.dtype).lanes, plan.core.dy
    value = load(dy.dtype, "line", "c * dy_c + s", table.scope(dy.buffer))
    return loop("r", "0", "tile_h", [
        f"line = dy + (n * dy_n + (oh0 + r) * dy_h + ow0 + channel0 * dy_c) * {size}",
        f"turned = slopes + r * wide * channels * {size}",
        f"if tile_w >= {lanes}:",
        *indent(square_lines(plan.dtype, lanes, "line", "dy_c", "turned", "channels", "tile_w", "channels")),
        "else:",
        *indent(loop("c", "0", "channels", loop("s", "0", "tile_w", [
            store(plan.dtype, "turned", "s * channels + c", value, table.scope(SCRATCH)),
        ]))),
    ])  # fmt: skip


def _point_lines(plan: DepthwiseGradTile, table: ArgTable, partial: str, points: int) -> list[str]:
    """Lines that add the products of ``points`` neighbouring points from column ``s`` of the tile, for all channels."""
    core, held = plan.core, table.scope(partial)
    stride, dilation = core.stride[1], core.dilation[1]
    columns = sorted({p * stride + kw * dilation for p in range(points) for kw in range(core.kernel[1])})
    if plan.turns:
        given, scope, step, channel = plan.dtype, table.scope(SCRATCH), "channels", "j"
        slope = f"slopes + (r * wide + s) * channels * {given.itemsize}"
    else:
        given, scope, step = core.dy.dtype, table.scope(core.dy.buffer), "dy_w"
        channel = "j" if core.dy.strides[3] == 1 else "j * dy_c"
        slope = f"dy + (n * dy_n + (oh0 + r) * dy_h + (ow0 + s) * dy_w + channel0 * dy_c) * {given.itemsize}"
    inside = [
        f"x_{kh}_{c} = {load(plan.dtype, 'corner', f'row_{kh} + column_{c} + j', table.scope(SCRATCH))}"
        for kh in range(core.kernel[0]) for c in columns
    ]  # fmt: skip
    for p in range(points):
        value = load(given, "slope", f"{p} * {step} + {channel}", scope)
        inside.append(f"g_{p} = {cast(value, given.computed, plan.dtype)}")
    for number, (kh, kw) in enumerate(plan.taps):
        place = f"{number} * channels + j"
        products = (f"x_{kh}_{p * stride + kw * dilation} * g_{p}" for p in range(points))
        inside.append(store(plan.dtype, "block", place, total(load(plan.dtype, "block", place, held), *products), held))
    return [
        "corner = patch + r * step_h + s * step_w",
        f"slope = {slope}",
        *(f"column_{c} = {c} * channels" for c in columns),
        *loop("j", "0", "channels", inside),
    ]


def _combine(spec: KernelSpec, plan: DepthwiseGradTile, partial: Buffer) -> tuple[Call, Kernel]:
    """The call that adds up the chunks and runs the body on the total."""
    table = ArgTable()
    scope, read = table.scope(SCRATCH), table.scope(partial.name)
    table.declare(
        partial=Pointer(partial.name), channels=plan.channels, block_size=plan.block, chunks=plan.chunks,
        chunk_bytes=plan.blocks * plan.block * plan.dtype.itemsize, kernel_w=plan.core.kernel[1], taps=len(plan.taps),
    )  # fmt: skip
    parts = scratch_parts({"sums": plan.block * plan.dtype.itemsize})
    held, element = load(plan.dtype, "sums", "v", scope), load(plan.dtype, "block", "v", read)
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, len(spec.axes), table,
                          core={0: load(plan.dtype, "sums", "tap * channels + j", scope)})  # fmt: skip
    start = [*scratch_lines(parts, table), *emitter.start()]
    tap = ["kh = quotient(tap, kernel_w)", *emitter.enter(1, "kh"), *emitter.enter(2, "tap - kh * kernel_w")]
    tap += [*emitter.enter(3, "0"), *emitter.enter(4, "0")]
    task = [
        f"block = partial + task * block_size * {plan.dtype.itemsize}",
        *loop("v", "0", "block_size", [store(plan.dtype, "sums", "v", element, scope)]),
        *loop("chunk", "1", "chunks", [
            "block += chunk_bytes",
            *loop("v", "0", "block_size", [store(plan.dtype, "sums", "v", f"{held} + {element}", scope)]),
        ]),
        *loop("tap", "0", "taps", [
            *tap,
            *loop("j", "0", "channels", emitter.enter(0, "task * channels + j", inline=True)),
        ]),
    ]  # fmt: skip
    code = kernel(f"depthwise_weight_grad_total_{plan.dtype}", [*start, *loop("task", "lo", "hi", task)], table)
    reads = dict.fromkeys([partial.name, *(access.buffer for access in spec.reads)])
    writes = dict.fromkeys(access.buffer for access in spec.writes)
    made = Call(code.key, spec.name, table.args, plan.blocks, tuple(reads), tuple(writes), parts["end"],
                spec.nodes)  # fmt: skip
    return made, code
