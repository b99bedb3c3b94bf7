"""Lowering a depthwise convolution: every channel has its own window, and neighbouring channels fill a vector.

A task makes one tile of one image for one block of channels: it copies the tile's input into scratch with its padding
(see conv_patch.py), then walks the points of a row a few at a time. The taps of these points are written out, so an
input that several of them read is loaded once, and their sums go from registers straight into the body.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from engine.dims import Size, ceil_div, product
from engine.dtypes import DType
from engine.program import Call, Lowered, Pointer
from engine.records import dataclass
from engine.schedule import Access, Conv2d, KernelSpec
from runtime.cpu.contraction import ENOUGH_TASKS
from runtime.cpu.conv import computed_dtype, tap_axes
from runtime.cpu.conv_patch import Patch
from runtime.cpu.emit import kernel
from runtime.cpu.factors import take_factor
from runtime.cpu.packing import Axis, Packed, Panels, pack
from runtime.cpu.scratch import scratch_lines, scratch_parts
from runtime.cpu.tiles import host_tile
from runtime.emit import SCRATCH, ArgTable, BodyEmitter, indent, load, loop, total
from runtime.tasks import coordinates, divisor, piece, typical

PATCH_BYTES = 65536
"""The most that the copy of a tile's input should take."""
WIDEST = 32
"""The most output columns of a tile."""
CHANNELS = 64
"""About how many channels a task computes."""
TASK_POINTS = 2048
"""Outputs, over all its channels, below which a tile is not cut further."""
UNROLLED = 40
"""About how many products are written out: those of as many points as that leaves."""
MOST_TAPS = 64
"""Windows with more taps are left to the general kernel."""


def is_depthwise(core: Conv2d) -> bool:
    """Whether this kernel serves ``core``: one input and one output a group, a window that can be written out."""
    return core.group_inputs == core.group_outputs == 1 and core.groups > 1 and product(core.kernel) <= MOST_TAPS


