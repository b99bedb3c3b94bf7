"""Lowering the weight gradient of a depthwise convolution: sums over all points, for a block of channels side by side.

A task takes one part of the batch's tiles and one block of channels. It copies a tile's input into scratch with its
padding (see conv_patch.py) and walks the points of a row a few at a time: every tap's sum is loaded once, gets the
products of these points, and is stored again. A second call adds up the parts and runs the body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

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
from runtime.cpu.turned import square_lines, turning
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
    def outputs(self) -> int:
        """Channels of dy that a task reads."""
        return self.channels

    @property
    def turns(self) -> bool:
        """Whether the rows of dy lie along memory: a tile of it is copied too, and turned over."""
        dy = self.core.dy
        turns = dy.strides[2] == 1 != dy.strides[3] and dy.dtype == self.dtype
        return turns and self.outputs >= host_tile(self.dtype).lanes

    @property
    def copies(self) -> bool:
        """Whether a tile of dy is copied at all."""
        return self.turns

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


Plan = TypeVar("Plan", bound=DepthwiseGradTile)


def plan_depthwise_gradient(core: ConvWeightGrad) -> DepthwiseGradTile:
    """Tiles whose patches stay near, and enough parts for the threads."""
    dtype = dtypes.promote(core.x.dtype, core.dy.dtype).computed
    plan = DepthwiseGradTile(core, dtype, (1, piece(core.out_size[1], WIDEST)), divisor(core.groups, CHANNELS), 1)
    return planned(plan, PATCH_BYTES)


def planned(plan: Plan, patch_bytes: int) -> Plan:
    """``plan`` with tiles as high as ``patch_bytes`` allow, and enough chunks for the threads."""
    size = plan.core.out_size[0]
    height, width = plan.size
    while height < typical(size) and replace(plan, size=(height + 1, width)).patch.bytes <= patch_bytes:
        height += 1
    plan = replace(plan, size=(piece(size, height), width))
    units = typical(product(plan.units.values()))
    return replace(plan, chunks=max(min(ENOUGH_TASKS // plan.blocks, units), 1))


def lower_depthwise_weight_grad(spec: KernelSpec) -> Lowered:
    """The calls for ``spec``, whose core is a depthwise ConvWeightGrad: sums, then their total with the body."""
    core = spec.core
    assert isinstance(core, ConvWeightGrad)
    plan = plan_depthwise_gradient(core)
    partial = Buffer(f"{spec.name}.partial", "temp", plan.dtype, plan.chunks * plan.blocks * plan.block)
    table = ArgTable()
    row = [
        f"whole = quotient(tile_w, {plan.points}) * {plan.points}",
        f"for s in range(0, whole, {plan.points}):",
        *indent(_point_lines(plan, table, partial.name, plan.points)),
    ]
    if plan.points > 1:
        row += loop("s", "whole", "tile_w", _point_lines(plan, table, partial.name, 1))
    row = [*(f"row_{kh} = {kh} * dilation_h * pitch" for kh in range(core.kernel[0])), *loop("r", "0", "tile_h", row)]
    table.declare(dilation_h=core.dilation[0])
    sums, sums_code = sum_tiles(spec, plan, partial, table, row)
    combine, combine_code = _combine(spec, plan, partial)
    return Lowered((sums, combine), (sums_code, combine_code), (partial,))


def sum_tiles(spec: KernelSpec, plan: DepthwiseGradTile, partial: Buffer, table: ArgTable, walk: list[str],
              start: Sequence[str] = (), parts: Mapping[str, int] = MappingProxyType({}),
              modules: Mapping[str, list[str]] = MappingProxyType({})) -> tuple[Call, Kernel]:  # fmt: skip
    """The call that adds up a chunk's tiles. The lines ``start`` come before all tasks, ``walk`` goes over a tile,
    whose input is in ``patch``, and adds to the sums at ``block``; ``parts`` are what else of scratch they take."""
    core, patch, size = plan.core, plan.patch, plan.dtype.itemsize
    units = product(plan.units.values())
    table.declare(
        x=Pointer(core.x.buffer, core.x.offset * core.x.dtype.itemsize), x_n=core.x.strides[0],
        x_channel=core.x.strides[3], dy=Pointer(core.dy.buffer, core.dy.offset * core.dy.dtype.itemsize),
        partial=Pointer(partial.name), out_h=core.out_size[0], out_w=core.out_size[1], tall=plan.size[0],
        wide=plan.size[1], step_h=patch.step(0), step_w=patch.step(1), block_size=plan.block, units=units,
        per_chunk=ceil_div(units, plan.chunks), outputs=plan.outputs,
        **{f"dy_{name}": stride for name, stride in zip(("n", "h", "w", "c"), core.dy.strides, strict=True)},
    )  # fmt: skip
    zero = store(plan.dtype, "block", "v", constant(0, plan.dtype), table.scope(partial.name))
    unit = [
        *coordinates(table, "unit", plan.units),
        "oh0 = tile_y * tall",
        "ow0 = tile_x * wide",
        "tile_h = minimum(tall, out_h - oh0)",
        "tile_w = minimum(wide, out_w - ow0)",
        f"image = x + (n * x_n + channel_block * channels * x_channel) * {core.x.dtype.itemsize}",
        "channel0 = channel_block * outputs",
        *patch.copy_lines(table, table.scope(SCRATCH)),
        *(_slope_lines(plan, table) if plan.copies else []),
        *walk,
    ]
    task = [
        *coordinates(table, "task", {"chunk": plan.chunks, "channel_block": plan.blocks}),
        f"block = partial + task * block_size * {size}",
        *loop("v", "0", "block_size", [zero]),
        *loop("unit", "chunk * per_chunk", "minimum((chunk + 1) * per_chunk, units)", unit),
    ]
    slopes = plan.size[0] * plan.size[1] * plan.outputs * size if plan.copies else 0
    offsets = scratch_parts({"patch": patch.bytes, "slopes": slopes, **parts})
    lines = [*scratch_lines(offsets, table), *start, *loop("task", "lo", "hi", task)]
    turned = turning(plan.dtype, host_tile(plan.dtype).lanes) if patch.turns or plan.turns else {}
    code = kernel(f"depthwise_weight_grad_{plan.dtype}", lines, table, modules=turned | dict(modules))
    made = Call(code.key, f"{spec.name} tiles", table.args, plan.chunks * plan.blocks, (core.x.buffer, core.dy.buffer),
                (partial.name,), offsets["end"], spec.nodes)  # fmt: skip
    return made, code


def _slope_lines(plan: DepthwiseGradTile, table: ArgTable) -> list[str]:
    """Lines that copy the tile of dy into ``slopes``, its channels side by side."""
    lanes, dy = host_tile(plan.dtype).lanes, plan.core.dy
    at = total("c" if dy.strides[3] == 1 else "c * dy_c", "s" if dy.strides[2] == 1 else "s * dy_w")
    value = cast(load(dy.dtype, "line", at, table.scope(dy.buffer)), dy.dtype.computed, plan.dtype)
    copied = loop("s", "0", "tile_w", loop("c", "0", "outputs", [
        store(plan.dtype, "turned", "s * outputs + c", value, table.scope(SCRATCH)),
    ]))  # fmt: skip
    if plan.turns:
        copied = [
            f"if tile_w >= {lanes}:",
            *indent(square_lines(plan.dtype, lanes, "line", "dy_c", "turned", "outputs", "tile_w", "outputs")),
            "else:",
            *indent(copied),
        ]
    return loop("r", "0", "tile_h", [
        f"line = dy + (n * dy_n + (oh0 + r) * dy_h + ow0 * dy_w + channel0 * dy_c) * {dy.dtype.itemsize}",
        f"turned = slopes + r * wide * outputs * {plan.dtype.itemsize}",
        *copied,
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
    """The call that adds up the chunks and runs the body on the total, for the channels of one block a task."""
    table = ArgTable()
    table.declare(channels=plan.channels, kernel_w=plan.core.kernel[1], taps=len(plan.taps))

    def body(emitter: BodyEmitter) -> list[str]:
        tap = ["kh = quotient(tap, kernel_w)", *emitter.enter(1, "kh"), *emitter.enter(2, "tap - kh * kernel_w")]
        tap += [*emitter.enter(3, "0"), *emitter.enter(4, "0")]
        inside = emitter.enter(0, "task * channels + j", inline=True)
        return loop("tap", "0", "taps", [*tap, *loop("j", "0", "channels", inside)])

    return add_chunks(spec, plan, partial, table, plan.block, plan.blocks, "tap * channels + j", body)


def add_chunks(
    spec: KernelSpec, plan: DepthwiseGradTile, partial: Buffer, table: ArgTable, count: int, tasks: Size, place: str,
    body: Callable[[BodyEmitter], list[str]],
) -> tuple[Call, Kernel]:  # fmt: skip
    """The call that adds up ``count`` sums of every chunk in each of ``tasks``, and runs ``body`` on their total, of
    which it meets the element at ``place``."""
    scope, read, size = table.scope(SCRATCH), table.scope(partial.name), plan.dtype.itemsize
    table.declare(
        partial=Pointer(partial.name), part_size=count, chunks=plan.chunks, chunk_bytes=plan.blocks * plan.block * size,
    )  # fmt: skip
    parts = scratch_parts({"sums": count * size})
    held, element = load(plan.dtype, "sums", "v", scope), load(plan.dtype, "part", "v", read)
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, len(spec.axes), table,
                          core={0: load(plan.dtype, "sums", place, scope)})  # fmt: skip
    start = [*scratch_lines(parts, table), *emitter.start()]
    task = [
        f"part = partial + task * part_size * {size}",
        *loop("v", "0", "part_size", [store(plan.dtype, "sums", "v", element, scope)]),
        *loop("chunk", "1", "chunks", [
            "part += chunk_bytes",
            *loop("v", "0", "part_size", [store(plan.dtype, "sums", "v", f"{held} + {element}", scope)]),
        ]),
        *body(emitter),
    ]  # fmt: skip
    code = kernel(f"grouped_weight_grad_total_{plan.dtype}", [*start, *loop("task", "lo", "hi", task)], table)
    reads = dict.fromkeys([partial.name, *(access.buffer for access in spec.reads)])
    writes = dict.fromkeys(access.buffer for access in spec.writes)
    made = Call(code.key, spec.name, table.args, tasks, tuple(reads), tuple(writes), parts["end"], spec.nodes)
    return made, code
