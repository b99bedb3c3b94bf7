"""Lowering a max pool over a convolution: the convolution's output never leaves the cache.

A tile of pooled points is made at a time: it takes the convolution at every point their windows cover, and pools while
that block is at hand. The inner body (bias, activation) runs on each point of a window as it is read.
"""

from __future__ import annotations

from engine import dtypes
from engine.program import Call, Lowered
from engine.schedule import KernelSpec, MaxPool2d
from runtime.cpu.conv import (
    BLOCK_BYTES,
    PATCH_BYTES,
    ConvTile,
    image_lines,
    pack_weights,
    plan_tile,
    tile_lines,
    tile_tasks,
)
from runtime.cpu.conv_parts import part_lines, worth_parting
from runtime.cpu.emit import kernel
from runtime.cpu.scratch import scratch_lines
from runtime.emit import SCRATCH, ArgTable, BodyEmitter, indent, load, loop, store, times, total
from runtime.windows import always_inside, better, may_unroll, reach

OVERLAPPING = (4 * BLOCK_BYTES, 2 * PATCH_BYTES)
"""The most that a tile's outputs, and the copy of its input, should take where windows overlap: what the next tile
needs too is computed twice."""


def lower_conv2d_pool(spec: KernelSpec) -> Lowered:
    """The calls for ``spec``, whose core is a MaxPool2d over a Conv2d: one packs the weights, one does the rest."""
    core = spec.core
    assert isinstance(core, MaxPool2d) and core.source is not None
    conv = core.source
    pooled = (spec.axes[1], spec.axes[2])

    def covered(axis: int, points: int) -> int:
        return (points - 1) * core.stride[axis] + reach(core.kernel[axis], core.dilation[axis])

    overlapping = any(reach(k, d) > s for k, s, d in zip(core.kernel, core.stride, core.dilation, strict=True))
    plan = plan_tile(conv, pooled, covered, *(OVERLAPPING if overlapping else ()))
    packed = pack_weights(spec, plan)
    table = ArgTable()
    more: dict[str, int] = {}
    if worth_parting(plan):
        multiply, names = part_lines(plan, table)
        make = [*image_lines(plan, table, packed.buffer.name), *multiply]
        more["where"] = plan.rows * 8
    else:
        prepare, multiply, names = tile_lines(plan, table, packed.buffer.name)
        make = [*prepare, "first_row = 0", "stop_row = rows", *multiply]
    rows = plan.rows + plan.tile.rows * len(more)
    inside = always_inside(core.in_size, pooled, core.kernel, core.stride, core.padding, core.dilation)
    if inside and may_unroll(core.kernel):
        parts = plan.scratch(rows, **more)
        start, pool = _pool_inside(spec, core, plan, table)
    else:
        row = plan.channels * core.inner[-1].dtype.itemsize
        parts = plan.scratch(rows, best_row=row, position_row=plan.channels, **more)
        start, pool = _pool_with_border(spec, core, plan, table)
    tile = [*_covered(core, table), *make, *pool]
    tasks, walk = tile_tasks(plan, table, spec.axes[0], pooled, tile)
    lines = [*scratch_lines(parts, table), *start, *walk]
    code = kernel(f"conv2d_pool_{plan.dtype}", lines, table,
                  modules={"runtime.cpu.microkernel": names, **plan.patch.modules})  # fmt: skip
    reads = dict.fromkeys([conv.x.buffer, packed.buffer.name, *(access.buffer for access in spec.reads)])
    writes = dict.fromkeys(access.buffer for access in spec.writes)
    main = Call(code.key, spec.name, table.args, tasks, tuple(reads), tuple(writes), parts["end"],
                spec.nodes)  # fmt: skip
    return Lowered((packed.call, main), (packed.kernel, code), (packed.buffer,))


def _covered(core: MaxPool2d, table: ArgTable) -> list[str]:
    """Lines that set the tile's pooled points (``ph0``, ``count_h`` ...) and the outputs that their windows cover
    (``oh0``, ``tile_h`` ...)."""
    lines = []
    for axis, (letter, first, count) in enumerate((("h", "tile_y", "tile_rows"), ("w", "tile_x", "tile_columns"))):
        table.declare(**{
            f"pool_stride_{letter}": core.stride[axis], f"pool_pad_{letter}": core.padding[axis],
            f"pool_reach_{letter}": reach(core.kernel[axis], core.dilation[axis]), f"out_{letter}": core.in_size[axis],
        })  # fmt: skip
        last = f"(p{letter}0 + count_{letter} - 1) * pool_stride_{letter} - pool_pad_{letter}"
        lines += [
            f"p{letter}0 = {first}",
            f"count_{letter} = {count}",
            f"o{letter}0 = maximum(p{letter}0 * pool_stride_{letter} - pool_pad_{letter}, 0)",
            f"tile_{letter} = minimum({last} + pool_reach_{letter}, out_{letter}) - o{letter}0",
        ]
    return lines


def _place(plan: ConvTile, table: ArgTable, point: str) -> str:
    """The address of the results of a tile's ``point``."""
    if worth_parting(plan):
        return load(dtypes.i64, "where", point, table.scope(SCRATCH))
    return f"block + ({point}) * block_channels * {plan.dtype.itemsize}"


