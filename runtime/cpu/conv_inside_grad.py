"""Lowering the weight gradient of a convolution of small images: for each tap one product over the points that meet it.

A task copies what it needs of a few images, and of their gradients, into scratch, pixel by pixel and without padding.
For one tap the outputs that meet it are a rectangle in each image, so its rows are runs of pixels of both copies: a
table, which is the same for all images, says where. Where a task sees the whole batch, its sums never leave the cache:
the body runs on them there. A tap that no output meets gets no gradient: where the body changes nothing then, and the
weights of a tap lie together, those of idle taps are neither read nor written.
"""

from __future__ import annotations

from dataclasses import replace

from engine.buffers import Buffer
from engine.dims import Size, ceil_div, product
from engine.program import Call, Kernel, Lowered, Pointer
from engine.records import dataclass
from engine.schedule import Access, ConvWeightGrad, KernelSpec
from runtime.cpu.contraction import ENOUGH_TASKS, row_blocks
from runtime.cpu.conv_weight_grad import ByTap, Finish, GradTile, combine, plan_grad
from runtime.cpu.emit import kernel
from runtime.cpu.idle import factors_of_nothing
from runtime.cpu.scratch import scratch_lines, scratch_parts
from runtime.emit import SCRATCH, ArgTable, cast, constant, indent, load, loop, note, store
from runtime.tasks import coordinates, typical

POINTS = 128
"""About how many outputs are added up before sums are stored."""
MOST_POINTS = 256
"""The most outputs of an image that counts as small."""
MOST_IMAGES = 64
COPY_BYTES = 65536
"""The most that the copy of some images should take."""


