"""Lowering a depthwise convolution of an image whose rows lie along memory: neighbours in a row fill a vector.

A task makes some rows of one channel of one image: it copies what they read into scratch with its padding (see
conv_patch.py), and keeps the window in registers. The last vector of a row lies over the one before, and writes the
same once more. Where the window moves by several columns, every remainder of these is first laid side by side.
"""

from __future__ import annotations

from engine.dims import ceil_div, product
from engine.dtypes import DType
from engine.program import Call, Lowered, Pointer
from engine.schedule import Conv2d, KernelSpec
from runtime.cpu.conv import computed_dtype, tap_axes
from runtime.cpu.conv_direct import writes_rows
from runtime.cpu.conv_patch import Patch
from runtime.cpu.depthwise import is_depthwise
from runtime.cpu.emit import kernel
from runtime.cpu.scratch import scratch_lines, scratch_parts
from runtime.cpu.tiles import host_tile
from runtime.emit import SCRATCH, ArgTable, BodyEmitter, cast, load, loop, store, total
from runtime.tasks import coordinates, piece

PATCH_BYTES = 16384
"""The most that the copy of a task's input should take."""
ROWS = 64
"""The most rows of a task."""


def is_by_rows(spec: KernelSpec) -> bool:
    """Whether this kernel serves ``spec``: rows of known width lie along memory in the image and in all results, are a
    vector or more, and may be written twice."""
    core = spec.core
    if not isinstance(core, Conv2d) or not is_depthwise(core) or core.x_dilation != (1, 1):
        return False
    width = core.out_size[1]
    return (
        core.x.strides[2] == 1 != core.x.strides[3] and writes_rows(spec)
        and isinstance(width, int) and width >= host_tile(computed_dtype(core)).lanes
        and not {access.buffer for access in spec.reads} & {access.buffer for access in spec.writes}
    )  # fmt: skip


def lower_depthwise_rows(spec: KernelSpec) -> Lowered:
    """The call for ``spec``, which :func:`is_by_rows`."""
    core = spec.core
    assert isinstance(core, Conv2d)
    dtype = computed_dtype(core)
    patch = rows_patch(core, dtype)
    tall, width = patch.tile
    size, lanes = dtype.itemsize, host_tile(dtype).lanes
    table = ArgTable()
    scope = table.scope(SCRATCH)
    offset, taps = tap_axes(core)
    table.declare(
        x=Pointer(core.x.buffer, core.x.offset * core.x.dtype.itemsize), x_n=core.x.strides[0], x_c=core.x.strides[3],
        w=Pointer(core.w.buffer, offset * core.w.dtype.itemsize), w_c=core.w_group, w_h=taps[0].stride,
        w_w=taps[1].stride, out_h=core.out_size[0], tall=tall, width=width, stride_h=core.stride[0],
        dilation_h=core.dilation[0], patch_row=patch.pitch,
    )  # fmt: skip
    stride = core.stride[1]
    lane = -(-patch.pitch // (stride * lanes)) * lanes  # whole vectors, which read on behind a row
    parts = {"patch": patch.bytes + stride * lane * size}
    start, row, by_remainder, read = "patch", "patch_row", [], scope
    if stride > 1:
        start, row = "sorted", f"{stride * lane}"
        parts["sorted"] = patch.extent(0) * stride * lane * size
        read = table.scope("sorted")
        by_remainder = _sort_columns(dtype, stride, lane, scope, read)
    space = {"n": spec.axes[0], "channel": core.groups, "tile": ceil_div(core.out_size[0], tall)}
    window = [(kh, kw) for kh in range(core.kernel[0]) for kw in range(core.kernel[1])]
    weights = []
    for kh, kw in window:
        value = load(core.w.dtype, "window", f"{kh} * w_h + {kw} * w_w", table.scope(core.w.buffer))
        weights.append(f"w_{kh}_{kw} = {cast(value, core.w.dtype.computed, dtype)}")
    products = []
    for kh, kw in window:
        column, remainder = divmod(kw * core.dilation[1], stride)
        at = f"row_{kh} + {remainder * lane + column} + j"
        products.append(f"{load(dtype, 'corner', at, read)} * w_{kh}_{kw}")
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, 4, table, core={0: "sum"})
    offsets = scratch_parts(parts)
    lines = [*scratch_lines(offsets, table), *emitter.start()]
    by_image, by_channel = emitter.enter(0, "n"), emitter.enter(3, "channel")
    by_row = ["oh = oh0 + r", *emitter.enter(1, "oh")]
    inside = emitter.enter(2, "s + j", inline=True)
    lines += loop("task", "lo", "hi", [
        *coordinates(table, "task", space),
        "oh0 = tile * tall",
        "ow0 = 0",
        "tile_h = minimum(tall, out_h - oh0)",
        f"image = x + (n * x_n + channel * x_c) * {core.x.dtype.itemsize}",
        *patch.copy_lines(table, scope),
        *by_remainder,
        f"window = w + channel * w_c * {core.w.dtype.itemsize}",
        *weights,
        *(f"row_{kh} = {kh} * dilation_h * {row}" for kh in range(core.kernel[0])),
        *by_image,
        *by_channel,
        *loop("r", "0", "tile_h", [
            *by_row,
            f"for s0 in range(0, width, {lanes}):",
            f"    s = minimum(s0, width - {lanes})",
            f"    corner = {start} + (r * stride_h * {row} + s) * {size}",
            *(f"    {line}" for line in loop("j", "0", str(lanes), [f"sum = {total(*products)}", *inside])),
        ]),
    ])  # fmt: skip
    code = kernel(f"depthwise_rows_{dtype}", lines, table)
    reads = dict.fromkeys([core.x.buffer, core.w.buffer, *(access.buffer for access in spec.reads)])
    writes = dict.fromkeys(access.buffer for access in spec.writes)
    main = Call(code.key, spec.name, table.args, product(space.values()), tuple(reads), tuple(writes), offsets["end"],
                spec.nodes)  # fmt: skip
    return Lowered((main,), (code,))


def _sort_columns(dtype: DType, stride: int, lane: int, read: int, written: int) -> list[str]:
    """Lines that copy every row of ``patch`` into ``sorted``: ``lane`` columns of each remainder by ``stride``."""

    def column(remainder: int) -> str:
        value = load(dtype, "line", f"q * {stride} + {remainder}", read)
        return store(dtype, "out", f"{remainder * lane} + q", value, written)

    return loop("row", "0", "(tile_h - 1) * stride_h + reach_h", [
        f"line = patch + row * patch_row * {dtype.itemsize}",
        f"out = sorted + row * {stride * lane * dtype.itemsize}",
        *loop("q", "0", str(lane), [column(remainder) for remainder in range(stride)]),
    ])  # fmt: skip


def rows_patch(core: Conv2d, dtype: DType) -> Patch:
    """What some rows of a channel read: as many as stay near."""
    width = core.out_size[1]
    assert isinstance(width, int)
    rows = 1
    while rows < ROWS and Patch(core, (rows + 1, width), 1, dtype).bytes <= PATCH_BYTES:
        rows += 1
    return Patch(core, (piece(core.out_size[0], rows), width), 1, dtype)
