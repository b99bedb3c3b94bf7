"""Lowering a depthwise convolution of a spread-out image whose rows lie along memory: all phases of a row together.

The input gradient of a strided depthwise convolution is such a one (see conv_phases.py). A task makes some rows of one
channel of one image. It copies what they read into scratch with its padding, where an input that several phases read is
loaded once, for a vector of neighbours of each phase. The sums of the phases across a row take turns in a line of
scratch, and the body walks that line.
"""

from __future__ import annotations

from engine.dims import ceil_div, product
from engine.program import Call, Lowered, Pointer
from engine.schedule import Conv2d, KernelSpec
from runtime.conv_phases import phases, whole_window
from runtime.cpu.conv import computed_dtype, tap_axes
from runtime.cpu.conv_direct import writes_rows
from runtime.cpu.depthwise import is_depthwise
from runtime.cpu.depthwise_rows import RowsPatch
from runtime.cpu.emit import kernel
from runtime.cpu.scratch import scratch_lines, scratch_parts
from runtime.cpu.tiles import host_tile
from runtime.emit import SCRATCH, ArgTable, BodyEmitter, cast, constant, indent, load, loop, store, total
from runtime.tasks import coordinates


def is_spread_depthwise(spec: KernelSpec) -> bool:
    """Whether this kernel serves ``spec``, which has phases: rows of known width lie along memory in the image and in
    all results."""
    core = spec.core
    return (
        isinstance(core, Conv2d) and is_depthwise(core) and isinstance(core.out_size[1], int)
        and core.x.strides[2] == 1 != core.x.strides[3] and writes_rows(spec)
    )  # fmt: skip


def lower_spread_depthwise(spec: KernelSpec) -> Lowered:
    """The call for ``spec``, which :func:`is_spread_depthwise`."""
    core = spec.core
    assert isinstance(core, Conv2d)
    whole, dtype = whole_window(spec), computed_dtype(core)
    spread_h, spread_w = core.x_dilation
    patch = RowsPatch(whole, dtype).patch
    tall, width = patch.tile
    size, lanes = dtype.itemsize, host_tile(dtype).lanes
    table = ArgTable()
    scope, written = table.scope(SCRATCH), table.scope("sums")
    table.declare(
        x=Pointer(core.x.buffer, core.x.offset * core.x.dtype.itemsize), x_n=core.x.strides[0], x_c=core.x.strides[3],
        w=Pointer(core.w.buffer), w_c=core.w_group, out_h=core.out_size[0], out_w=core.out_size[1],
        points_h=whole.out_size[0], tall=tall, width=width,
    )  # fmt: skip
    line = -(-width // lanes) * lanes * spread_w
    weights: list[str] = []
    inputs: set[tuple[int, int]] = set()
    sums: list[str] = []
    for number, part in enumerate(phases(spec)):
        products = []
        if isinstance(part.core, Conv2d):
            offset, taps = tap_axes(part.core)
            table.declare(**{f"w{number}": offset, f"w{number}_h": taps[0].stride, f"w{number}_w": taps[1].stride})
            top, left = (a - b for a, b in zip(whole.padding, part.core.padding, strict=True))
            for kh in range(part.core.kernel[0]):
                for kw in range(part.core.kernel[1]):
                    at = f"w{number} + {kh} * w{number}_h + {kw} * w{number}_w"
                    value = cast(load(core.w.dtype, "window", at, table.scope(core.w.buffer)), core.w.dtype.computed,
                                 dtype)  # fmt: skip
                    weights.append(f"w_{number}_{kh}_{kw} = {value}")
                    row, column = top + kh * part.core.dilation[0], left + kw * part.core.dilation[1]
                    inputs.add((row, column))
                    products.append(f"x_{row}_{column} * w_{number}_{kh}_{kw}")
        down, across = divmod(number, spread_w)
        place = f"(s + j) * {spread_w} + {down * line + across}"
        sums.append(store(dtype, "sums", place, total(*products) if products else constant(0, dtype), written))
    loads = [
        f"x_{row}_{column} = {load(dtype, 'corner', f'{row} * pitch + {column} + s + j', scope)}"
        for row, column in sorted(inputs)
    ]
    parts = {"patch": patch.bytes + lanes * size, "sums": spread_h * line * size}
    space = {"n": spec.axes[0], "channel": core.groups, "tile": ceil_div(whole.out_size[0], tall)}
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, 4, table,
                          core={0: load(dtype, "sums", f"f * {line} + ow", written)})  # fmt: skip
    offsets = scratch_parts(parts)
    lines = [*scratch_lines(offsets, table), *emitter.start()]
    by_image, by_channel, by_row = emitter.enter(0, "n"), emitter.enter(3, "channel"), emitter.enter(1, "oh")
    inside = emitter.enter(2, "ow", inline=True)
    lines += loop("task", "lo", "hi", [
        *coordinates(table, "task", space),
        "oh0 = tile * tall",
        "ow0 = 0",
        "tile_h = minimum(tall, points_h - oh0)",
        f"image = x + (n * x_n + channel * x_c) * {core.x.dtype.itemsize}",
        *patch.copy_lines(table, scope),
        f"window = w + channel * w_c * {core.w.dtype.itemsize}",
        *weights,
        *by_image,
        *by_channel,
        *loop("r", "0", "tile_h", [
            f"corner = patch + r * pitch * {size}",
            f"for s in range(0, width, {lanes}):",
            *indent(loop("j", "0", str(lanes), [*loads, *sums])),
            f"first = (oh0 + r) * {spread_h}",
            *loop("f", "0", f"minimum({spread_h}, out_h - first)", [
                "oh = first + f",
                *by_row,
                *loop("ow", "0", "out_w", inside),
            ]),
        ]),
    ])  # fmt: skip
    code = kernel(f"spread_depthwise_{dtype}", lines, table, modules=patch.modules)
    reads = dict.fromkeys([core.x.buffer, core.w.buffer, *(access.buffer for access in spec.reads)])
    writes = dict.fromkeys(access.buffer for access in spec.writes)
    main = Call(code.key, spec.name, table.args, product(space.values()), tuple(reads), tuple(writes), offsets["end"],
                spec.nodes)  # fmt: skip
    return Lowered((main,), (code,))
