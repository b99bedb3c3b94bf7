"""Lowering a convolution of several images that multiplies no padding: points that meet the same taps, of all images.

Along an axis the outputs fall into few runs that meet the same part of the window: the first ones miss its beginning,
the last ones its end. Where runs of rows and of columns cross there is a rectangle of outputs whose sums have one
length. The rectangle's points in all images are the rows of a matrix product, read where they lie; its columns are
weights, of which every row of taps is one run. In small images, as deep layers have them, that leaves out much: of the
products of a window of 3 x 3 a third at 4 x 4 pixels, more than half at 2 x 2.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product as pairs

from engine import dtypes
from engine.dims import Size, ceil_div, product
from engine.program import Call, Kernel, Lowered, Pointer
from engine.records import dataclass
from engine.schedule import Conv2d, KernelSpec
from runtime.conv_taps import Run, is_known, runs_of
from runtime.cpu.contraction import ENOUGH_TASKS, block_height, ends_narrow, fitting, row_blocks
from runtime.cpu.conv import PANELS, computed_dtype
from runtime.cpu.conv_direct import lower_tiles
from runtime.cpu.conv_moments import Moments, pointwise, with_moments
from runtime.cpu.emit import kernel
from runtime.cpu.scratch import scratch_lines, scratch_parts
from runtime.cpu.tiles import Tile, host_tile
from runtime.emit import SCRATCH, ArgTable, BodyEmitter, indent, load, loop, note
from runtime.tasks import coordinates, typical

IMAGES = 32
"""The most images of a task: where a rectangle is one point, so many rows share the weights."""
FEW_IMAGES = 4
"""With fewer images rectangles have too few rows."""
ROWS = 96
"""The most rows that are computed before the body runs on them."""


def reads_inside(core: Conv2d, images: Size) -> bool:
    """Whether this kernel serves ``core`` where there are enough images: pixels lie side by side as numbers that the
    microkernel reads, and there may be enough images at all."""
    return (
        is_known(core) and core.groups == 1 and core.dilation[1] == 1 and core.x.dtype == computed_dtype(core)
        and core.x.strides[2:] == (core.in_channels, 1) and not (isinstance(images, int) and images < FEW_IMAGES)
        and not ends_narrow(core.out_channels, fitting(host_tile(core.x.dtype), core.out_channels))
    )  # fmt: skip


def many(images: Size) -> Size:
    """1 where there are as many images as this kernel wants, else 0."""
    return 1 - 1 // (images // FEW_IMAGES + 1)


@dataclass(frozen=True)
class Rectangle:
    """Rows and columns of outputs that meet the same taps."""

    down: Run
    across: Run

    @property
    def points(self) -> int:
        return self.down.count * self.across.count

    @property
    def cost(self) -> int:
        """Taps met by all points."""
        return self.points * self.down.taps * self.across.taps

    def cut(self, limit: int) -> list[Rectangle]:
        """Parts of whole rows, each of about ``limit`` cost."""
        down = self.down
        height = max(limit * down.count // max(self.cost, 1), 1)
        count = -(-down.count // height)
        edges = [down.count * i // count for i in range(count + 1)]
        return [
            replace(self, down=replace(down, first=down.first + lo, count=hi - lo))
            for lo, hi in zip(edges[:-1], edges[1:], strict=True)
        ]


@dataclass(frozen=True)
class InsidePlan:
    """The blocking: a task computes ``channels`` outputs of the points of one of ``rectangles`` in ``IMAGES``
    images."""

    core: Conv2d
    tile: Tile
    rectangles: tuple[Rectangle, ...]
    channels: int

    def space(self, images: Size) -> dict[str, Size]:
        blocks = -(-self.core.out_channels // self.channels)
        return {"chunk": ceil_div(images, IMAGES), "channel_block": blocks, "part": len(self.rectangles)}


def plan_inside(core: Conv2d, images: Size, tile: Tile) -> InsidePlan:
    """Rectangles of similar cost, and no more channels than leave enough tasks."""
    whole = [Rectangle(down, across) for down, across in pairs(*runs_of(core))]
    limit = -(-sum(r.cost for r in whole) // ENOUGH_TASKS)
    parts = tuple(part for r in whole for part in r.cut(limit))
    panels = -(-core.out_channels // tile.columns)
    for most in range(PANELS, 0, -1):
        plan = InsidePlan(core, tile, parts, -(-panels // -(-panels // most)) * tile.columns)
        if typical(product(plan.space(images).values()), IMAGES) >= ENOUGH_TASKS:
            break
    return plan


def lower_inside(spec: KernelSpec) -> Lowered:
    """The calls for ``spec``, whose core is a Conv2d that :func:`reads_inside`: one packs the weights, and of two that
    convolve one has tasks, which of them depends on the number of images."""
    core, images = spec.core, spec.axes[0]
    assert isinstance(core, Conv2d)
    few, tiles = lower_tiles(spec)
    pack, by_tiles = few.calls
    main, code, parts = _multiply(spec, core, few.buffers[0].name)
    if isinstance(images, int):
        return with_moments(spec, Lowered((pack, main), (few.kernels[0], code), few.buffers), parts)
    enough = many(images)
    calls = replace(main, tasks=main.tasks * enough), replace(by_tiles, tasks=by_tiles.tasks * (1 - enough))
    leaving = parts * enough + tiles * (1 - enough)
    return with_moments(spec, Lowered((pack, *calls), (*few.kernels, code), few.buffers), leaving)


_FIELDS = ("first_h", "count_h", "tap_h", "run_h", "first_w", "count_w", "tap_w", "run_w")
"""What a task is told of its rectangle."""
_NEXT_POINT = ["ow += 1", "if ow == end_w:", "    ow = first_w", "    oh += 1",
               "    if oh == end_h:", "        oh = first_h", "        n += 1"]  # fmt: skip


def _multiply(spec: KernelSpec, core: Conv2d, weights: str) -> tuple[Call, Kernel, Size]:
    """The call that multiplies and runs the body, on ``weights`` as :func:`pack_weights` packs them, and how many parts
    leave moments."""
    dtype, images = computed_dtype(core), spec.axes[0]
    plan = plan_inside(core, images, fitting(host_tile(dtype), core.out_channels))
    tile, size = plan.tile, dtype.itemsize
    table = ArgTable()
    scope = table.scope(SCRATCH)
    moments = Moments(spec, dtype, plan.channels, table) if spec.reduced else None
    spec = pointwise(spec)
    space = plan.space(images)
    table.declare(
        x=Pointer(core.x.buffer, core.x.offset * size), weights=Pointer(weights), x_n=core.x.strides[0],
        x_h=core.x.strides[1], inputs=core.in_channels, stride_h=core.stride[0], stride_w=core.stride[1],
        pad_h=core.padding[0], pad_w=core.padding[1], dilation_h=core.dilation[0], taps_w=core.kernel[1],
        images=images, outputs=core.out_channels, block_channels=plan.channels,
        panel_bytes=product(core.kernel) * core.in_channels * tile.columns * size,
    )  # fmt: skip
    runs_told = [(r.first, r.count, r.tap, r.taps) for part in plan.rectangles for r in (part.down, part.across)]
    parts = table.block(tuple(number for run in runs_told for number in run))
    offsets = scratch_parts({
        "block": ROWS * plan.channels * size, "bases": (ROWS + tile.rows) * 8, "table": ROWS * core.kernel[0] * 8,
        **(moments.parts if moments else {}),
    })  # fmt: skip
    begin, measure, finish = ([], [], []) if moments is None else (
        moments.start, moments.block("block", "here"), moments.finish("chunk * part_count + part"))  # fmt: skip
    names = [tile.name(dtype, height, True, True, "jumps") for height in tile.heights]
    call = (
        f"{{tile}}(run_h, run_w * inputs, {size}, table + r * run_h * 8, panel, tap_row, "
        f"block + (r * block_channels + c) * {size}, block_channels * {size}, 0)"
    )
    base = f"x + (n * x_n + (oh * stride_h + down) * x_h + (ow * stride_w + right) * inputs) * {size}"
    entry = f"{load(dtypes.i64, 'bases', 'r + t', scope)} + kh * dilation_h * x_h * {size}"
    last = load(dtypes.i64, "bases", "here - 1", scope)
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, 4, table,
                          core={0: load(dtype, "values", "j", scope)})  # fmt: skip
    lines = [*scratch_lines(offsets, table), *emitter.start()]
    by_point = [line for axis, name in enumerate(("n", "oh", "ow")) for line in emitter.enter(axis, name)]
    by_channel = emitter.enter(3, "channel0 + j", inline=True)
    start = ["n = from_n", "oh = from_h", "ow = from_w"]
    task = [
        *coordinates(table, "task", space),
        *(f"{name} = slot({parts}, part * {len(_FIELDS)} + {k})" for k, name in enumerate(_FIELDS)),
        "end_h = first_h + count_h",
        "end_w = first_w + count_w",
        "down = tap_h * dilation_h - pad_h",
        "right = tap_w - pad_w",
        f"tap_row = taps_w * inputs * {tile.columns * size}",
        "channel0 = channel_block * block_channels",
        "columns = minimum(block_channels, outputs - channel0)",
        f"first_panel = weights + quotient(channel0, {tile.columns}) * panel_bytes + tap_h * tap_row",
        f"first_panel += tap_w * inputs * {tile.columns * size}",
        f"from_n = chunk * {IMAGES}",
        "from_h = first_h",
        "from_w = first_w",
        f"rows = minimum({IMAGES}, images - from_n) * count_h * count_w",
        *begin,
        f"for first in range(0, rows, {ROWS}):",
        *indent([
            f"here = minimum(rows - first, {ROWS})",
            *start,
            *loop("r", "0", "here", [note("bases", "r", base, scope), *_NEXT_POINT]),
            *loop("r", "here", f"here + {tile.rows - 1}", [note("bases", "r", last, scope)]),
            "at = 0",
            f"for r in range(0, here, {tile.rows}):",
            f"    high = {block_height(tile.heights, 'here - r')}",
            *indent(loop("kh", "0", "run_h", [
                *loop("t", "0", "high", [note("table", "at + t", entry, scope)]),
                "at += high",
            ])),
            "panel = first_panel",
            f"for c in range(0, columns, {tile.columns}):",
            *indent(row_blocks(names, tile.heights, call, "0", "here")),
            "    panel += panel_bytes",
            *measure,
            *start,
            *loop("r", "0", "here", [
                f"values = block + r * block_channels * {size}",
                *by_point,
                *loop("j", "0", "columns", by_channel),
                *_NEXT_POINT,
            ]),
            "from_n = n",
            "from_h = oh",
            "from_w = ow",
        ]),
        *finish,
    ]  # fmt: skip
    code = kernel(f"conv2d_inside_{dtype}", [*lines, *loop("task", "lo", "hi", task)], table,
                  modules={"runtime.cpu.microkernel": names})  # fmt: skip
    reads = dict.fromkeys([core.x.buffer, weights, *(access.buffer for access in spec.reads)])
    writes = dict.fromkeys([*(access.buffer for access in spec.writes), *(moments.names if moments else ())])
    made = Call(code.key, spec.name, table.args, product(space.values()), tuple(reads), tuple(writes), offsets["end"],
                spec.nodes)  # fmt: skip
    return made, code, space["chunk"] * space["part"]