@dataclass(frozen=True)
class DepthwiseTile:
    """The blocking: ``size`` in output points, ``channels`` a task, ``points`` side by side in its innermost loop."""

    core: Conv2d
    dtype: DType
    size: tuple[int, int]
    channels: int
    points: int

    @property
    def patch(self) -> Patch:
        return Patch(self.core, self.size, self.channels, self.dtype)

    @property
    def panel(self) -> int:
        """Elements of a packed row of weights: the channels, filled up to whole vectors."""
        lanes = host_tile(self.dtype).lanes
        return -(-self.channels // lanes) * lanes

    @property
    def remainders(self) -> list[int]:
        """How many points may be left at the end of a tile's row."""
        if not isinstance(self.core.out_size[1], int):
            return list(range(1, self.points))
        widths = {self.size[1], self.core.out_size[1] % self.size[1]}
        return sorted({width % self.points for width in widths} - {0})

    def space(self, images: Size) -> dict[str, Size]:
        down, across = (ceil_div(n, t) for n, t in zip(self.core.out_size, self.size, strict=True))
        return {"n": images, "tile_y": down, "tile_x": across, "channel_block": self.core.groups // self.channels}


def points_together(core: Conv2d, width: int) -> int:
    """How many neighbours the innermost loop computes in a tile so wide."""
    return min(max(UNROLLED // (core.kernel[0] * core.kernel[1]), 1), width)


def plan_depthwise(core: Conv2d, images: Size) -> DepthwiseTile:
    """A tile whose patch stays near, and that leaves enough tasks."""
    dtype = computed_dtype(core)
    channels = divisor(core.groups, CHANNELS)
    width = piece(core.out_size[1], WIDEST)

    def sized(height: int) -> DepthwiseTile:
        return DepthwiseTile(core, dtype, (height, width), channels, points_together(core, width))

    def fits(height: int) -> bool:
        trial = sized(height)
        small = height * width * channels <= TASK_POINTS
        tasks = typical(product(trial.space(images).values()))
        return small or (trial.patch.bytes <= PATCH_BYTES and tasks >= ENOUGH_TASKS)

    height = 1
    while height < typical(core.out_size[0]) and fits(height + 1):
        height += 1
    return sized(piece(core.out_size[0], height))


def lower_depthwise(spec: KernelSpec, lasting: Collection[str] = ()) -> Lowered:
    """The calls for ``spec``, whose core is a depthwise Conv2d: one packs the weights, one convolves and runs the
    body. ``lasting`` names the buffers that stay from call to call."""
    core = spec.core
    assert isinstance(core, Conv2d)
    plan = plan_depthwise(core, spec.axes[0])
    body, factor = take_factor(spec.body, spec.reads, core.w, lasting)
    spec, packed = replace(spec, body=body), pack_windows(spec, plan, factor)
    patch = plan.patch
    table = ArgTable()
    table.declare(
        x=Pointer(core.x.buffer, core.x.offset * core.x.dtype.itemsize), x_n=core.x.strides[0],
        x_channel=core.x.strides[3],
    )  # fmt: skip
    space = plan.space(spec.axes[0])
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, 4, table)
    lines = [*scratch_lines(parts := scratch_parts({"patch": patch.bytes}), table), *emitter.start()]
    rows = [f"row_{kh} = (r * stride_h + {kh} * dilation_h) * pitch" for kh in range(core.kernel[0])]
    before, by_row = row_lines(plan, emitter, table, packed.buffer.name, rows)
    lines += loop("task", "lo", "hi", [
        *coordinates(table, "task", space),
        *place_lines(plan, table),
        f"image = x + (n * x_n + channel0 * x_channel) * {core.x.dtype.itemsize}",
        *patch.copy_lines(table, table.scope(SCRATCH)),
        *before,
        *loop("r", "0", "tile_h", by_row),
    ])  # fmt: skip
    code = kernel(f"depthwise_{plan.dtype}", lines, table, modules=patch.modules)
    reads = dict.fromkeys([core.x.buffer, packed.buffer.name, *(access.buffer for access in spec.reads)])
    writes = dict.fromkeys(access.buffer for access in spec.writes)
    main = Call(code.key, spec.name, table.args, product(space.values()), tuple(reads), tuple(writes), parts["end"],
                spec.nodes)  # fmt: skip
    return Lowered((packed.call, main), (packed.kernel, code), (packed.buffer,))


def pack_windows(spec: KernelSpec, plan: DepthwiseTile, factor: Access | None = None) -> Packed:
    """The call that packs the windows of every block of channels, ``[block][kh, kw][channels]``, times the ``factor``
    of each channel."""
    core = plan.core
    offset, taps = tap_axes(core)
    blocks = Axis(core.groups // plan.channels, plan.channels * core.w_group)
    channels = Axis(plan.channels, core.w_group)
    factor = factor and replace(factor, strides=(plan.channels, 1))
    panels = Panels(core.w.buffer, offset, core.w.dtype, [blocks], taps, channels, plan.panel, plan.dtype, factor)
    return pack(panels, f"{spec.name}.windows", spec.name, spec.nodes)


def place_lines(plan: DepthwiseTile, table: ArgTable) -> list[str]:
    """Lines that say where a task's tile is: its first point, its size, its first channel."""
    core = plan.core
    table.declare(out_h=core.out_size[0], out_w=core.out_size[1], tall=plan.size[0], wide=plan.size[1])
    return [
        "oh0 = tile_y * tall",
        "ow0 = tile_x * wide",
        "tile_h = minimum(tall, out_h - oh0)",
        "tile_w = minimum(wide, out_w - ow0)",
        "channel0 = channel_block * channels",
    ]


Keep = Callable[[BodyEmitter, int], list[str]]
"""Lines behind a body's for point ``s + p`` of a row and channel ``j``, where its values are known."""


def row_lines(plan: DepthwiseTile, emitter: BodyEmitter, table: ArgTable, windows: str, rows: list[str],
              keep: Keep = lambda body, p: []) -> tuple[list[str], list[str]]:  # fmt: skip
    """Lines before the loop over the rows of a tile whose input is in ``patch``, and those that convolve row ``r`` and
    run the body of ``emitter`` on each sum, and ``keep``. ``rows`` set ``row_0``, ``row_1`` and so on: how many
    elements behind ``patch`` the lines of input are that it reads."""
    core, patch = plan.core, plan.patch
    table.declare(
        windows=Pointer(windows), panel_bytes=product(core.kernel) * plan.panel * plan.dtype.itemsize,
        panel_row=plan.panel, step_w=patch.step(1), dilation_h=core.dilation[0],
    )  # fmt: skip
    by_image = emitter.enter(0, "n")
    by_row = ["oh = oh0 + r", *rows, *emitter.enter(1, "oh")]
    by_row += [f"whole = quotient(tile_w, {plan.points}) * {plan.points}"]
    by_row += [f"for s in range(0, whole, {plan.points}):",
               *indent(_point_lines(plan, emitter, table, windows, plan.points, keep))]  # fmt: skip
    for points in plan.remainders:
        by_row += [
            "s = whole",
            f"if tile_w - s == {points}:",
            *indent(_point_lines(plan, emitter, table, windows, points, keep)),
        ]
    return ["panel = windows + channel_block * panel_bytes", *by_image], by_row


def _point_lines(plan: DepthwiseTile, emitter: BodyEmitter, table: ArgTable, weights: str, points: int,
                 keep: Keep) -> list[str]:  # fmt: skip
    """Lines that compute ``points`` neighbouring outputs from column ``s`` of the tile, over all channels."""
    core, scope = plan.core, table.scope(SCRATCH)
    (kernel_h, kernel_w), (_, stride), (_, dilation) = core.kernel, core.stride, core.dilation
    columns = sorted({p * stride + kw * dilation for p in range(points) for kw in range(kernel_w)})
    lines = ["corner = patch + s * step_w", *(f"column_{c} = {c} * channels" for c in columns)]
    taps = [(kh, kw) for kh in range(kernel_h) for kw in range(kernel_w)]
    inside = [
        f"w_{kh}_{kw} = {load(plan.dtype, 'panel', f'{kh * kernel_w + kw} * panel_row + j', table.scope(weights))}"
        for kh, kw in taps
    ]
    inside += [
        f"x_{kh}_{c} = {load(plan.dtype, 'corner', f'row_{kh} + column_{c} + j', scope)}"
        for kh in range(kernel_h) for c in columns
    ]  # fmt: skip
    for p in range(points):
        products = [f"x_{kh}_{p * stride + kw * dilation} * w_{kh}_{kw}" for kh, kw in taps]
        inside.append(f"sum_{p} = {total(*products)}")
    for p in range(points):
        twin = emitter.fork(core={0: f"sum_{p}"}, tag=f"p{points}_{p}_")
        lines += twin.enter(2, f"ow0 + s + {p}")
        inside += [*twin.enter(3, "channel0 + j", inline=True), *keep(twin, p)]
    lanes = host_tile(plan.dtype).lanes
    if plan.channels % lanes:
        return lines + loop("j", "0", "channels", inside)
    by_vector = loop("lane", "0", str(lanes), ["j = first + lane", *inside])
    return [*lines, f"for first in range(0, channels, {lanes}):", *indent(by_vector)]
