"""Lowering a convolution of single pixels of what a depthwise convolution makes: the image between them is never in
memory.

A task makes some rows of the result, with all channels. A few rows at a time it copies the lines of input that they
read, each once, convolves them into a block that stays in the nearest caches, multiplies that by the weights, and runs
the body on what this makes. No pixel is computed twice.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from engine.dims import product
from engine.program import Call, Lowered, Pointer
from engine.schedule import Access, ConvChain, KernelSpec
from runtime.cpu.contraction import ENOUGH_TASKS, ends_narrow, fitting, row_blocks
from runtime.cpu.conv import computed_dtype
from runtime.cpu.conv_chain import ChainTile, chain_tile, without_factors
from runtime.cpu.depthwise import DepthwiseTile, pack_windows, place_lines, points_together, row_lines
from runtime.cpu.emit import kernel
from runtime.cpu.packing import Axis, Packed, Panels, pack
from runtime.cpu.scratch import scratch_lines, scratch_parts
from runtime.cpu.tiles import Tile, host_tile
from runtime.emit import SCRATCH, ArgTable, BodyEmitter, indent, load, loop, note, store
from runtime.tasks import coordinates, piece, typical

WIDEST = 128
"""The most columns of a task."""
PIXELS = 96
"""How many pixels at least are made before they are multiplied, for whole microkernels."""


def plan_separable(core: ConvChain) -> ChainTile:
    """Tiles so high that one image makes enough tasks."""
    source = core.source
    high, wide = source.out_size
    width = piece(wide, WIDEST)
    across = -(-typical(wide) // width)
    height = piece(high, max(typical(high) * across // ENOUGH_TASKS, 1))
    tile = DepthwiseTile(source, computed_dtype(source), (height, width), source.groups, points_together(source, width))
    return chain_tile(tile, PIXELS)


def lower_separable(spec: KernelSpec, core: ConvChain, lasting: Collection[str] = ()) -> Lowered:
    """The calls for ``spec``: two pack the weights of the two convolutions, one does the rest. ``lasting`` names the
    buffers that stay from call to call."""
    spec, core, by_window, by_output = without_factors(spec, core, lasting)
    chain = plan_separable(core)
    plan, last = chain.tile, core.last
    tile = fitting(host_tile(plan.dtype), last.out_channels)
    windows, packed = pack_windows(spec, plan, by_window), _pack_weights(spec, core, plan, tile, by_output)
    table = ArgTable()
    inner = BodyEmitter(core.inner, spec.reads, (), 4, table, tag="_inner_")
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, 4, table,
                          core={0: load(plan.dtype, "values", "j", table.scope(SCRATCH))})  # fmt: skip
    start = [*inner.start(), *emitter.start()]
    by_task, copied = _input_lines(plan, table)
    before, made = _middle_lines(chain, core, inner, windows.buffer.name, table)
    multiply, names = _product_lines(chain, core, tile, packed.buffer.name, table)
    width = -(-last.out_channels // tile.columns) * tile.columns
    pixels = chain.rows * plan.size[1] + tile.rows
    parts = scratch_parts({
        "patch": chain.bytes, "made": pixels * plan.channels * plan.dtype.itemsize,
        "sums": pixels * width * plan.dtype.itemsize, "pixels": pixels * 8,
    })  # fmt: skip
    space = plan.space(spec.axes[0])
    table.declare(ring=chain.ring, strip=chain.rows, outputs=last.out_channels, sums_width=width)
    task = loop("task", "lo", "hi", [
        *coordinates(table, "task", space),
        *place_lines(plan, table),
        *by_task,
        *before,
        *emitter.enter(0, "n"),
        "done = 0",
        "top = 0",
        "while top < tile_h:",
        *indent([
            "stop = minimum(top + strip, tile_h)",
            *copied,
            *made,
            "rows = (stop - top) * tile_w",
            *multiply,
            *_body_lines(plan, emitter),
            "top = stop",
        ]),
    ])  # fmt: skip
    address = note("pixels", "r", f"made + r * channels * {plan.dtype.itemsize}", table.scope(SCRATCH))
    lines = [*scratch_lines(parts, table), *start, *loop("r", "0", str(pixels), [address]), *task]
    code = kernel(
        f"conv_separable_{plan.dtype}", lines, table, modules={"runtime.cpu.microkernel": names, **plan.patch.modules}
    )
    x = core.source.x
    reads = dict.fromkeys([x.buffer, packed.buffer.name, windows.buffer.name, *(r.buffer for r in spec.reads)])
    writes = dict.fromkeys(access.buffer for access in spec.writes)
    main = Call(code.key, spec.name, table.args, product(space.values()), tuple(reads), tuple(writes), parts["end"],
                spec.nodes)  # fmt: skip
    kernels = {k.key: k for k in (packed.kernel, windows.kernel, code)}
    return Lowered((packed.call, windows.call, main), tuple(kernels.values()), (packed.buffer, windows.buffer))


def _pack_weights(spec: KernelSpec, core: ConvChain, plan: DepthwiseTile, tile: Tile,
                  factor: Access | None) -> Packed:  # fmt: skip
    """The call that packs the last convolution's weights, times ``factor``: ``[panel][inputs][columns]``."""
    w, last = core.last.w, core.last
    outputs, inputs = w.strides[:2]
    panels = Panels(w.buffer, w.offset, w.dtype, [], [Axis(last.in_channels, inputs)],
                    Axis(last.out_channels, outputs), tile.columns, plan.dtype,
                    factor and replace(factor, strides=(1,)))  # fmt: skip
    return pack(panels, f"{spec.name}.weights", spec.name, spec.nodes)


