"""Lowering a convolution of few channels whose rows lie along memory, as those of pictures do.

A task makes some rows of outputs. It copies the lines of input that they read as they lie, with their padding, channel
by channel; the microkernel finds its taps by a table of their distances from a pixel's first one, which is the same for
all pixels. The body runs on the sums while they are in registers. Where windows of the results are pooled, the pixels
of a window are neighbours in the registers: the largest are found there too, and nothing else is stored.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

from engine import dims, dtypes
from engine.dims import Size, ceil_div, product
from engine.program import Call, Lowered, Pointer
from engine.records import dataclass
from engine.schedule import Access, Conv2d, KernelSpec, MaxPool2d, Stmt
from runtime.cpu.contraction import TASK_OVERHEAD, THREADS, by_width, fitting
from runtime.cpu.conv import tap_axes
from runtime.cpu.conv_patch import FEW_CHANNELS, Patch
from runtime.cpu.emit import kernel
from runtime.cpu.factors import take_factor
from runtime.cpu.packing import Axis, Packed, Panels, pack
from runtime.cpu.register_bodies import Pooled, RegisterBody, is_arithmetic
from runtime.cpu.scratch import scratch_lines, scratch_parts
from runtime.cpu.tiles import Tile, host_tile
from runtime.emit import SCRATCH, ArgTable, BodyEmitter, indent, load, loop, note, times
from runtime.tasks import coordinates, piece, typical
from runtime.windows import always_inside

PATCH_BYTES = 24576
"""The most that the copy of a task's input should take: it stays in the first-level cache, beside the weights."""
WIDEST = 128
"""The most output columns of a task."""


@dataclass(frozen=True)
class _Few:
    """A convolution, the ``window`` of its results of which the largest is taken, and the body ``inner`` before that;
    where results are not pooled, a window is one of them."""

    core: Conv2d
    window: tuple[int, int] = (1, 1)
    inner: tuple[Stmt, ...] = ()

    @property
    def each(self) -> int:
        """How many results a window has."""
        return math.prod(self.window)

    @property
    def tile(self) -> Tile:
        return fitting(host_tile(self.core.x.dtype), self.core.out_channels)


def _few(spec: KernelSpec) -> _Few | None:
    """What ``spec`` is, or None where it is no convolution, or a pool whose windows overlap, reach over the border or
    tell where they found the largest."""
    match spec.core:
        case Conv2d() as core:
            return _Few(core)
        case MaxPool2d(source=Conv2d() as core) as pool:
            sizes = pool.in_size, spec.axes[1:3], pool.kernel, pool.stride, pool.padding, pool.dilation
            apart = pool.kernel == pool.stride and pool.dilation == (1, 1) and always_inside(*sizes)
            if apart and not any(s.op == "core" and s.args[0] != 0 for s in spec.body):
                return _Few(core, pool.kernel, pool.inner)
    return None


def has_few_channels(spec: KernelSpec) -> bool:
    """Whether this kernel serves ``spec``: lines of known size in the image, whole vectors of results, windows that fit
    in registers, and a body that runs in these and ends in one store of them."""
    few = _few(spec)
    if few is None or few.core.groups != 1 or few.core.flip or few.core.x_dilation != (1, 1):
        return False
    core, tile, x, dtype, (*body, last) = few.core, few.tile, few.core.x, few.core.x.dtype, spec.body
    return (
        core.in_channels <= FEW_CHANNELS and x.strides[2] == 1 and (x.strides[3] != 1 or core.in_channels == 1)
        and dtype == core.w.dtype and dtype.is_float and not dtype.storage_only
        and all(isinstance(n, int) and n > 0 for n in (*core.in_size, *spec.axes[1:3]))
        and few.each <= tile.rows and core.out_channels % tile.columns in (0, tile.lanes)
        and is_arithmetic([*few.inner, *body], spec.reads, dtype) and last.op == "store"
        and spec.writes[0].dtype == dtype and spec.writes[0].strides[3] == 1
        and not {access.buffer for access in spec.reads} & {access.buffer for access in spec.writes}
    )  # fmt: skip


