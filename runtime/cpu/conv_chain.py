"""Lowering a depthwise convolution of what a convolution of single pixels makes: the image between them, often the
largest of a network, is never in memory.

A task makes a tile of the depthwise convolution for a block of channels. It computes the pixels that the tile reads
with the microkernel, a few at a time, runs the body between the two convolutions on them, and puts them with their
padding where the depthwise kernel would have copied them. Pixels that two tiles read are computed twice; so tiles are
as large as the second-level cache allows, and where the image is small they are all of it.
"""

from __future__ import annotations

from itertools import product as pairs

from engine import dims, dtypes
from engine.dims import Size, product
from engine.program import Call, Lowered, Pointer
from engine.schedule import ConvChain, KernelSpec
from runtime.cpu.contraction import TASK_OVERHEAD, THREADS, ends_narrow, fitting, row_blocks
from runtime.cpu.conv import POINTS, computed_dtype
from runtime.cpu.depthwise import DepthwiseTile, pack_windows, place_lines, points_together, walk_lines
from runtime.cpu.emit import kernel
from runtime.cpu.packing import Axis, Packed, Panels, pack
from runtime.cpu.scratch import scratch_lines, scratch_parts
from runtime.cpu.tiles import Tile, host_tile
from runtime.emit import SCRATCH, ArgTable, BodyEmitter, indent, load, loop, store
from runtime.tasks import coordinates, piece, typical

PATCH_BYTES = 262144
"""The most that a tile's input should take."""
CHANNELS = 96
"""The most channels of a task, where they divide so."""
VECTOR_COST = 10
"""What a vector of a point costs besides its products, in multiply-adds: being written, and read again by the body."""
POINT_COST = 16
"""What every point costs besides, in vector multiply-adds."""


