"""Lowering a convolution of any images: a tile of outputs is computed, and the body run on it.

Where padding is worth leaving out (see conv_parts.py) the whole tile is computed first, else a few points at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine import dtypes
from engine.dims import Size, ceil_div, product
from engine.program import Call, Lowered, Pointer
from engine.schedule import Access, Conv2d, KernelSpec
from runtime.cpu.conv import (
    POINTS,
    ConvTile,
    image_lines,
    pack_weights,
    plan_tile,
    tile_lines,
    tile_tasks,
    whole_tiles,
)
from runtime.cpu.conv_moments import Moments, pointwise, with_moments
from runtime.cpu.conv_parts import part_lines, worth_parting
from runtime.cpu.emit import kernel
from runtime.cpu.scratch import scratch_lines
from runtime.cpu.tiles import LINE, host_tile
from runtime.cpu.turned import square_lines, turning
from runtime.emit import SCRATCH, ArgTable, BodyEmitter, indent, load, loop


def lower_conv2d(spec: KernelSpec) -> Lowered:
    """The calls for ``spec``, whose core is a Conv2d: one packs the weights, one convolves and runs the body, one joins
    the moments of tiles where these are wanted."""
    return with_moments(spec, *lower_tiles(spec))


def lower_tiles(spec: KernelSpec) -> tuple[Lowered, Size]:
    """The calls but the last, and how many tiles leave moments."""
    core = spec.core
    assert isinstance(core, Conv2d)
    plan = plan_tile(core, core.out_size, lambda _, points: points)
    packed = pack_weights(spec, plan)
    table = ArgTable()
    moments = Moments(spec, plan.dtype, plan.channels, table) if spec.reduced else None
    spec = pointwise(spec)
    rows = writes_rows(spec)
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, 4, table,
                          core={0: load(plan.dtype, "values", "s" if rows else "j", table.scope(SCRATCH))})  # fmt: skip
    if not rows and worth_parting(plan):
        parts, task, names = _in_parts(plan, emitter, table, packed.buffer.name, moments)
    else:
        parts, task, names = _in_blocks(plan, emitter, table, packed.buffer.name, spec.writes if rows else (), moments)
    place = ["oh0 = tile_y", "ow0 = tile_x", "tile_h = tile_rows", "tile_w = tile_columns"]
    tiles: Size = 0
    if moments is None:
        tasks, walk = tile_tasks(plan, table, spec.axes[0], core.out_size, [*place, *task])
    else:
        tasks, walk = whole_tiles(plan, table, spec.axes[0], [*place, *task])
        tiles = spec.axes[0] * product(map(ceil_div, core.out_size, plan.points))
    lines = [*scratch_lines(parts, table), *emitter.start(), *walk]
    code = kernel(f"conv2d_{plan.dtype}", lines, table,
                  modules={"runtime.cpu.microkernel": names,
                           **turning(plan.dtype, plan.tile.lanes, host_tile(plan.dtype).lanes)})  # fmt: skip
    reads = dict.fromkeys([core.x.buffer, packed.buffer.name, *(access.buffer for access in spec.reads)])
    writes = dict.fromkeys([*(access.buffer for access in spec.writes), *(moments.names if moments else ())])
    main = Call(code.key, spec.name, table.args, tasks, tuple(reads), tuple(writes), parts["end"],
                spec.nodes)  # fmt: skip
    return Lowered((packed.call, main), (packed.kernel, code), (packed.buffer,)), tiles


def writes_rows(spec: KernelSpec) -> bool:
    """Whether the results of a channel lie side by side along a row of the image, but not those of a point."""
    return bool(spec.writes) and all(access.strides[2] == 1 != access.strides[3] for access in spec.writes)


def _in_parts(plan: ConvTile, emitter: BodyEmitter, table: ArgTable, weights: str,
              moments: Moments | None) -> tuple[dict[str, int], list[str], list[str]]:  # fmt: skip
    """The scratch memory, lines that make a task's whole tile part by part and then run the body on it, and the names
    of the microkernels."""
    multiply, names = part_lines(plan, table)
    image = emitter.enter(0, "n")
    row = ["oh = oh0 + r", *emitter.enter(1, "oh")]
    column = ["ow = ow0 + s", *emitter.enter(2, "ow")]
    column.append(f"values = {load(dtypes.i64, 'where', 'r * tile_w + s', table.scope(SCRATCH))}")
    inside = emitter.enter(3, "channel0 + j", inline=True)
    body = loop("r", "0", "tile_h", [*row, *loop("s", "0", "tile_w", [*column, *loop("j", "0", "columns", inside)])])
    more: dict[str, int] = {}
    if moments is not None:
        multiply += [*moments.start, *moments.block("block", "tile_h * tile_w"), *moments.finish(_TILE)]
        more = moments.parts
    parts = plan.scratch(plan.rows + plan.tile.rows, where=plan.rows * 8, **more)
    return parts, [*image_lines(plan, table, weights), *multiply, *image, *body], names


def _in_blocks(plan: ConvTile, emitter: BodyEmitter, table: ArgTable, weights: str,
               rows: Sequence[Access],
               moments: Moments | None) -> tuple[dict[str, int], list[str], list[str]]:  # fmt: skip
    """The same for a tile that is made a few points at a time. Its results are turned over for the writes
    ``rows``, where there are any."""
    prepare, multiply, names = tile_lines(plan, table, weights)
    whole = math.lcm(plan.tile.rows, plan.tile.lanes) if rows else plan.tile.rows
    points = -(-POINTS // whole) * whole
    image = emitter.enter(0, "n")
    by_row = [
        "oh = oh0 + quotient(at, tile_w)",
        *emitter.enter(1, "oh"),
        "start = at - (oh - oh0) * tile_w",
        "stop = minimum(tile_w, start + stop_row - at)",
    ]
    walk = by_channel if rows else _by_point
    before, inside = walk(plan, emitter, points)
    claim = claim_rows(rows, table) if rows else []
    more = {"turned": points * plan.channels * plan.dtype.itemsize} if rows else {}
    finish: list[str] = []
    if moments is not None:
        prepare += moments.start
        multiply += moments.block("block", "stop_row - first_row")
        finish = moments.finish(_TILE)
        more |= moments.parts
    lines = [
        *prepare,
        *image,
        f"for first_row in range(0, rows, {points}):",
        *indent([
            f"stop_row = minimum(first_row + {points}, rows)",
            *claim,
            *multiply,
            *before,
            "at = first_row",
            "while at < stop_row:",
            *indent([*by_row, *inside, "at += stop - start"]),
        ]),
        *finish,
    ]  # fmt: skip
    return plan.scratch(points, **more), lines, names


_TILE = "(n * tile_column_count + tile_column) * tile_row_count + tile_row"
"""The number of a whole tile."""


def claim_rows(writes: Sequence[Access], table: ArgTable, width: str = "tile_w", row: str = "oh0 + down",
               column: str = "ow0") -> list[str]:  # fmt: skip
    """Lines that ask for the cache lines which the points ``first_row .. stop_row`` of the tile will be written to,
    row by row of the image: while they come, the points are multiplied. The tile is ``width`` points wide, its rows
    are each ``row`` of the image, and ``column`` is its first."""
    lines = []
    for i, out in enumerate(writes):
        size = out.dtype.itemsize
        table.declare(**{f"claim{i}": Pointer(out.buffer, out.offset * size)})
        table.declare(**{f"claim{i}_{axis}": out.strides[k] for k, axis in ((0, "n"), (1, "h"), (3, "c"))})
        lines += [
            f"corner = claim{i} + (n * claim{i}_n + ({row}) * claim{i}_h + {column} + across + channel0 * claim{i}_c)"
            f" * {size}",
            *loop("j", "0", "columns", [f"claim(corner + j * claim{i}_c * {size})"]),
        ]
    step = LINE // min(out.dtype.itemsize for out in writes)
    return [
        f"for first in range(first_row, stop_row + {step - 1}, {step}):",
        *indent(["point = minimum(first, stop_row - 1)", f"down = quotient(point, {width})",
                 f"across = point - down * {width}", *lines]),
    ]  # fmt: skip


def _by_point(plan: ConvTile, emitter: BodyEmitter, points: int) -> tuple[list[str], list[str]]:
    """Lines after the products of a block, and those that run the body on its points ``start .. stop`` of a row: one
    after the other, along the channels of each."""
    column = ["ow = ow0 + s", *emitter.enter(2, "ow")]
    inside = emitter.enter(3, "channel0 + j", inline=True)
    step = f"values += block_channels * {plan.dtype.itemsize}"
    return ["values = block"], loop("s", "start", "stop", [*column, *loop("j", "0", "columns", inside), step])


def by_channel(plan: ConvTile, emitter: BodyEmitter, points: int, column: str = "ow0") -> tuple[list[str], list[str]]:
    """The same for an image whose rows lie along memory: the block is turned over, and walked channel by channel.
    ``column`` is the tile's first."""
    channel = [f"values = turned + (j * {points} + at - first_row - start) * {plan.dtype.itemsize}"]
    channel += emitter.enter(3, "channel0 + j")
    inside = emitter.enter(2, f"{column} + s", inline=True)
    turned = square_lines(plan.dtype, plan.tile.lanes, "block", "block_channels", "turned", str(points),
                          "block_channels", str(points))  # fmt: skip
    return turned, loop("j", "0", "columns", [*channel, *loop("s", "start", "stop", inside)])
