"""Lowering a max pool over a convolution: the convolution's output never leaves the cache.

A task makes a tile of pooled points: it computes the convolution at every point their windows cover, and pools while
that block is at hand. The inner body (bias, activation) runs on each point of a window as it is read.
"""

from __future__ import annotations

from engine import dtypes
from engine.dims import Size, ceil_div, product
from engine.program import Call, Lowered
from engine.schedule import KernelSpec, MaxPool2d
from runtime.cpu.conv import ConvTile, image_lines, pack_weights, plan_tile, scratch_lines, tile_lines
from runtime.cpu.emit import SCRATCH, ArgTable, BodyEmitter, indent, kernel, load, loop, store, times, total
from runtime.cpu.loops import outer_indices

UNROLLED = 16
"""The most window positions that are written out."""


def lower_conv2d_pool(spec: KernelSpec) -> Lowered:
    """The calls for ``spec``, whose core is a MaxPool2d over a Conv2d: one packs the weights, one does the rest."""
    core = spec.core
    assert isinstance(core, MaxPool2d) and core.source is not None
    conv = core.source
    pooled = (spec.axes[1], spec.axes[2])
    plan = plan_tile(conv, pooled, lambda axis, points: (points - 1) * core.stride[axis] + _reach(core, axis))
    packed = pack_weights(spec, plan)
    table = ArgTable()
    tiles = [ceil_div(n, t) for n, t in zip(pooled, plan.points, strict=True)]
    space = (spec.axes[0], *tiles, conv.groups, plan.channel_blocks)
    split, (n, *tile_index, group, channel_block) = outer_indices(table, space, "task")
    task = [*split, f"group = {group}", f"channel_block = {channel_block}"]
    for axis, letter in enumerate("hw"):
        task += _covered(core, plan, table, axis, letter, tile_index[axis], pooled[axis])
    task += image_lines(plan, table, n)
    computed, names = tile_lines(plan, table, table.pointer(packed.buffer.name))
    if _always_inside(core, pooled):
        parts = plan.scratch()
        start, pool = _pool_inside(spec, core, plan, table, n)
    else:
        parts = plan.scratch(best_row=plan.channels * core.inner[-1].dtype.itemsize, position_row=plan.channels)
        start, pool = _pool_with_border(spec, core, plan, table, n)
    lines = [*scratch_lines(parts, table), *start, *loop("task", "lo", "hi", [*task, *computed, *pool])]
    code = kernel(f"conv2d_pool_{plan.dtype}", lines, table, modules={"runtime.cpu.microkernel": names})
    reads = dict.fromkeys([conv.x.buffer, packed.buffer.name, *(access.buffer for access in spec.reads)])
    writes = dict.fromkeys(access.buffer for access in spec.writes)
    main = Call(code.key, spec.name, table.args, product(space), tuple(reads), tuple(writes), parts["end"], spec.nodes)
    return Lowered((packed.call, main), (packed.kernel, code), (packed.buffer,))


def _reach(core: MaxPool2d, axis: int) -> int:
    """Outputs of the convolution that one window spans."""
    return (core.kernel[axis] - 1) * core.dilation[axis] + 1


def _always_inside(core: MaxPool2d, pooled: tuple[Size, Size]) -> bool:
    """Whether no window reaches beyond the convolution's output, so that all can be written out alike."""
    if core.padding != (0, 0) or product(core.kernel) > UNROLLED:
        return False
    last = [(p - 1) * s + _reach(core, axis) for axis, (p, s) in enumerate(zip(pooled, core.stride, strict=True))]
    return all(isinstance(room := n - end, int) and room >= 0 for n, end in zip(core.in_size, last, strict=True))


def _covered(core: MaxPool2d, plan: ConvTile, table: ArgTable, axis: int, letter: str, tile: str,
             count: Size) -> list[str]:  # fmt: skip
    """Lines that set, along one axis, the tile's pooled points (``p_``) and the outputs that their windows cover."""
    step, stride = table.size(plan.points[axis]), table.size(core.stride[axis])
    padding, limit = table.size(core.padding[axis]), table.size(core.in_size[axis])
    end = f"{times(f'(p{letter}0 + count_{letter} - 1)', stride)} - {padding} + {table.size(_reach(core, axis))}"
    return [
        f"p{letter}0 = {times(tile, step)}",
        f"count_{letter} = minimum({step}, {table.size(count)} - p{letter}0)",
        f"o{letter}0 = maximum({times(f'p{letter}0', stride)} - {padding}, 0)",
        f"tile_{letter} = minimum({end}, {limit}) - o{letter}0",
    ]


def _emitters(spec: KernelSpec, core: MaxPool2d, plan: ConvTile, table: ArgTable, count: int,
              outputs: dict[int, str], inner_value: str) -> tuple[BodyEmitter, list[BodyEmitter]]:  # fmt: skip
    """The emitter of the body, and ``count`` of the inner body, whose core is ``inner_value`` with its number."""
    body = BodyEmitter(spec.body, spec.reads, spec.writes, 4, table, core=outputs)
    inner = [
        BodyEmitter(core.inner, spec.reads, (), 4, table, core={0: inner_value.format(k)}, tag=f"_{k}_")
        for k in range(count)
    ]
    return body, inner