def _patch(few: _Few, images: Size, points: tuple[int, int]) -> tuple[Patch, int, int]:
    """What a task copies of each channel, and how many of the ``points`` of the result it makes down and across. These
    are, of what stays near, the rows with which two threads and eight are expected to be done soonest."""
    core, (down, across) = few.core, few.window
    wide = piece(points[1], max(WIDEST // across, 1))
    row = wide * few.each * math.prod(core.kernel) * core.in_channels * -(-core.out_channels // few.tile.lanes)
    cases = [typical(images, value) for value in ((1, 64) if dims.names(images) else (1,))]

    def patch(rows: int) -> Patch:
        return Patch(core, (rows * down, wide * across), 1, core.x.dtype)

    def time(rows: int) -> float:
        tasks = -(-points[0] // rows) * -(-points[1] // wide)
        return sum(-(-n * tasks // t) * t * (rows * row + TASK_OVERHEAD) / n for n in cases for t in THREADS)

    heights = dict.fromkeys(piece(points[0], rows) for rows in range(1, points[0] + 1))
    near = [rows for rows in heights if core.in_channels * patch(rows).bytes <= PATCH_BYTES]
    tall = min(near or [1], key=time)
    return patch(tall), tall, wide


def lower_few_channels(spec: KernelSpec, lasting: Collection[str] = ()) -> Lowered:
    """The calls for ``spec``, which :func:`has_few_channels`: one packs the weights, one convolves. ``lasting`` names
    the buffers that stay from call to call."""
    few = _few(spec)
    assert few is not None
    core, each = few.core, few.each
    body, factor = take_factor(few.inner or spec.body, spec.reads, core.w, lasting)
    if few.inner:
        few = replace(few, inner=body)
    else:
        spec = replace(spec, body=body)
    x, y, dtype, size = core.x, spec.writes[0], core.x.dtype, core.x.dtype.itemsize
    tile = few.tile
    packed = _pack_weights(spec, core, tile, factor)
    points = typical(spec.axes[1]), typical(spec.axes[2])
    patch, tall, wide = _patch(few, spec.axes[0], points)
    depth = math.prod(core.kernel) * core.in_channels
    table = ArgTable()
    scope = table.scope(SCRATCH)
    patch.declare(table)
    table.declare(
        x=Pointer(x.buffer, x.offset * size), x_n=x.strides[0], x_h=x.strides[1], x_c=x.strides[3],
        y=Pointer(y.buffer, y.offset * size), y_n=y.strides[0], y_h=y.strides[1], y_w=y.strides[2],
        weights=Pointer(packed.buffer.name), weights_panel=depth * tile.columns * size, depth=depth,
        inputs=core.in_channels, outputs=core.out_channels, taps_h=core.kernel[0], taps_w=core.kernel[1],
        dilation_h=core.dilation[0], dilation_w=core.dilation[1], out_h=points[0], out_w=points[1],
        tall=tall, wide=wide,
    )  # fmt: skip
    emitter = BodyEmitter(spec.body[:-1], spec.reads, (), 4, table)
    start = [*emitter.start(), *emitter.enter(0, "0")]
    pooled = None
    if few.inner:
        inner = BodyEmitter(few.inner, spec.reads, (), 4, table, tag="_inner_")
        start += [*inner.start(), *inner.enter(0, "0")]
        pooled = Pooled(inner, few.inner[-1].name, each)
    body_of_tiles = RegisterBody(emitter, str(spec.body[-1].args[1]), dtype, pooled=pooled)
    call = f"1, depth, taps, pixels + r * 8, column, {tile.columns * size}"
    target = "r" if each == 1 else f"quotient(r, {each})"
    finish = f"store_rows_{{shape}}(targets + {target} * 8, corner + c * {size}, {{value}})"

    def panel(tile: Tile, packed: bool) -> list[str]:
        return body_of_tiles.lines(tile, (False, True, "taps"), call, "c", "rows", finish)

    made = tall * wide + tile.rows
    parts = scratch_parts({
        "patch": core.in_channels * patch.bytes, "taps": depth * 8, "pixels": made * each * 8, "targets": made * 8,
    })  # fmt: skip
    space: dict[str, Size] = {
        "n": spec.axes[0],
        "tile_y": ceil_div(points[0], tall),
        "tile_x": ceil_div(points[1], wide),
    }
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
            f"rows = {times('tile_h * tile_w', str(each))}",
            *_pixel_lines(few, scope),
            *_copy_lines(few, patch, table, scope),
            f"corner = (n * y_n + oh0 * y_h + ow0 * y_w) * {size}",
            "column = weights",
            f"for c in range(0, outputs, {tile.columns}):",
            *indent([*by_width(core.out_channels, tile, "outputs - c", panel), "column += weights_panel"]),
        ]),
    ]  # fmt: skip
    code = kernel(f"conv2d_few_{dtype}", lines, table, modules=body_of_tiles.modules)
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


def _pixel_lines(few: _Few, scope: int) -> list[str]:
    """Lines that note where each of ``rows`` results of the convolution has its first tap, window by window, and where
    what each window comes to is, that far from the corner of a task; the last window is noted again for a whole
    microkernel. It is the same for all tasks of a size."""
    size, height, each, (down, across) = few.core.x.dtype.itemsize, few.tile.rows, few.each, few.window
    place = "r * tile_w + s"
    window = [
        note("pixels", f"({place}) * {each} + {i * across + j}",
             f"patch + ((r * {down} + {i}) * stride_h * inputs * pitch + (s * {across} + {j}) * stride_w) * {size}",
             scope)
        for i in range(down) for j in range(across)
    ]  # fmt: skip

    def again(name: str, apart: int) -> str:
        return note(name, "r", load(dtypes.i64, name, f"r - {apart}", scope), scope)

    return [
        "if tile_w != known_w or rows != known_rows:",
        *indent([
            *loop("r", "0", "tile_h", loop("s", "0", "tile_w", [
                *window,
                note("targets", place, f"y + (r * y_h + s * y_w) * {size}", scope),
            ])),
            *loop("r", "rows", f"rows + {height - 1}", [again("pixels", each)]),
            *loop("r", "tile_h * tile_w", f"tile_h * tile_w + {height - 1}", [again("targets", 1)]),
            "known_w = tile_w",
            "known_rows = rows",
        ]),
    ]  # fmt: skip


def _copy_lines(few: _Few, patch: Patch, table: ArgTable, scope: int) -> list[str]:
    """Lines that fill ``patch``, ``[row][channel][column]``."""
    size, (down, across) = patch.dtype.itemsize, few.window
    return [
        f"start_h = {times('oh0', str(down))} * stride_h - pad_h",
        f"start_w = {times('ow0', str(across))} * stride_w - pad_w",
        "first = maximum(start_w, 0)",
        "last = maximum(first, minimum(in_w, start_w + patch_w))",
        "left = minimum(first - start_w, patch_w)",
        "right = minimum(last - start_w, patch_w)",
        *loop("row", "0", f"({times('tile_h', str(down))} - 1) * stride_h + reach_h", [
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
