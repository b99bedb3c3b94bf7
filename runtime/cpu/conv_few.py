"""Lowering a convolution of few channels whose rows lie along memory, as those of pictures do.

A task makes some rows of outputs. It copies the lines of input that they read as they lie, with their padding, channel
by channel; the microkernel finds its taps by a table of their distances from a pixel's first one, which is the same for
all pixels. The body runs on the sums while they are in registers.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

from engine import dtypes
from engine.dims import Size, ceil_div, product
from engine.dtypes import DType
from engine.program import Call, Lowered, Pointer
from engine.schedule import Access, Conv2d, KernelSpec
from runtime.cpu.contraction import by_width, fitting
from runtime.cpu.conv import tap_axes
from runtime.cpu.conv_patch import FEW_CHANNELS, Patch
from runtime.cpu.emit import kernel
from runtime.cpu.factors import take_factor
from runtime.cpu.packing import Axis, Packed, Panels, pack
from runtime.cpu.register_bodies import RegisterBody, is_arithmetic
from runtime.cpu.scratch import scratch_lines, scratch_parts
from runtime.cpu.tiles import Tile, host_tile
from runtime.emit import SCRATCH, ArgTable, BodyEmitter, indent, load, loop, note
from runtime.tasks import coordinates, piece, typical

PATCH_BYTES = 24576
"""The most that the copy of a task's input should take: it stays in the first-level cache, beside the weights."""
WIDEST = 128
"""The most output columns of a task."""


def has_few_channels(spec: KernelSpec) -> bool:
    """Whether this kernel serves ``spec``: lines of known size in the image, whole vectors of results, and a body that
    runs in registers and ends in one store of these."""
    core = spec.core
    if not isinstance(core, Conv2d) or core.groups != 1 or core.flip or core.x_dilation != (1, 1):
        return False
    x, dtype, (*body, last) = core.x, core.x.dtype, spec.body
    return (
        core.in_channels <= FEW_CHANNELS and x.strides[2] == 1 != x.strides[3]
        and dtype == core.w.dtype and dtype.is_float and not dtype.storage_only
        and all(isinstance(n, int) and n > 0 for n in (*core.in_size, *core.out_size))
        and core.out_channels % (tile := _tile(core, dtype)).columns in (0, tile.lanes)
        and is_arithmetic(body, spec.reads, dtype) and last.op == "store"
        and spec.writes[0].dtype == dtype and spec.writes[0].strides[3] == 1
        and not {access.buffer for access in spec.reads} & {access.buffer for access in spec.writes}
    )  # fmt: skip


def _tile(core: Conv2d, dtype: DType) -> Tile:
    return fitting(host_tile(dtype), core.out_channels)


def _patch(core: Conv2d) -> Patch:
    """What a task copies of each channel: for as many rows as stay near."""
    wide = piece(core.out_size[1], WIDEST)

    def patch(rows: int) -> Patch:
        return Patch(core, (rows, wide), 1, core.x.dtype)

    rows = 1
    while core.in_channels * patch(rows + 1).bytes <= PATCH_BYTES and rows < typical(core.out_size[0]):
        rows += 1
    return patch(piece(core.out_size[0], rows))


def lower_few_channels(spec: KernelSpec, lasting: Collection[str] = ()) -> Lowered:
    """The calls for ``spec``, which :func:`has_few_channels`: one packs the weights, one convolves. ``lasting`` names
    the buffers that stay from call to call."""
    core = spec.core
    assert isinstance(core, Conv2d)
    left, factor = take_factor(spec.body, spec.reads, core.w, lasting)
    spec = replace(spec, body=left)
    x, y, dtype, size = core.x, spec.writes[0], core.x.dtype, core.x.dtype.itemsize
    tile = _tile(core, dtype)
    packed = _pack_weights(spec, core, tile, factor)
    patch = _patch(core)
    tall, wide = patch.tile
    pixels = tall * wide + tile.rows
    depth = math.prod(core.kernel) * core.in_channels
    table = ArgTable()
    scope = table.scope(SCRATCH)
    patch.declare(table)
    table.declare(
        x=Pointer(x.buffer, x.offset * size), x_n=x.strides[0], x_h=x.strides[1], x_c=x.strides[3],
        y=Pointer(y.buffer, y.offset * size), y_n=y.strides[0], y_h=y.strides[1], y_w=y.strides[2],
        weights=Pointer(packed.buffer.name), weights_panel=depth * tile.columns * size, depth=depth,
        inputs=core.in_channels, outputs=core.out_channels, taps_h=core.kernel[0], taps_w=core.kernel[1],
        dilation_h=core.dilation[0], dilation_w=core.dilation[1], out_h=core.out_size[0], out_w=core.out_size[1],
        tall=tall, wide=wide,
    )  # fmt: skip
    emitter = BodyEmitter(spec.body[:-1], spec.reads, (), 4, table)
    start = [*emitter.start(), *emitter.enter(0, "0")]
    body = RegisterBody(emitter, str(spec.body[-1].args[1]), dtype)
    call = f"1, depth, taps, pixels + r * 8, column, {tile.columns * size}"
    finish = f"store_rows_{{shape}}(targets + r * 8, corner + c * {size}, {{value}})"

    def panel(tile: Tile, packed: bool) -> list[str]:
        return body.lines(tile, (False, True, "taps"), call, "c", "rows", finish)

    parts = scratch_parts({
        "patch": core.in_channels * patch.bytes, "taps": depth * 8, "pixels": pixels * 8, "targets": pixels * 8,
    })  # fmt: skip
    space: dict[str, Size] = {
        "n": spec.axes[0], "tile_y": ceil_div(core.out_size[0], tall), "tile_x": ceil_div(core.out_size[1], wide)
    }  # fmt: skip
    lines = [
        *scratch_lines(parts, table),
        *start,
        *_tap_lines(size, scope),
        "known_w = 0",
        "known_rows = 0",
        *loop("task", "lo", "hi", [
            *coordinates(table, "task", space),
            "oh0 = tile_y * tall",
            "ow0 = tile_x * wide",
            "tile_h = minimum(tall, out_h - oh0)",
            "tile_w = minimum(wide, out_w - ow0)",
            "rows = tile_h * tile_w",
            *_pixel_lines(size, tile.rows, scope),
            *_copy_lines(core, patch, table, scope),
            f"corner = (n * y_n + oh0 * y_h + ow0 * y_w) * {size}",
            "column = weights",
            f"for c in range(0, outputs, {tile.columns}):",
            *indent([*by_width(core.out_channels, tile, "outputs - c", panel), "column += weights_panel"]),
        ]),
    ]  # fmt: skip
    code = kernel(f"conv2d_few_{dtype}", lines, table, modules=body.modules)
    reads = dict.fromkeys([x.buffer, packed.buffer.name, *(access.buffer for access in spec.reads)])
    main = Call(code.key, spec.name, table.args, product(space.values()), tuple(reads), (y.buffer,), parts["end"],
                spec.nodes)  # fmt: skip
    return Lowered((packed.call, main), (packed.kernel, code), (packed.buffer,))