def _pool_inside(spec: KernelSpec, core: MaxPool2d, plan: ConvTile, table: ArgTable,
                 n: str) -> tuple[list[str], list[str]]:  # fmt: skip
    """Pooling with the whole window written out: the lines before all loops, and those of a task."""
    size, channels, value = plan.dtype.itemsize, table.size(plan.channels), core.inner[-1]
    taps = [(kh, kw) for kh in range(core.kernel[0]) for kw in range(core.kernel[1])]
    element = load(plan.dtype, "corner", "at_{} + j", table.scope(SCRATCH))
    outputs = {0: f"best_{len(taps) - 1}", 1: f"position_{len(taps) - 1}"}
    body, inner = _emitters(spec, core, plan, table, len(taps), outputs, element)
    everyone = [body, *inner]
    start = [line for emitter in everyone for line in emitter.start()]
    dilation_h, dilation_w = (table.size(d) for d in core.dilation)
    stride_h, stride_w = (table.size(s) for s in core.stride)

    task = [
        f"at_{k} = ({total(times(f'{kh} * {dilation_h}', 'tile_w'), f'{kw} * {dilation_w}')}) * {channels}"
        for k, (kh, kw) in enumerate(taps)
    ]
    for emitter in everyone:
        task += emitter.enter(0, n)
    by_row = ["ph = ph0 + r", f"oh = {times('ph', stride_h)}", *body.enter(1, "ph")]
    by_column = ["pw = pw0 + s", f"ow = {times('pw', stride_w)}", *body.enter(2, "pw")]
    for (kh, kw), emitter in zip(taps, inner, strict=True):
        by_row += emitter.enter(1, total("oh", f"{kh} * {dilation_h}") if kh else "oh")
        by_column += emitter.enter(2, total("ow", f"{kw} * {dilation_w}") if kw else "ow")
    by_column.append(f"corner = block + ((oh - oh0) * tile_w + ow - ow0) * {channels} * {size}")
    inside = []
    for k, emitter in enumerate(inner):
        inside += emitter.enter(3, "channel0 + j", inline=True)
        found = emitter.value(value.name)
        if k == 0:
            inside += [f"best_0 = {found}", "position_0 = uint8(0)"]
            continue
        inside += [
            f"better_{k} = {_beats(found, f'best_{k - 1}')}",
            f"best_{k} = select(better_{k}, {found}, best_{k - 1})",
            f"position_{k} = select(better_{k}, uint8({k}), position_{k - 1})",
        ]
    inside += body.enter(3, "channel0 + j", inline=True)
    columns = loop("s", "0", "count_w", [*by_column, *loop("j", "0", "columns", inside)])
    return start, [*task, *loop("r", "0", "count_h", by_row + columns)]


def _beats(value: str, best: str) -> str:
    """Whether ``value`` takes the place of ``best``: it is larger or NaN, and ``best`` is not NaN."""
    return f"(not ({value} <= {best})) & ({best} == {best})"


def _pool_with_border(spec: KernelSpec, core: MaxPool2d, plan: ConvTile, table: ArgTable,
                      n: str) -> tuple[list[str], list[str]]:  # fmt: skip
    """Pooling of windows that may reach over the border: one position after the other, kept in scratch."""
    size, channels, value = plan.dtype.itemsize, table.size(plan.channels), core.inner[-1]
    scope = table.scope(SCRATCH)
    kept = load(value.dtype, "best_row", "j", scope), load(dtypes.u8, "position_row", "j", scope)
    element = load(plan.dtype, "values", "j", scope)
    body, (inner,) = _emitters(spec, core, plan, table, 1, dict(enumerate(kept)), element)
    start = [*body.start(), *inner.start()]
    kernel_h, kernel_w = (table.size(k) for k in core.kernel)
    in_h, in_w = (table.size(s) for s in core.in_size)

    def moved(letter: str, axis: int, tap: str) -> str:
        stride, dilation, padding = (table.size(v[axis]) for v in (core.stride, core.dilation, core.padding))
        return f"{times(f'p{letter}', stride)} - {padding} + {times(tap, dilation)}"

    task = [*body.enter(0, n), *inner.enter(0, n)]
    by_row = ["ph = ph0 + r", *body.enter(1, "ph")]
    by_column = ["pw = pw0 + s", *body.enter(2, "pw"), "fresh = True"]
    tap_row = [f"oh = {moved('h', 0, 'kh')}"]
    inside_row = inner.enter(1, "oh")
    tap_column = [f"ow = {moved('w', 1, 'kw')}"]
    inside_column = [
        *inner.enter(2, "ow"),
        f"values = block + ((oh - oh0) * tile_w + ow - ow0) * {channels} * {size}",
        f"here = uint8(kh * {kernel_w} + kw)",
    ]
    point = inner.enter(3, "channel0 + j", inline=True)
    found = inner.value(value.name)
    point += [
        f"old = {kept[0]}",
        f"better = fresh | ({_beats(found, 'old')})",
        store(value.dtype, "best_row", "j", f"select(better, {found}, old)", scope),
        store(dtypes.u8, "position_row", "j", f"select(better, here, {kept[1]})", scope),
    ]
    inside_column += [*loop("j", "0", "columns", point), "fresh = False"]
    tap_column += [f"if ow >= 0 and ow < {in_w}:", *indent(inside_column)]
    inside_row += loop("kw", "0", kernel_w, tap_column)
    tap_row += [f"if oh >= 0 and oh < {in_h}:", *indent(inside_row)]
    by_column += loop("kh", "0", kernel_h, tap_row)
    by_column += loop("j", "0", "columns", body.enter(3, "channel0 + j", inline=True))
    return start, [*task, *loop("r", "0", "count_h", by_row + loop("s", "0", "count_w", by_column))]