def plan_chain(core: ConvChain, images: Size) -> DepthwiseTile:
    """The tile of ``core.last`` with which two threads and eight are expected to be done soonest."""
    last, dtype = core.last, computed_dtype(core.last)
    lanes = host_tile(dtype).lanes
    cases = [typical(images, value) for value in ((1, 64) if dims.names(images) else (1,))]
    high, wide = (typical(n) for n in last.out_size)

    def time(tile: DepthwiseTile) -> float:
        vectors = -(-tile.channels // lanes)
        made, kept = 1, tile.size[0] * tile.size[1]
        for axis in (0, 1):
            made *= min(tile.patch.extent(axis), typical(last.in_size[axis]))
        task = made * (POINT_COST + vectors * (core.source.in_channels + VECTOR_COST)) + TASK_OVERHEAD
        task += kept * (POINT_COST + vectors * (last.kernel[0] * last.kernel[1] + VECTOR_COST))
        tasks = [typical(product(tile.space(n).values())) for n in cases]
        return sum(-(-count // threads) * threads * task / n
                   for count, n in zip(tasks, cases, strict=True) for threads in THREADS)  # fmt: skip

    blocks = [c for c in range(lanes, CHANNELS + 1, lanes) if last.groups % c == 0]
    found = [
        DepthwiseTile(last, dtype, size, channels, points_together(last, size[1]))
        for channels in blocks or [last.groups]
        for size in dict.fromkeys(pairs((piece(high, h) for h in range(1, high + 1)),
                                        (piece(wide, w) for w in (16, 32, 64, 128))))
    ]  # fmt: skip
    near = [tile for tile in found if tile.patch.bytes <= PATCH_BYTES]
    return min(near or found[:1], key=time)


def lower_conv_chain(spec: KernelSpec, core: ConvChain) -> Lowered:
    """The calls for ``spec``: two pack the weights of the two convolutions, one does the rest."""
    plan = plan_chain(core, spec.axes[0])
    source = core.source
    tile = fitting(host_tile(plan.dtype), plan.channels)
    windows, packed = pack_windows(spec, plan), _pack_weights(spec, core, plan, tile)
    block_channels = -(-plan.channels // tile.columns) * tile.columns
    rows = -(-POINTS // tile.rows) * tile.rows
    table = ArgTable()
    parts = scratch_parts({
        "patch": plan.patch.bytes, "block": rows * block_channels * plan.dtype.itemsize,
        "bases": (rows + tile.rows) * 8,
    })  # fmt: skip
    space = plan.space(spec.axes[0])
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, 4, table)
    value = load(plan.dtype, "values", "j", table.scope(SCRATCH))
    inner = BodyEmitter(core.inner, spec.reads, (), 4, table, core={0: value}, tag="_inner_")
    table.declare(block_channels=block_channels)
    make, micro = _make_lines(core, plan, tile, packed.buffer.name, table, inner)
    lines = [*scratch_lines(parts, table), *emitter.start(), *inner.start()]
    lines += loop("task", "lo", "hi", [
        *coordinates(table, "task", space),
        *place_lines(plan, table),
        *make,
        *walk_lines(plan, emitter, table, windows.buffer.name),
    ])  # fmt: skip
    code = kernel(f"conv_chain_{plan.dtype}", lines, table, modules={"runtime.cpu.microkernel": micro})
    reads = dict.fromkeys([source.x.buffer, packed.buffer.name, windows.buffer.name, *(r.buffer for r in spec.reads)])
    writes = dict.fromkeys(access.buffer for access in spec.writes)
    main = Call(code.key, spec.name, table.args, product(space.values()), tuple(reads), tuple(writes), parts["end"],
                spec.nodes)  # fmt: skip
    kernels = {k.key: k for k in (packed.kernel, windows.kernel, code)}
    return Lowered((packed.call, windows.call, main), tuple(kernels.values()), (packed.buffer, windows.buffer))


def _pack_weights(spec: KernelSpec, core: ConvChain, plan: DepthwiseTile, tile: Tile) -> Packed:
    """The call that packs the first convolution's weights: ``[block][panel][inputs][columns]``."""
    w, each = core.source.w, plan.channels
    outputs, inputs = w.strides[:2]
    panels = Panels(
        w.buffer, w.offset, w.dtype, [Axis(core.last.groups // each, each * outputs)],
        [Axis(core.source.in_channels, inputs)], Axis(each, outputs), tile.columns, plan.dtype,
    )  # fmt: skip
    return pack(panels, f"{spec.name}.weights", spec.name, spec.nodes)


def _make_lines(core: ConvChain, plan: DepthwiseTile, tile: Tile, weights: str, table: ArgTable,
                inner: BodyEmitter) -> tuple[list[str], list[str]]:  # fmt: skip
    """Lines that make the input of a task's tile in ``patch``, and the names of the microkernels used."""
    source, patch, x = core.source, plan.patch, core.source.x
    size, scope = plan.dtype.itemsize, table.scope(SCRATCH)
    panel_bytes = source.in_channels * tile.columns * size
    patch.declare(table)
    table.declare(
        x=Pointer(x.buffer, x.offset * size), weights=Pointer(weights), x_n=x.strides[0], x_h=x.strides[1],
        x_w=x.strides[2], x_c=x.strides[3], inputs=source.in_channels, weights_panel=panel_bytes,
        weights_block=-(-plan.channels // tile.columns) * panel_bytes,
    )  # fmt: skip
    unit = x.strides[3] == 1
    names = [tile.name(plan.dtype, height, unit, True) for height in tile.heights]
    call = (
        f"{{tile}}(1, inputs, x_c * {size}, bases + r * 8, column, {tile.columns * size}, "
        f"block + (r * block_channels + c) * {size}, block_channels * {size}, 0)"
    )
    multiply = row_blocks(names, tile.heights, call, "0", "here")
    if ends_narrow(plan.channels, tile):
        narrow = [tile.narrow.name(plan.dtype, height, unit, False) for height in tile.heights]
        multiply = [f"if channels - c > {tile.lanes}:", *indent(multiply), "else:",
                    *indent(row_blocks(narrow, tile.heights, call, "0", "here"))]  # fmt: skip
        names += narrow
    by_image = inner.enter(0, "n")
    by_pixel = [*inner.enter(1, "ih"), *inner.enter(2, "iw")]
    by_channel = inner.enter(3, "channel0 + j", inline=True)
    by_channel.append(store(plan.dtype, "target", "j", inner.value(core.inner[-1].name), scope))
    next_pixel = ["iw += 1", "if iw == last_w:", "    iw = first_w", "    ih += 1"]
    lines = [
        f"image = x + n * x_n * {size}",
        "start_h = oh0 * stride_h - pad_h",
        "start_w = ow0 * stride_w - pad_w",
        "first_h = maximum(start_h, 0)",
        "first_w = maximum(start_w, 0)",
        "last_h = maximum(first_h, minimum(in_h, start_h + (tile_h - 1) * stride_h + reach_h))",
        "last_w = maximum(first_w, minimum(in_w, start_w + patch_w))",
        "left = minimum(first_w - start_w, patch_w) * channels",
        "right = minimum(last_w - start_w, patch_w) * channels",
        *loop("row", "0", "(tile_h - 1) * stride_h + reach_h", [
            f"line = patch + row * pitch * {size}",
            "if start_h + row >= first_h and start_h + row < last_h:",
            *indent([*patch.clear_lines("0", "left", scope), *patch.clear_lines("right", "pitch", scope)]),
            "else:",
            *indent(patch.clear_lines("0", "pitch", scope)),
        ]),
        *by_image,
        "pixels = (last_h - first_h) * (last_w - first_w)",
        "from_h = first_h",
        "from_w = first_w",
        f"for begin in range(0, pixels, {POINTS}):",
        *indent([
            f"here = minimum(pixels - begin, {POINTS})",
            "ih = from_h",
            "iw = from_w",
            *loop("r", "0", "here", [
                store(dtypes.i64, "bases", "r", f"image + (ih * x_h + iw * x_w) * {size}", scope),
                *next_pixel,
            ]),
            *loop("r", "here", f"here + {tile.rows - 1}", [
                store(dtypes.i64, "bases", "r", load(dtypes.i64, "bases", "here - 1", scope), scope),
            ]),
            "column = weights + channel_block * weights_block",
            f"for c in range(0, channels, {tile.columns}):",
            *indent(multiply),
            "    column += weights_panel",
            "ih = from_h",
            "iw = from_w",
            *loop("r", "0", "here", [
                f"values = block + r * block_channels * {size}",
                f"target = patch + ((ih - start_h) * pitch + (iw - start_w) * channels) * {size}",
                *by_pixel,
                *loop("j", "0", "channels", by_channel),
                *next_pixel,
            ]),
            "from_h = ih",
            "from_w = iw",
        ]),
    ]  # fmt: skip
    return lines, names
