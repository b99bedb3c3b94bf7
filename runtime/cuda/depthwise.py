"""Depthwise convolutions: every channel has its own window, and neighbouring threads take neighbouring channels.

A thread makes a few outputs side by side in a row of one channel: the taps are written out, so an input that several of
these outputs read is loaded once. Its weight gradient holds all taps' sums of one channel in registers, over a part of
the rows of all images; a second kernel adds up the parts.
"""

from __future__ import annotations

from collections.abc import Callable

from engine import dtypes
from engine.dims import ceil_div, product
from engine.dtypes import DType
from engine.program import Call, Lowered, joined
from engine.schedule import Access, Conv2d, ConvWeightGrad, KernelSpec
from runtime.cuda.conv_specs import partial_sums, total_of, weights_by_output
from runtime.cuda.dense import Lower, dense_copy
from runtime.cuda.emit import kernel
from runtime.cuda.points import each_point
from runtime.emit import ArgTable, BodyEmitter, cast, constant, indent, load, loop, store, times, total
from runtime.tasks import outer_indices, typical

THREADS = 128
UNROLLED = 40
"""About how many products are written out: those of as many outputs as that leaves."""
MOST_TAPS = 64
"""Windows with more taps are left to the general kernel."""
ENOUGH_THREADS = 1 << 16
"""About how many threads keep a GPU busy: sums over pixels are cut into so many parts."""


def is_depthwise(core: Conv2d | ConvWeightGrad) -> bool:
    """Whether these kernels serve ``core``: one input and one output a group, a window that can be written out."""
    spread = core.x_dilation if isinstance(core, Conv2d) else (1, 1)
    weights = core.w if isinstance(core, Conv2d) else core.dy
    return (
        core.group_inputs == core.group_outputs == 1 and core.groups > 1 and product(core.kernel) <= MOST_TAPS
        and spread == (1, 1) and dtypes.promote(core.x.dtype, weights.dtype).is_float
    )  # fmt: skip


def _taps(core: Conv2d | ConvWeightGrad) -> list[tuple[int, int]]:
    return [(kh, kw) for kh in range(core.kernel[0]) for kw in range(core.kernel[1])]


