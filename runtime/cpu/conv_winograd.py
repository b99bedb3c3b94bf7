"""Lowering a 3 x 3 convolution by Winograd's algorithm F(4 x 4, 3 x 3), at level 3 and with weights that stay.

Lavin and Gray (2015), "Fast algorithms for convolutional neural networks": a tile of 6 x 6 inputs and the window are
transformed, 36 numbers each, multiplied number by number, and transformed back to 4 x 4 outputs. Summed over the
channels, the products of all tiles are 36 matrix products with a quarter of the multiplications.

The transforms add numbers of different size, so it rounds more: errors stay within ``64 * eps * sqrt(k) * |x| * |w|``
for k products in a sum and the largest x and w, some ten times those of the sum itself. And an infinity or a NaN spoils
its whole tile.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from engine import dtypes
from engine.buffers import Buffer
from engine.dims import Size, ceil_div, product
from engine.dtypes import DType
from engine.program import Call, Kernel, Lowered, Pointer
from engine.schedule import Conv2d, KernelSpec
from runtime.cpu.contraction import ends_narrow, fitting, row_blocks
from runtime.cpu.conv import tap_axes
from runtime.cpu.emit import kernel
from runtime.cpu.scratch import scratch_lines, scratch_parts
from runtime.cpu.tiles import Tile, host_tile
from runtime.emit import SCRATCH, ArgTable, BodyEmitter, cast, constant, indent, load, loop, note, store
from runtime.tasks import coordinates, piece

OUT, IN = 4, 6
"""The width of a tile in outputs and in inputs."""
NUMBERS = IN * IN
TILES = 32
"""The most tiles of a task."""
LEAST_TILES = 12
"""With fewer tiles in an image, reading four times as many weights costs more than is saved."""
LEAST_CHANNELS = 32
PANELS = 2
"""Panels of output channels of a task."""


def is_winograd(core: Conv2d, lasting: Collection[str]) -> bool:
    """Whether ``core`` may be computed so, and is worth it: its weights are transformed once and stay."""
    return (
        core.relaxed and core.w.buffer in lasting and core.kernel == (3, 3) and core.groups == 1
        and core.stride == core.dilation == core.x_dilation == (1, 1) and core.x.strides[3] == 1
        and core.x.dtype == core.w.dtype == dtypes.f32 and core.in_channels >= LEAST_CHANNELS
        and all(isinstance(n, int) for n in (*core.in_size, *core.out_size))
        and product(_tiles(core)) >= LEAST_TILES
        and not ends_narrow(core.out_channels, fitting(host_tile(dtypes.f32), core.out_channels))
    )  # fmt: skip


def _tiles(core: Conv2d) -> tuple[Size, Size]:
    down, across = (ceil_div(n, OUT) for n in core.out_size)
    return down, across


def lower_winograd(spec: KernelSpec) -> Lowered:
    """The calls for ``spec``: one transforms the weights, one the image, one multiplies, transforms back and runs the
    body."""
    core = spec.core
    assert isinstance(core, Conv2d)
    tile = fitting(host_tile(dtypes.f32), core.out_channels)
    each = piece(product(_tiles(core)), TILES)
    total = spec.axes[0] * product(_tiles(core))
    blocks = ceil_div(total, each)
    panels = -(-core.out_channels // tile.columns)
    weights = Buffer(f"{spec.name}.weights", "temp", dtypes.f32, NUMBERS * panels * core.in_channels * tile.columns)
    image = Buffer(f"{spec.name}.image", "temp", dtypes.f32, blocks * NUMBERS * each * core.in_channels)
    parts = [
        _transform_weights(spec, core, tile, weights),
        _transform_image(spec, core, each, image),
        _multiply(spec, core, tile, each, weights, image),
    ]
    return Lowered(tuple(call for call, _ in parts), tuple(code for _, code in parts), (weights, image))


# --- the transforms of six, three and again six numbers ---------------------------------------------------------


def _input_transform(d: Sequence[str], dtype: DType) -> list[str]:
    two, four, five = (constant(n, dtype) for n in (2, 4, 5))
    a, b = f"({d[4]} - {four} * {d[2]})", f"({d[3]} - {four} * {d[1]})"
    c, e = f"({d[4]} - {d[2]})", f"{two} * ({d[3]} - {d[1]})"
    return [
        f"{four} * {d[0]} - {five} * {d[2]} + {d[4]}", f"{a} + {b}", f"{a} - {b}", f"{c} + {e}", f"{c} - {e}",
        f"{four} * {d[1]} - {five} * {d[3]} + {d[5]}",
    ]  # fmt: skip


def _weight_transform(g: Sequence[str], dtype: DType) -> list[str]:
    quarter, sixth, twelfth, part = (constant(1 / n, dtype) for n in (4, 6, 12, 24))
    outer, wide = f"({g[0]} + {g[2]})", f"({part} * {g[0]} + {sixth} * {g[2]})"
    return [
        f"{quarter} * {g[0]}", f"-{sixth} * ({outer} + {g[1]})", f"-{sixth} * ({outer} - {g[1]})",
        f"{wide} + {twelfth} * {g[1]}", f"{wide} - {twelfth} * {g[1]}", g[2],
    ]  # fmt: skip


def _output_transform(m: Sequence[str], dtype: DType) -> list[str]:
    two, four, eight = (constant(n, dtype) for n in (2, 4, 8))
    s, u, v, z = f"({m[1]} + {m[2]})", f"({m[1]} - {m[2]})", f"({m[3]} + {m[4]})", f"({m[3]} - {m[4]})"
    return [f"{m[0]} + {s} + {v}", f"{u} + {two} * {z}", f"{s} + {four} * {v}", f"{u} + {eight} * {z} + {m[5]}"]


def _twice(
    transform: Callable[[Sequence[str], DType], list[str]], count: int, dtype: DType, prefix: str
) -> tuple[list[str], list[list[str]]]:
    """Lines that transform the columns, then the rows of the ``count`` x ``count`` variables ``{prefix}_row_column``,
    and the names of the results."""
    lines: list[str] = []
    columns = []
    for j in range(count):
        found = transform([f"{prefix}_{i}_{j}" for i in range(count)], dtype)
        columns.append([f"{prefix}c_{i}_{j}" for i in range(len(found))])
        lines += [f"{name} = {text}" for name, text in zip(columns[-1], found, strict=True)]
    results = []
    for i in range(len(columns[0])):
        found = transform([column[i] for column in columns], dtype)
        results.append([f"{prefix}r_{i}_{j}" for j in range(len(found))])
        lines += [f"{name} = {text}" for name, text in zip(results[-1], found, strict=True)]
    return lines, results


def _planes(table: ArgTable, buffer: Buffer) -> list[int]:
    """A scope for each of the 36 parts of a buffer: they do not overlap, which lets LLVM fill them side by side."""
    return [table.scope(f"{buffer.name}.{number}") for number in range(NUMBERS)]


# --- the calls --------------------------------------------------------------------------------------------------


def _transform_weights(spec: KernelSpec, core: Conv2d, tile: Tile, weights: Buffer) -> tuple[Call, Kernel]:
    """``[number][panel][ic][columns]``, computed in double precision: it is done once."""
    wide, dtype = tile.columns, dtypes.f32
    offset, (down, across) = tap_axes(core)
    table = ArgTable()
    read, planes = table.scope(core.w.buffer), _planes(table, weights)
    table.declare(
        w=Pointer(core.w.buffer, offset * dtype.itemsize), transformed=Pointer(weights.name), outputs=core.out_channels,
        oc_stride=core.w.strides[0], ic_stride=core.w.strides[1], kh_stride=down.stride, kw_stride=across.stride,
        plane=ceil_div(core.out_channels, wide) * core.in_channels * wide,
    )  # fmt: skip
    body = []
    for kh in range(3):
        for kw in range(3):
            loaded = load(dtype, "source", f"kh_stride * {kh} + kw_stride * {kw} + j * oc_stride", read)
            body.append(f"g_{kh}_{kw} = {cast(loaded, dtype, dtypes.f64)}")
    lines, results = _twice(_weight_transform, 3, dtypes.f64, "g")
    body += lines
    for number, name in enumerate(name for row in results for name in row):
        body.append(store(dtype, "to", f"plane * {number} + j", cast(name, dtypes.f64, dtype), planes[number]))
    blank = [
        store(dtype, "to", f"plane * {number} + j", constant(0, dtype), plane) for number, plane in enumerate(planes)
    ]
    space: dict[str, Size] = {"panel": ceil_div(core.out_channels, wide), "ic": core.in_channels}
    task = [
        *coordinates(table, "task", space),
        f"source = w + (ic * ic_stride + panel * {wide} * oc_stride) * {dtype.itemsize}",
        f"to = transformed + task * {wide * dtype.itemsize}",
        f"columns = minimum({wide}, outputs - panel * {wide})",
        *loop("j", "0", "columns", body),
        *loop("j", "columns", str(wide), blank),
    ]
    code = kernel("winograd_weights", loop("task", "lo", "hi", task), table)
    return Call(code.key, f"pack {spec.name}", table.args, product(space.values()), (core.w.buffer,), (weights.name,),
                nodes=spec.nodes), code  # fmt: skip


def _transform_image(spec: KernelSpec, core: Conv2d, each: int, image: Buffer) -> tuple[Call, Kernel]:
    """``[block][number][tile][ic]``. A task takes a row of tiles, each of which it copies with its padding."""
    dtype = dtypes.f32
    size = dtype.itemsize
    table = ArgTable()
    scope, read, planes = table.scope(SCRATCH), table.scope(core.x.buffer), _planes(table, image)
    down, across = _tiles(core)
    table.declare(
        x=Pointer(core.x.buffer, core.x.offset * size), transformed=Pointer(image.name), x_n=core.x.strides[0],
        x_h=core.x.strides[1], x_w=core.x.strides[2], in_h=core.in_size[0], in_w=core.in_size[1],
        pad_h=core.padding[0], pad_w=core.padding[1], across=across, inputs=core.in_channels, each=each,
        plane=each * core.in_channels,
    )  # fmt: skip
    space: dict[str, Size] = {"n": spec.axes[0], "down": down}
    parts = scratch_parts({"tile": NUMBERS * core.in_channels * size})
    copied = store(dtype, "to", "c", load(dtype, "source", "c", read), scope)
    blank = store(dtype, "to", "c", constant(0, dtype), scope)
    loads = [
        f"d_{i}_{j} = {load(dtype, 'tile', f'inputs * {i * IN + j} + c', scope)}" for i in range(IN) for j in range(IN)
    ]
    lines, results = _twice(_input_transform, IN, dtype, "d")
    stores = [
        store(dtype, "out", f"plane * {number} + c", name, planes[number])
        for number, name in enumerate(name for row in results for name in row)
    ]
    task = [
        *coordinates(table, "task", space),
        *loop("tx", "0", "across", [
            *loop("i", "0", str(IN), [
                f"ih = down * {OUT} + i - pad_h",
                "inside = (ih >= 0) & (ih < in_h)",
                *loop("s", "0", str(IN), [
                    f"iw = tx * {OUT} + s - pad_w",
                    f"to = tile + (i * {IN} + s) * inputs * {size}",
                    "if inside & (iw >= 0) & (iw < in_w):",
                    f"    source = x + (n * x_n + ih * x_h + iw * x_w) * {size}",
                    *indent(loop("c", "0", "inputs", [copied])),
                    "else:",
                    *indent(loop("c", "0", "inputs", [blank])),
                ]),
            ]),
            "number = task * across + tx",
            "block = quotient(number, each)",
            f"out = transformed + (block * plane * {NUMBERS} + (number - block * each) * inputs) * {size}",
            *loop("c", "0", "inputs", [*loads, *lines, *stores]),
        ]),
    ]  # fmt: skip
    code = kernel("winograd_image", [*scratch_lines(parts, table), *loop("task", "lo", "hi", task)], table)
    return Call(code.key, f"{spec.name} tiles", table.args, product(space.values()), (core.x.buffer,), (image.name,),
                parts["end"], spec.nodes), code  # fmt: skip


def _multiply(spec: KernelSpec, core: Conv2d, tile: Tile, each: int, weights: Buffer,
              image: Buffer) -> tuple[Call, Kernel]:  # fmt: skip
    """A task computes a few panels of output channels for a block of tiles: 36 products, the transform, the body."""
    dtype = dtypes.f32
    size, wide = dtype.itemsize, tile.columns
    table = ArgTable()
    scope, back = table.scope(SCRATCH), table.scope(f"{SCRATCH}.out")
    down, across = _tiles(core)
    panels = -(-core.out_channels // wide)
    channels = min(panels, PANELS) * wide
    total = spec.axes[0] * down * across
    rows = -(-each // tile.rows) * tile.rows
    table.declare(
        image=Pointer(image.name), weights=Pointer(weights.name), inputs=core.in_channels, outputs=core.out_channels,
        block_channels=channels, each=each, total=total, per_image=down * across, across=across,
        out_h=core.out_size[0], out_w=core.out_size[1], plane=rows * channels,
        panel_bytes=core.in_channels * wide * size, matrix=panels * core.in_channels * wide * size,
    )  # fmt: skip
    space: dict[str, Size] = {"channel_block": ceil_div(core.out_channels, channels), "block": ceil_div(total, each)}
    offsets = scratch_parts({
        "products": NUMBERS * rows * channels * size, "table": (rows + tile.rows) * 8,
        "out": OUT * OUT * channels * size,
    })  # fmt: skip
    names = [tile.name(dtype, height, True, True) for height in tile.heights]
    call = (
        f"{{tile}}(1, inputs, {size}, table + r * 8, panel, {wide * size}, "
        f"products + (number * plane + r * block_channels + c) * {size}, block_channels * {size}, 0)"
    )
    loads = [
        f"m_{i}_{j} = {load(dtype, 'line', f'plane * {i * IN + j} + j', scope)}" for i in range(IN) for j in range(IN)
    ]
    lines, results = _twice(_output_transform, IN, dtype, "m")
    stores = [
        store(dtype, "out", f"{channels * number} + j", name, back)
        for number, name in enumerate(name for row in results for name in row)
    ]
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, 4, table,
                          core={0: load(dtype, "values", "j", back)})  # fmt: skip
    start = [*scratch_lines(offsets, table), *emitter.start()]
    by_image, by_row, by_column = (emitter.enter(axis, name) for axis, name in enumerate(("n", "oh", "ow")))
    by_channel = emitter.enter(3, "channel0 + j", inline=True)
    task = [
        *coordinates(table, "task", space),
        "first = block * each",
        "rows = minimum(each, total - first)",
        "channel0 = channel_block * block_channels",
        "columns = minimum(block_channels, outputs - channel0)",
        *loop("number", "0", str(NUMBERS), [
            f"base = image + (first * {NUMBERS} + number * each) * inputs * {size}",
            *loop("r", "0", f"rows + {tile.rows - 1}", [
                note("table", "r", f"base + minimum(r, rows - 1) * inputs * {size}", scope)
            ]),
            f"panel = weights + number * matrix + quotient(channel0, {wide}) * panel_bytes",
            f"for c in range(0, columns, {wide}):",
            *indent(row_blocks(names, tile.heights, call)),
            "    panel += panel_bytes",
        ]),
        *loop("t", "0", "rows", [
            "n = quotient(first + t, per_image)",
            "rest = first + t - n * per_image",
            "ty = quotient(rest, across)",
            "tx = rest - ty * across",
            f"line = products + t * block_channels * {size}",
            *loop("j", "0", "columns", [*loads, *lines, *stores]),
            *by_image,
            *loop("p", "0", f"minimum({OUT}, out_h - ty * {OUT})", [
                f"oh = ty * {OUT} + p",
                *by_row,
                *loop("q", "0", f"minimum({OUT}, out_w - tx * {OUT})", [
                    f"ow = tx * {OUT} + q",
                    *by_column,
                    f"values = out + (p * {OUT} + q) * {channels * size}",
                    *loop("j", "0", "columns", by_channel),
                ]),
            ]),
        ]),
    ]  # fmt: skip
    code = kernel("winograd_products", [*start, *loop("task", "lo", "hi", task)], table,
                  modules={"runtime.cpu.microkernel": names})  # fmt: skip
    reads = dict.fromkeys([image.name, weights.name, *(access.buffer for access in spec.reads)])
    writes = dict.fromkeys(access.buffer for access in spec.writes)
    return Call(code.key, spec.name, table.args, product(space.values()), tuple(reads), tuple(writes), offsets["end"],
                spec.nodes), code  # fmt: skip