def _emitters(spec: KernelSpec, core: MaxPool2d, table: ArgTable, outputs: dict[int, str],
              inner_values: list[str]) -> tuple[BodyEmitter, list[BodyEmitter]]:  # fmt: skip
    """The emitter of the body, and one of the inner body for each of the ``inner_values`` that its core is."""
    body = BodyEmitter(spec.body, spec.reads, spec.writes, 4, table, core=outputs)
    inner = [
        BodyEmitter(core.inner, spec.reads, (), 4, table, core={0: value}, tag=f"_{k}_")
        for k, value in enumerate(inner_values)
    ]
    return body, inner


def _pool_inside(spec: KernelSpec, core: MaxPool2d, plan: ConvTile, table: ArgTable) -> tuple[list[str], list[str]]:
    """Pooling with the whole window written out: the lines before all loops, and those of a task."""
    value = core.inner[-1]
    taps = [(kh, kw) for kh in range(core.kernel[0]) for kw in range(core.kernel[1])]
    elements = [load(plan.dtype, f"point_{k}", "j", table.scope(SCRATCH)) for k in range(len(taps))]
    outputs = {0: f"best_{len(taps) - 1}", 1: f"position_{len(taps) - 1}"}
    body, inner = _emitters(spec, core, table, outputs, elements)
    everyone = [body, *inner]
    start = [line for emitter in everyone for line in emitter.start()]
    table.declare(pool_dilation_h=core.dilation[0], pool_dilation_w=core.dilation[1])

    task = [
        f"at_{k} = {kh} * pool_dilation_h * tile_w + {kw} * pool_dilation_w - oh0 * tile_w - ow0"
        for k, (kh, kw) in enumerate(taps)
    ]
    for emitter in everyone:
        task += emitter.enter(0, "n")
    by_row = ["ph = ph0 + r", "oh = ph * pool_stride_h", *body.enter(1, "ph")]
    by_column = ["pw = pw0 + s", "ow = pw * pool_stride_w", *body.enter(2, "pw")]
    for (kh, kw), emitter in zip(taps, inner, strict=True):
        by_row += emitter.enter(1, total("oh", times(str(kh), "pool_dilation_h")))
        by_column += emitter.enter(2, total("ow", times(str(kw), "pool_dilation_w")))
    by_column += [f"point_{k} = {_place(plan, table, f'oh * tile_w + ow + at_{k}')}" for k in range(len(taps))]
    inside = []
    for k, emitter in enumerate(inner):
        inside += emitter.enter(3, "channel0 + j", inline=True)
        found = emitter.value(value.name)
        if k == 0:
            inside += [f"best_0 = {found}", "position_0 = uint8(0)"]
            continue
        inside += [
            f"better_{k} = {better(found, f'best_{k - 1}', value.dtype)}",
            f"best_{k} = select(better_{k}, {found}, best_{k - 1})",
            f"position_{k} = select(better_{k}, uint8({k}), position_{k - 1})",
        ]
    inside += body.enter(3, "channel0 + j", inline=True)
    columns = loop("s", "0", "count_w", [*by_column, *loop("j", "0", "columns", inside)])
    return start, [*task, *loop("r", "0", "count_h", by_row + columns)]


def _pool_with_border(spec: KernelSpec, core: MaxPool2d, plan: ConvTile,
                      table: ArgTable) -> tuple[list[str], list[str]]:  # fmt: skip
    """Pooling of windows that may reach over the border: one position after the other, kept in scratch."""
    value, scope = core.inner[-1], table.scope(SCRATCH)
    kept = load(value.dtype, "best_row", "j", scope), load(dtypes.u8, "position_row", "j", scope)
    body, (inner,) = _emitters(spec, core, table, dict(enumerate(kept)), [load(plan.dtype, "values", "j", scope)])
    start = [*body.start(), *inner.start()]
    table.declare(
        window_h=core.kernel[0], window_w=core.kernel[1], pool_dilation_h=core.dilation[0],
        pool_dilation_w=core.dilation[1],
    )  # fmt: skip
    task = [*body.enter(0, "n"), *inner.enter(0, "n")]
    by_row = ["ph = ph0 + r", *body.enter(1, "ph")]
    by_column = ["pw = pw0 + s", *body.enter(2, "pw"), "fresh = True"]
    tap_row = ["oh = ph * pool_stride_h - pool_pad_h + kh * pool_dilation_h"]
    inside_row = inner.enter(1, "oh")
    tap_column = ["ow = pw * pool_stride_w - pool_pad_w + kw * pool_dilation_w"]
    inside_column = [
        *inner.enter(2, "ow"),
        f"values = {_place(plan, table, '(oh - oh0) * tile_w + ow - ow0')}",
        "here = uint8(kh * window_w + kw)",
    ]
    point = inner.enter(3, "channel0 + j", inline=True)
    found = inner.value(value.name)
    point += [
        f"old = {kept[0]}",
        f"better = fresh | ({better(found, 'old', value.dtype)})",
        store(value.dtype, "best_row", "j", f"select(better, {found}, old)", scope),
        store(dtypes.u8, "position_row", "j", f"select(better, here, {kept[1]})", scope),
    ]
    inside_column += [*loop("j", "0", "columns", point), "fresh = False"]
    tap_column += ["if ow >= 0 and ow < out_w:", *indent(inside_column)]
    inside_row += loop("kw", "0", "window_w", tap_column)
    tap_row += ["if oh >= 0 and oh < out_h:", *indent(inside_row)]
    by_column += loop("kh", "0", "window_h", tap_row)
    by_column += loop("j", "0", "columns", body.enter(3, "channel0 + j", inline=True))
    return start, [*task, *loop("r", "0", "count_h", by_row + loop("s", "0", "count_w", by_column))]