def _points(core: Conv2d | ConvWeightGrad) -> int:
    """Outputs of a thread."""
    return min(max(UNROLLED // len(_taps(core)), 1), typical(core.out_size[1]))


def _inputs(core: Conv2d | ConvWeightGrad, table: ArgTable, points: int, dtype: DType,
            first: str) -> tuple[list[str], Callable[[int, int, int], str]]:  # fmt: skip
    """Lines that load what ``points`` outputs from (``oh``, ``first``) on meet in the channel that starts at
    ``x_first``, and what says which of the loaded names output ``p`` meets at a tap."""
    (kernel_h, kernel_w), (stride_h, stride_w), (dilation_h, dilation_w) = core.kernel, core.stride, core.dilation
    in_h, in_w = map(table.size, core.in_size)
    _, h_step, w_step, _ = map(table.size, core.x.strides)
    pointer = table.pointer(core.x.buffer, core.x.offset * core.x.dtype.itemsize)
    columns = sorted({p * stride_w + kw * dilation_w for p in range(points) for kw in range(kernel_w)})
    lines = [
        f"top = {total(times('oh', table.size(stride_h)), table.size(-1 * core.padding[0]))}",
        f"left = {total(times(first, table.size(stride_w)), table.size(-1 * core.padding[1]))}",
    ]
    for c in columns:
        lines.append(f"inside_{c} = left + {c} >= 0 and left + {c} < {in_w}")
    for kh in range(kernel_h):
        place = total("x_first", times(f"top + {kh * dilation_h}", h_step))
        lines += [
            f"row_{kh} = {place}",
            f"inside_row_{kh} = top + {kh * dilation_h} >= 0 and top + {kh * dilation_h} < {in_h}",
        ]
        for c in columns:
            found = load(core.x.dtype, pointer, total(f"row_{kh}", times(f"left + {c}", w_step)),
                         table.scope(core.x.buffer))  # fmt: skip
            value = cast(found, core.x.dtype.computed, dtype)
            lines.append(f"x_{kh}_{c} = {value} if inside_row_{kh} and inside_{c} else {constant(0, dtype)}")
    return lines, lambda p, kh, kw: f"x_{kh}_{p * stride_w + kw * dilation_w}"


def lower_depthwise(spec: KernelSpec, lower: Lower) -> Lowered:
    """The calls for ``spec``, whose core is a depthwise Conv2d: one turns the weights so that channels lie side by
    side, one convolves and runs the body."""
    core = spec.core
    assert isinstance(core, Conv2d)
    dtype = dtypes.promote(core.x.dtype, core.w.dtype).computed
    weights, _ = weights_by_output(core)
    group, _, h, w, _ = weights.strides
    by_tap = Access(weights.buffer, weights.dtype, (h, w, group), weights.offset)
    copy, turned, _ = dense_copy(spec, by_tap, (*core.kernel, core.groups), weights.dtype, "weights")
    before = lower(copy)
    table = ArgTable()
    points = _points(core)
    tiles = ceil_div(core.out_size[1], points)
    split, (n, oh, tile, channel) = outer_indices(table, (spec.axes[0], core.out_size[0], tiles, core.groups), "point")
    n_step, *_, c_step = map(table.size, core.x.strides)
    groups, pointer = table.size(core.groups), table.pointer(turned.name)
    inputs, met = _inputs(core, table, points, dtype, "first")
    lines = [*split, f"oh = {oh}", f"first = {tile} * {points}",
             f"x_first = {total(times(n, n_step), times(channel, c_step))}"]  # fmt: skip
    for k, (kh, kw) in enumerate(_taps(core)):
        value = load(turned.dtype, pointer, total(times(str(k), groups), channel), table.scope(turned.name))
        lines.append(f"w_{kh}_{kw} = {cast(value, turned.dtype.computed, dtype)}")
    lines += inputs
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, 4, table)
    lines += [*emitter.start(), *emitter.enter(0, n), *emitter.enter(1, "oh"), *emitter.enter(3, channel)]
    for p in range(points):
        lines.append(f"sum_{p} = {total(*(f'{met(p, kh, kw)} * w_{kh}_{kw}' for kh, kw in _taps(core)))}")
        twin = emitter.fork(core={0: f"sum_{p}"}, tag=f"p{p}_")
        finish = [f"ow_{p} = first + {p}", *twin.enter(2, f"ow_{p}")]
        lines += finish if p == 0 else [f"if first + {p} < {table.size(core.out_size[1])}:", *indent(finish)]
    lines, tasks = each_point(table, product((spec.axes[0], core.out_size[0], tiles, core.groups)), THREADS, lines)
    code = kernel(f"depthwise_{dtype}", lines, table, THREADS)
    reads = dict.fromkeys([core.x.buffer, turned.name, *(access.buffer for access in spec.reads)])
    writes = dict.fromkeys(access.buffer for access in spec.writes)
    call = Call(code.key, spec.name, table.args, tasks, tuple(reads), tuple(writes), 0, spec.nodes)
    return joined([Lowered((), (), (turned,)), before, Lowered((call,), (code,))])


def lower_depthwise_weight_grad(spec: KernelSpec, lower: Lower) -> Lowered:
    """The calls for ``spec``, whose core is a depthwise ConvWeightGrad: sums, then their total with the body."""
    core = spec.core
    assert isinstance(core, ConvWeightGrad)
    dtype = dtypes.promote(core.x.dtype, core.dy.dtype).computed
    rows = core.batch * core.out_size[0]
    chunks = max(min(ENOUGH_THREADS // core.groups, typical(rows)), 1)
    partial = partial_sums(spec, dtype, chunks, (1, 2, 0, 3, 4))
    table = ArgTable()
    points, taps = _points(core), _taps(core)
    split, (chunk, channel) = outer_indices(table, (chunks, core.groups), "point")
    n_step, *_, c_step = map(table.size, core.x.strides)
    dy_n, dy_h, dy_w, dy_c = map(table.size, core.dy.strides)
    out_h, out_w, all_rows, per_chunk = map(table.size, (*core.out_size, rows, ceil_div(rows, chunks)))
    dy, scope = table.pointer(core.dy.buffer, core.dy.offset * core.dy.dtype.itemsize), table.scope(core.dy.buffer)
    inputs, met = _inputs(core, table, points, dtype, "first")
    row = list(inputs)
    for p in range(points):
        place = total("dy_row", times(f"first + {p}" if p else "first", dy_w))
        value = cast(load(core.dy.dtype, dy, place, scope), core.dy.dtype.computed, dtype)
        row.append(f"dy_{p} = {value}" + (f" if first + {p} < {out_w} else {constant(0, dtype)}" if p else ""))
    for kh, kw in taps:
        row.append(f"sum_{kh}_{kw} += {total(*(f'dy_{p} * {met(p, kh, kw)}' for p in range(points)))}")
    lines = [
        *split,
        *(f"sum_{kh}_{kw} = {constant(0, dtype)}" for kh, kw in taps),
        *loop("row", times(chunk, per_chunk), f"minimum({times(f'{chunk} + 1', per_chunk)}, {all_rows})", [
            f"n = quotient(row, {out_h})",
            f"oh = row - n * {out_h}",
            f"x_first = {total(times('n', n_step), times(channel, c_step))}",
            f"dy_row = {total(times('n', dy_n), times('oh', dy_h), times(channel, dy_c))}",
            f"for first in range(0, {out_w}, {points}):",
            *indent(row),
        ]),
    ]  # fmt: skip
    sums, at = table.pointer(partial.buffer.name), times(chunk, table.size(partial.size))
    for k, (kh, kw) in enumerate(taps):
        place = total(at, times(str(k), table.size(core.groups)), channel)
        lines.append(store(dtype, sums, place, f"sum_{kh}_{kw}", table.scope(partial.buffer.name)))
    lines, tasks = each_point(table, chunks * core.groups, THREADS, lines)
    code = kernel(f"depthwise_weight_grad_{dtype}", lines, table, THREADS)
    call = Call(code.key, f"{spec.name} chunks", table.args, tasks, (core.x.buffer, core.dy.buffer),
                (partial.buffer.name,), 0, spec.nodes)  # fmt: skip
    end = lower(total_of(spec, partial))
    return joined([Lowered((call,), (code,), (partial.buffer,)), end])