def is_small(core: ConvWeightGrad) -> bool:
    """Whether this kernel serves ``core``: images of a known, small size, and whole vectors of rows; pixels along rows
    are rather read where they lie."""
    sizes = (*core.in_size, *core.out_size)
    if not all(isinstance(n, int) and n > 0 for n in sizes) or product(core.out_size) > MOST_POINTS:
        return False
    plan = plan_grad(core)
    if plan.reads_rows:
        return False
    return plan.inputs % max(plan.tile.rows // 2, 1) == 0 and _image_bytes(plan) <= COPY_BYTES


def _image_bytes(plan: GradTile) -> int:
    return typical(product(plan.core.in_size)) * plan.inputs * plan.dtype.itemsize


@dataclass(frozen=True)
class Reach:
    """The outputs along an axis that meet a tap: ``count`` from ``first`` on, and the input that the first meets."""

    first: int
    count: int
    start: int


def reaches(size: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> list[Reach]:
    """Those of every tap along an axis."""
    found = []
    for tap in range(kernel):
        met = [o for o in range(outputs) if 0 <= o * stride - padding + tap * dilation < size]
        first = met[0] if met else 0
        found.append(Reach(first, len(met), first * stride - padding + tap * dilation if met else 0))
    return found


def lower_inside_grad(spec: KernelSpec) -> Lowered:
    """The calls for ``spec``, whose core is a ConvWeightGrad that :func:`is_small`: one, or with partial sums two."""
    core = spec.core
    assert isinstance(core, ConvWeightGrad)
    plan = plan_grad(core)
    points = typical(product(core.out_size))
    images = max(min(POINTS // points, COPY_BYTES // _image_bytes(plan), MOST_IMAGES), 1)
    blocks = core.groups * product(plan.channel_blocks)
    units = ceil_div(core.batch, images)
    plan = replace(plan, chunks=max(min(ENOUGH_TASKS // typical(blocks), typical(units)), 1))
    if plan.chunks == 1:
        made, code = _sum_images(spec, plan, images, None)
        return Lowered((made,), (code,))
    partial = Buffer(f"{spec.name}.partial", "temp", plan.dtype, plan.chunks * blocks * plan.block)
    sums, sums_code = _sum_images(spec, plan, images, partial)
    total, total_code = combine(spec, plan, partial)
    return Lowered((sums, total), (sums_code, total_code), (partial,))


def _sum_images(spec: KernelSpec, plan: GradTile, images: int, partial: Buffer | None) -> tuple[Call, Kernel]:
    """The call that adds up chunks of the batch into ``partial`` or, where there is none, all of it, and then runs the
    body."""
    core, tile, dtype, size = plan.core, plan.tile, plan.dtype, plan.dtype.itemsize
    table = ArgTable()
    scope = table.scope(SCRATCH)
    in_pixels, out_pixels, taps = product(core.in_size), product(core.out_size), product(core.kernel)
    table.declare(
        x=Pointer(core.x.buffer, core.x.offset * core.x.dtype.itemsize),
        dy=Pointer(core.dy.buffer, core.dy.offset * core.dy.dtype.itemsize),
        **{f"x_{axis}": stride for axis, stride in zip("nhwc", core.x.strides, strict=True)},
        **{f"dy_{axis}": stride for axis, stride in zip("nhwc", core.dy.strides, strict=True)},
        group_inputs=core.group_inputs, group_outputs=core.group_outputs, batch=core.batch,
        in_h=core.in_size[0], in_w=core.in_size[1], out_h=core.out_size[0], out_w=core.out_size[1],
        in_pixels=in_pixels, out_pixels=out_pixels, stride_h=core.stride[0], stride_w=core.stride[1],
        kernel_h=core.kernel[0], kernel_w=core.kernel[1], taps=taps, block_size=plan.block, most=images,
        per_chunk=ceil_div(ceil_div(core.batch, images), plan.chunks) * images,
    )  # fmt: skip
    down, across = (
        table.block(tuple(number for reach in reaches(*axis) for number in (reach.first, reach.count, reach.start)))
        for axis in zip(core.in_size, core.out_size, core.kernel, core.stride, core.padding, core.dilation, strict=True)
    )  # fmt: skip
    parts = {
        "image": images * in_pixels * plan.inputs * size, "panels": images * out_pixels * plan.outputs * size,
        "table": taps * images * core.out_size[0] * 16,
    }  # fmt: skip
    names = [tile.name(dtype, height, False, True, "near") for height in tile.heights]
    call = (
        f"{{tile}}(here * count_h, count_w, stride_w * inputs * {size}, entries, panel, image + r * {size}, "
        f"block + ((r * taps + tap) * outputs + c) * {size}, taps * outputs * {size}, 1)"
    )
    finish = Finish(spec, plan, table)
    if partial is None:
        parts |= {"block": plan.block * size, **finish.parts}
        place, target = [], scope
    else:
        table.declare(partial=Pointer(partial.name))
        table.declare(blocks=core.groups * product(plan.channel_blocks), chunks=plan.chunks)
        place = [f"block = partial + (chunk * blocks + quotient(task, chunks)) * block_size * {size}"]
        target = table.scope(partial.name)
    # Chunks come last: of a small batch the last ones may be empty, and neighbouring tasks are one thread's.
    space: dict[str, Size] = {"group": core.groups}
    space |= dict(zip(("in_block", "out_block"), plan.channel_blocks, strict=True)) | {"chunk": plan.chunks}
    offsets = scratch_parts({name: typical(part) for name, part in parts.items()})
    by_tap = _by_tap(down, across)
    factors = factors_of_nothing(spec) if partial is None and finish.along_outputs else None
    changed = None if factors is None else _by_tap(down, across, "count_{} > 0 or whole != 0")
    zero = store(dtype, "row", "v", constant(0, dtype), target)
    if changed is None:
        clear = ["row = block", *loop("v", "0", "block_size", [zero])]
    else:
        row = f"row = block + (channel * taps + tap) * outputs * {size}"
        clear = changed(loop("channel", "0", "inputs", [row, *loop("v", "0", "outputs", [zero])]))
    pixel = "((i * in_h + start_h + t * stride_h) * in_w + start_w)"
    output = "((i * out_h + first_h + t) * out_w + first_w)"
    lines = [
        *scratch_lines(offsets, table),
        *(finish.emitter.start() if partial is None else []),
        *([] if factors is None else ["whole = 0"]),
        *(f"whole = whole if is_finite({finish.emitter.value(factor)}) else 1" for factor in factors or ()),
        *by_tap([
            "at = tap * most * out_h * 2",
            *loop("i", "0", "most", loop("t", "0", "count_h", [
                note("table", "at", f"{pixel} * inputs * {size}", scope),
                note("table", "at + 1", f"{output} * {tile.columns * size}", scope),
                "at += 2",
            ])),
        ]),
    ]  # fmt: skip
    task = [
        *coordinates(table, "task", space),
        "first_input = group * group_inputs + in_block * inputs",
        "channel0 = group * group_outputs + out_block * outputs",
        "columns = minimum(outputs, group_outputs - out_block * outputs)",
        *place,
        *clear,
        "begin = chunk * per_chunk",
        f"for n in range(begin, minimum(begin + per_chunk, batch), {images}):",
        f"    here = minimum(minimum(begin + per_chunk, batch) - n, {images})",
        *indent([
            *_copy(plan, table, scope),
            f"for c in range(0, outputs, {tile.columns}):",
            f"    panel = panels + c * most * out_pixels * {size}",
            *indent(by_tap([
                "entries = table + tap * most * out_h * 16",
                *row_blocks(names, tile.heights, call, "0", "inputs"),
            ])),
        ]),
    ]  # fmt: skip
    if partial is None:
        task += finish.block_lines(changed)
    modules = {"runtime.cpu.microkernel": names} | (finish.modules if partial is None else {})
    code = kernel(f"conv_weight_grad_{dtype}", [*lines, *loop("task", "lo", "hi", task)], table, modules=modules)
    accesses = spec.reads if partial is None else ()
    reads = dict.fromkeys([core.x.buffer, core.dy.buffer, *(access.buffer for access in accesses)])
    writes = dict.fromkeys([access.buffer for access in spec.writes] if partial is None else [partial.name])
    label = spec.name if partial is None else f"{spec.name} images"
    made = Call(code.key, label, table.args, product(space.values()), tuple(reads), tuple(writes), offsets["end"],
                spec.nodes)  # fmt: skip
    return made, code


def _by_tap(down: str, across: str, when: str = "count_{} > 0") -> ByTap:
    """A loop over the taps, told of their reaches, of which ``when`` holds along both axes: as a rule, that they meet
    anything."""

    def told(block: str, tap: str, axis: str) -> list[str]:
        return [f"{name}_{axis} = slot({block}, {tap} * 3 + {i})" for i, name in enumerate(("first", "count", "start"))]

    def around(lines: list[str]) -> list[str]:
        inside = [*told(across, "kw", "w"), "tap = kh * kernel_w + kw", f"if {when.format('w')}:", *indent(lines)]
        return loop("kh", "0", "kernel_h", [
            *told(down, "kh", "h"), f"if {when.format('h')}:", *indent(loop("kw", "0", "kernel_w", inside)),
        ])  # fmt: skip

    return around


def _copy(plan: GradTile, table: ArgTable, scope: int) -> list[str]:
    """Lines that copy ``here`` images from number ``n`` on into ``image``, and their gradients into ``panels``."""
    core, dtype, size, wide = plan.core, plan.dtype, plan.dtype.itemsize, plan.tile.columns
    x, dy = core.x, core.dy

    def element(access: Access, pointer: str, channel: str) -> str:
        loaded = load(access.dtype, pointer, channel, table.scope(access.buffer))
        return cast(loaded, access.dtype.computed, dtype)

    x_channel = "c" if x.strides[3] == 1 else "c * x_c"
    dy_channel = "c + j" if dy.strides[3] == 1 else "(c + j) * dy_c"
    pixel = [
        f"source = x + ((n + i) * x_n + h * x_h + w * x_w + first_input * x_c) * {x.dtype.itemsize}",
        f"to = image + ((i * in_h + h) * in_w + w) * inputs * {size}",
        *loop("c", "0", "inputs", [store(dtype, "to", "c", element(x, "source", x_channel), scope)]),
    ]
    gradient = [
        f"source = dy + ((n + i) * dy_n + h * dy_h + w * dy_w + channel0 * dy_c) * {dy.dtype.itemsize}",
        f"for c in range(0, outputs, {wide}):",
        *indent([
            f"to = panels + (c * most * out_pixels + ((i * out_h + h) * out_w + w) * {wide}) * {size}",
            f"present = maximum(minimum({wide}, columns - c), 0)",
            *loop("j", "0", "present", [store(dtype, "to", "j", element(dy, "source", dy_channel), scope)]),
            *loop("j", "present", str(wide), [store(dtype, "to", "j", constant(0, dtype), scope)]),
        ]),
    ]  # fmt: skip
    return loop("i", "0", "here", [
        *loop("h", "0", "in_h", loop("w", "0", "in_w", pixel)),
        *loop("h", "0", "out_h", loop("w", "0", "out_w", gradient)),
    ])  # fmt: skip