def _input_lines(plan: DepthwiseTile, table: ArgTable) -> tuple[list[str], list[str]]:
    """Lines at the start of a task, and those that copy what its rows ``top .. stop`` read beyond the lines of input
    that are ``done``. Lines take turns in a ring."""
    x, patch, scope = plan.core.x, plan.patch, table.scope(SCRATCH)
    patch.declare(table)
    table.declare(x=Pointer(x.buffer, x.offset * x.dtype.itemsize), x_n=x.strides[0], x_h=x.strides[1])
    by_task = [
        f"image = x + n * x_n * {x.dtype.itemsize}",
        "start_h = oh0 * stride_h - pad_h",
        "start_w = ow0 * stride_w - pad_w",
        "first = maximum(start_w, 0)",
        "last = maximum(first, minimum(in_w, start_w + patch_w))",
        "left = minimum(first - start_w, patch_w) * channels",
        "right = minimum(last - start_w, patch_w) * channels",
    ]
    return by_task, [
        "done = maximum(done, top * stride_h)",
        "needed = (stop - 1) * stride_h + reach_h",
        *loop("row", "done", "needed", [
            f"line = patch + (row - quotient(row, ring) * ring) * pitch * {plan.dtype.itemsize}",
            "ih = start_h + row",
            "if ih >= 0 and ih < in_h:",
            *indent([
                f"source = image + ih * x_h * {x.dtype.itemsize}",
                *patch.clear_lines("0", "left", scope),
                *patch.copy_line(table, scope, "(iw - start_w)"),
                *patch.clear_lines("right", "pitch", scope),
            ]),
            "else:",
            *indent(patch.clear_lines("0", "pitch", scope)),
        ]),
        "done = needed",
    ]  # fmt: skip


def _middle_lines(chain: ChainTile, core: ConvChain, inner: BodyEmitter, windows: str,
                  table: ArgTable) -> tuple[list[str], list[str]]:  # fmt: skip
    """Lines before the strips of a task, and those that make what the rows ``top .. stop`` of it read in ``made``."""
    plan, last = chain.tile, core.inner[-1].name
    scope = table.scope("made")

    def keep(body: BodyEmitter, point: int) -> list[str]:
        return [store(plan.dtype, "target", f"(s + {point}) * channels + j", body.value(last), scope)]

    before, by_row = row_lines(plan, inner, table, windows, chain.ring_lines, keep)
    target = f"target = made + (r - top) * tile_w * channels * {plan.dtype.itemsize}"
    return before, loop("r", "top", "stop", [target, *by_row])


def _product_lines(chain: ChainTile, core: ConvChain, tile: Tile, weights: str,
                   table: ArgTable) -> tuple[list[str], list[str]]:  # fmt: skip
    """Lines that multiply ``rows`` pixels of ``made`` by all weights into ``sums``, and the names of the
    microkernels."""
    dtype, size, last = chain.tile.dtype, chain.tile.dtype.itemsize, core.last
    table.declare(weights=Pointer(weights), weights_panel=last.in_channels * tile.columns * size)
    call = (
        f"{{tile}}(1, channels, {size}, pixels + r * 8, column, {tile.columns * size}, "
        f"sums + (r * sums_width + c) * {size}, sums_width * {size}, 0)"
    )
    names = [tile.name(dtype, height, True, True) for height in tile.heights]
    multiply = row_blocks(names, tile.heights, call)
    if ends_narrow(last.out_channels, tile):
        narrow = [tile.narrow.name(dtype, height, True, False) for height in tile.heights]
        multiply = [f"if outputs - c > {tile.lanes}:", *indent(multiply), "else:",
                    *indent(row_blocks(narrow, tile.heights, call))]  # fmt: skip
        names += narrow
    return [
        "column = weights",
        f"for c in range(0, outputs, {tile.columns}):",
        *indent([*multiply, "column += weights_panel"]),
    ], names


def _body_lines(plan: DepthwiseTile, emitter: BodyEmitter) -> list[str]:
    """Lines that run the body on the ``sums`` of the rows ``top .. stop``."""
    by_row = ["oh = oh0 + r", *emitter.enter(1, "oh")]
    by_pixel = emitter.enter(2, "(ow0 + s)")
    inside = emitter.enter(3, "j", inline=True)
    return [
        "values = sums",
        *loop("r", "top", "stop", [
            *by_row,
            *loop("s", "0", "tile_w", [
                *by_pixel,
                *loop("j", "0", "outputs", inside),
                f"values += sums_width * {plan.dtype.itemsize}",
            ]),
        ]),
    ]  # fmt: skip
