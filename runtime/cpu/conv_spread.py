"""Lowering a convolution of a spread-out image whose results lie row by row: all phases of a tile from one copy.

The input gradient of a strided convolution is such a one (see conv_phases.py). Phase by phase, every row of the results
would be written once for each remainder of the columns, an element here and there. Here a tile is made of some points
of each phase: the microkernel's results of the phases across a row take turns in ``block``, which so holds whole pieces
of rows, and is turned over and written as that of any convolution (see conv_direct.py).
"""

from __future__ import annotations

import math
from dataclasses import replace

from engine.program import Call, Lowered, joined
from engine.schedule import Conv2d, KernelSpec
from runtime.conv_phases import phases, whole_window
from runtime.cpu.conv import (
    POINTS,
    ConvTile,
    pack_weights,
    panel_line,
    patch_lines,
    plan_tile,
    point_lines,
    product_lines,
    table_lines,
    tile_tasks,
)
from runtime.cpu.conv_direct import by_channel, claim_rows, writes_rows
from runtime.cpu.emit import kernel
from runtime.cpu.packing import Packed
from runtime.cpu.scratch import scratch_lines
from runtime.cpu.tiles import host_tile
from runtime.cpu.turned import turning
from runtime.emit import SCRATCH, ArgTable, BodyEmitter, constant, indent, load, loop, store


def is_spread(spec: KernelSpec) -> bool:
    """Whether this kernel serves ``spec``, which has phases: its results lie row by row."""
    return isinstance(spec.core, Conv2d) and writes_rows(spec)


def lower_spread(spec: KernelSpec) -> Lowered:
    """The calls for ``spec``, which :func:`is_spread`: one packs the weights of each phase, one convolves and runs the
    body."""
    core = spec.core
    assert isinstance(core, Conv2d)
    plan = plan_tile(whole := whole_window(spec), whole.out_size, lambda _, points: points)
    spread_h, spread_w = core.x_dilation
    table = ArgTable()
    scope, size = table.scope(SCRATCH), plan.dtype.itemsize
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, 4, table,
                          core={0: load(plan.dtype, "values", "s", scope)})  # fmt: skip
    rows = math.lcm(plan.tile.rows, plan.tile.lanes)
    points = -(-POINTS // rows) * rows
    more = {"turned": points * spread_w * plan.channels * size}
    prepare = [*patch_lines(plan, table), *point_lines(plan, table)]
    made: list[list[str]] = [[] for _ in range(spread_h)]
    packed: list[Packed] = []
    names: list[str] = []
    for number, part in enumerate(phases(spec)):
        down, across = divmod(number, spread_w)
        tag = f"_{number}"
        made[down].append(f"block{tag} = block + {across} * block_channels * {size}")
        if not isinstance(part.core, Conv2d):
            made[down] += _zero_lines(plan, tag, spread_w, scope)
            continue
        phase = replace(plan, core=replace(part.core, groups=plan.core.groups, w_group=plan.core.w_group))
        packed.append(pack_weights(part, phase))
        more[f"table{tag}"] = plan.rows * phase.core.kernel[0] * phase.core.kernel[1] * 8
        top, left = (a - b for a, b in zip(whole.padding, part.core.padding, strict=True))
        table.declare(**{f"corner{tag}": (top * plan.patch.pitch + left * plan.patch.channels) * size})
        prepare += [
            panel_line(phase, table, packed[-1].buffer.name, tag),
            *table_lines(phase, table, plan.patch, tag, f"corner{tag}"),
        ]
        multiply, used = product_lines(phase, tag, spread_w, ("begin", "end"))
        made[down] += multiply
        names += used
    table.declare(spread_h=spread_h, spread_w=spread_w, out_h=core.out_size[0], out_w=core.out_size[1])
    image, row = emitter.enter(0, "n"), emitter.enter(1, "oh")
    before, inside = by_channel(plan, emitter, points * spread_w, "column0")
    task = [
        "oh0 = tile_y",
        "ow0 = tile_x",
        "tile_h = tile_rows",
        "tile_w = tile_columns",
        *prepare,
        *image,
        "column0 = ow0 * spread_w",
        "span = tile_w * spread_w",
        f"for begin in range(0, rows, {points}):",
        *indent([
            f"end = minimum(begin + {points}, rows)",
            "first_row = begin * spread_w",
            "stop_row = end * spread_w",
            *loop("f", "0", "spread_h", [
                *claim_rows(spec.writes, table, "span", "(oh0 + down) * spread_h + f", "column0"),
                *(line for down, lines in enumerate(made) for line in [f"if f == {down}:", *indent(lines)]),
                *before,
                "at = first_row",
                "while at < stop_row:",
                *indent([
                    "down = quotient(at, span)",
                    "oh = (oh0 + down) * spread_h + f",
                    "start = at - down * span",
                    "past = minimum(span, start + stop_row - at)",
                    "stop = minimum(past, out_w - column0)",
                    "if oh < out_h:",
                    *indent([*row, *inside]),
                    "at += past - start",
                ]),
            ]),
        ]),
    ]  # fmt: skip
    tasks, walk = tile_tasks(plan, table, spec.axes[0], whole.out_size, task)
    parts = plan.scratch(points * spread_w, **more)
    lines = [*scratch_lines(parts, table), *emitter.start(), *walk]
    code = kernel(f"conv2d_spread_{plan.dtype}", lines, table,
                  modules={"runtime.cpu.microkernel": list(dict.fromkeys(names)),
                           **turning(plan.dtype, plan.tile.lanes, host_tile(plan.dtype).lanes)})  # fmt: skip
    reads = dict.fromkeys([core.x.buffer, *(p.buffer.name for p in packed), *(a.buffer for a in spec.reads)])
    writes = dict.fromkeys(access.buffer for access in spec.writes)
    main = Call(code.key, spec.name, table.args, tasks, tuple(reads), tuple(writes), parts["end"],
                spec.nodes)  # fmt: skip
    first = [Lowered((p.call,), (p.kernel,), (p.buffer,)) for p in packed]
    return joined([*first, Lowered((main,), (code,))])


def _zero_lines(plan: ConvTile, tag: str, across: int, scope: int) -> list[str]:
    """Lines that set the results of a phase which no tap meets."""
    return loop("r", "0", "end - begin", loop("c", "0", "columns", [
        store(plan.dtype, f"block{tag}", f"r * {across} * block_channels + c", constant(0, plan.dtype), scope),
    ]))  # fmt: skip