def _pack_weights(spec: KernelSpec, core: Conv2d, tile: Tile, factor: Access | None) -> Packed:
    """The call that packs the weights, times ``factor``: ``[panel][kh, kw, ic][columns]``."""
    offset, taps = tap_axes(core)
    outputs, inputs = core.w.strides[:2]
    panels = Panels(core.w.buffer, offset, core.w.dtype, [], [*taps, Axis(core.in_channels, inputs)],
                    Axis(core.out_channels, outputs), tile.columns, core.x.dtype,
                    factor and replace(factor, strides=(1,)))  # fmt: skip
    return pack(panels, f"{spec.name}.weights", spec.name, spec.nodes)


def _tap_lines(size: int, scope: int) -> list[str]:
    """Lines that note how far each tap is from a pixel's first one, in the order of the weights."""
    distance = f"(kh * dilation_h * inputs * pitch + kw * dilation_w + c * pitch) * {size}"
    return loop("kh", "0", "taps_h", loop("kw", "0", "taps_w", loop("c", "0", "inputs", [
        note("taps", "(kh * taps_w + kw) * inputs + c", distance, scope)
    ])))  # fmt: skip


def _pixel_lines(size: int, height: int, scope: int) -> list[str]:
    """Lines that note where each of ``rows`` outputs has its first tap, and where the results are that far from the
    corner of a task; the last is noted again for a whole microkernel. It is the same for all tasks of a size."""
    repeated = [note(name, "r", load(dtypes.i64, name, "rows - 1", scope), scope) for name in ("pixels", "targets")]
    return [
        "if tile_w != known_w or rows != known_rows:",
        *indent([
            *loop("r", "0", "tile_h", loop("s", "0", "tile_w", [
                note("pixels", "r * tile_w + s", f"patch + (r * stride_h * inputs * pitch + s * stride_w) * {size}",
                     scope),
                note("targets", "r * tile_w + s", f"y + (r * y_h + s * y_w) * {size}", scope),
            ])),
            *loop("r", "rows", f"rows + {height - 1}", repeated),
            "known_w = tile_w",
            "known_rows = rows",
        ]),
    ]  # fmt: skip


def _copy_lines(core: Conv2d, patch: Patch, table: ArgTable, scope: int) -> list[str]:
    """Lines that fill ``patch``, ``[row][channel][column]``."""
    size = patch.dtype.itemsize
    return [
        "start_h = oh0 * stride_h - pad_h",
        "start_w = ow0 * stride_w - pad_w",
        "first = maximum(start_w, 0)",
        "last = maximum(first, minimum(in_w, start_w + patch_w))",
        "left = minimum(first - start_w, patch_w)",
        "right = minimum(last - start_w, patch_w)",
        *loop("row", "0", "(tile_h - 1) * stride_h + reach_h", [
            "ih = start_h + row",
            *loop("c", "0", "inputs", [
                f"line = patch + (row * inputs + c) * pitch * {size}",
                "if ih >= 0 and ih < in_h:",
                *indent([
                    f"source = x + (n * x_n + ih * x_h + c * x_c) * {size}",
                    *patch.clear_lines("0", "left", scope),
                    *patch.copy_line(table, scope, "(iw - start_w)"),
                    *patch.clear_lines("right", "pitch", scope),
                ]),
                "else:",
                *indent(patch.clear_lines("0", "pitch", scope)),
            ]),
        ]),
    ]  # fmt: skip
