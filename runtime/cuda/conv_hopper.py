"""Convolutions by TMA and wgmma (runtime/cuda/hopper.py): the copy engine reads patches out of the image itself.

A tensor map with a window (the im2col mode of TMA) knows how outputs follow one another over the image, with its
padding and strides. One copy brings, for one tap, up to 64 channels of the pixels that 128 outputs meet; what lies
outside of the image arrives as zeros. So an output is a product over taps, and over its channels in pieces; a weight
gradient one over outputs, of pixels by rows of the gradient.
"""

from __future__ import annotations

from math import prod

from engine.buffers import Buffer
from engine.dims import Size, ceil_div, product
from engine.program import BoxMap, Call, Lowered, Pointer, Window
from engine.schedule import Access, Conv2d, ConvWeightGrad, KernelSpec
from runtime.cuda.contraction_split import NARROW, SPEED, copying
from runtime.cuda.conv_specs import Partial, by_pixel, most_parts, sums_of_parts
from runtime.cuda.copies import copy_width
from runtime.cuda.emit import kernel
from runtime.cuda.epilogue import staged_value
from runtime.cuda.hopper import (
    MODULES,
    PIECE,
    ROW_BYTES,
    ROWS,
    THREADS,
    HopperTile,
    depth_of,
    hopper_work,
    is_multiplied,
)
from runtime.cuda.hopper_single import hopper_of, tiles_of
from runtime.cuda.mainloop import place_tile
from runtime.cuda.operands import nonzero
from runtime.cuda.tensor_map import LARGEST_STEP
from runtime.cuda.tiles import CHUNK, PROCESSORS, work
from runtime.emit import ArgTable, BodyEmitter
from runtime.tasks import coordinates, typical

FURTHEST = 127
"""Pixels from an image's corner at which a window may begin or end."""
FURTHEST_TAP = 255
"""Pixels from the first tap to the last, down or across."""


def _window(core: Conv2d | ConvWeightGrad) -> Window | None:
    """How outputs go over the image, or None where TMA cannot be told, or not before sizes are known."""
    first: list[int] = []
    last: list[int] = []
    numbers = zip(core.in_size, core.out_size, core.kernel, core.stride, core.padding, core.dilation, strict=True)
    for size, outputs, kernel_size, step, padding, dilation in numbers:
        end = (outputs - 1) * step - padding - (size - 1)
        if not isinstance(end, int) or not (1 <= step <= LARGEST_STEP and (kernel_size - 1) * dilation <= FURTHEST_TAP):
            return None
        first.append(-padding)
        last.append(end)
    if max(map(abs, (*first, *last))) > FURTHEST:
        return None
    return Window((first[0], first[1]), (last[0], last[1]), core.stride)


def _is_readable(core: Conv2d | ConvWeightGrad, exactness: str) -> bool:
    """Whether TMA reads the image, with the channels of each group apart from the others', and wgmma multiplies it."""
    x, size = core.x, core.x.dtype.itemsize
    steps = (x.offset, *x.strides[:3])
    return (
        is_multiplied(x.dtype, exactness) and x.strides[3] == 1 and copy_width(steps, size) == CHUNK
        and not any(isinstance(step, int) and step <= 0 for step in x.strides[:3])
        and (core.groups == 1 or core.group_inputs % depth_of(x.dtype) == 0)
    )  # fmt: skip


def _image(core: Conv2d | ConvWeightGrad, images: Size, window: Window, pixels: int) -> BoxMap:
    """What TMA is told of the image, for copies of so many ``pixels``."""
    size = core.x.dtype.itemsize
    return BoxMap(
        Pointer(core.x.buffer, core.x.offset * size), (images, *core.in_size, core.in_channels),
        tuple(stride * size for stride in core.x.strides[:3]), size, (pixels, ROW_BYTES // size), window,
    )  # fmt: skip


def _channel_blocks(core: Conv2d | ConvWeightGrad) -> int:
    """How many pieces a group's channels make."""
    return -(-core.group_inputs // depth_of(core.x.dtype))


_IMAGE = ("out_h", "out_w", "stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w", "kernel_w", "inputs")


def _declare_image(table: ArgTable, core: Conv2d | ConvWeightGrad) -> None:
    values = (*core.out_size, *core.stride, *core.padding, *core.dilation, core.kernel[1], core.group_inputs)
    table.declare(**dict(zip(_IMAGE, values, strict=True)))


def _first_pixel(output: str) -> list[str]:
    """Lines that set ``image``, ``out_row`` and ``out_column``: where ``output`` lies among the outputs."""
    return [
        f"line = quotient({output}, out_w)",
        "image = quotient(line, out_h)",
        "out_row = line - image * out_h",
        f"out_column = {output} - line * out_w",
    ]


_AT_PIXEL = "out_column * stride_w - pad_w, out_row * stride_h - pad_h, image, arrived"


def convolution_tile(spec: KernelSpec, core: Conv2d, weights: Access, padded: bool,
                     narrow: bool) -> HopperTile | None:  # fmt: skip
    """The tile with which wgmma is expected soonest, or None where mma.sync is sooner or must do. ``weights`` runs over
    (groups, outputs, kh, kw, inputs). Where they are ``padded`` image and weights are copied for wgmma alone, and
    mma.sync may be ``narrow``: copies to shared memory are of less than a chunk."""
    size = core.x.dtype.itemsize
    steps = (weights.offset, *weights.strides[:2], weights.strides[3])
    if _window(core) is None or not _is_readable(core, spec.products) or copy_width(steps, size) != CHUNK:
        return None
    sizes = core.groups, product(spec.axes[:3]), core.group_outputs
    filled = _channel_blocks(core) * depth_of(core.x.dtype)  # channels that are not there are multiplied all the same
    best = min(tiles_of(core.x.dtype, spec.products), key=lambda tile: hopper_work(tile, *sizes))
    taps, before = prod(core.kernel), 0.0
    if padded:
        pixels = spec.axes[0] * product(core.in_size)
        before = copying(pixels * core.in_channels, size) + copying(core.in_channels * core.group_outputs * taps, size)
    found = before + hopper_work(best, *sizes) * taps * filled / SPEED[size]
    by_mma = work(size, *sizes) * taps * core.group_inputs / SPEED[size] * (NARROW if narrow else 1)
    return best if found < by_mma else None


def hopper_convolution(spec: KernelSpec, core: Conv2d, weights: Access, tile: HopperTile,
                       blocks: int = PROCESSORS) -> Lowered:  # fmt: skip
    """The call that multiplies patches by ``weights`` and runs the body."""
    dtype, size = core.x.dtype, core.x.dtype.itemsize
    window = _window(core)
    assert window is not None
    hopper = hopper_of(dtype, tile, True, True)
    pixels, taps = product(spec.axes[:3]), prod(core.kernel)
    group_stride, row_stride, _, tap_stride, _ = weights.strides
    groups = [(core.groups, group_stride)] if core.groups > 1 else []
    rows = BoxMap(
        Pointer(weights.buffer, weights.offset * size),
        (*(n for n, _ in groups), core.group_outputs, taps, core.group_inputs),
        tuple(stride * size for stride in (*(s for _, s in groups), row_stride, tap_stride)), size,
        (*(1 for _ in groups), tile.columns, 1, hopper.depth),
    )  # fmt: skip
    m_blocks, n_blocks = ceil_div(pixels, ROWS), ceil_div(core.group_outputs, tile.columns)
    tiles = core.groups * m_blocks * n_blocks
    table = ArgTable()
    table.declare(
        a_map=_image(core, spec.axes[0], window, ROWS), b_map=rows, pixels=pixels, outputs=core.group_outputs,
        k_tiles=taps * _channel_blocks(core), m_blocks=m_blocks, n_blocks=n_blocks, tiles=tiles,
    )  # fmt: skip
    _declare_image(table, core)
    place = coordinates(table, "number", {"group": core.groups, "tile": m_blocks * n_blocks})
    place += place_tile(ROWS, tile.columns)
    aim = [*_first_pixel("tile_row"), "from_channel = 0", "tap = 0", "tap_row = 0", "tap_column = 0"]
    patches = (
        f"tma_load_patches(to, a_map, group * inputs + from_channel, {_AT_PIXEL}, tap_column * dilation_w, "
        "tap_row * dilation_h)"
    )
    weights_at = ", ".join(["from_channel", "tap", "tile_column", *(["group"] if groups else [])])
    fetch = [
        *hopper.boxes("a", patches),
        *hopper.boxes("b", f"tma_load_{3 + len(groups)}d(to, b_map, {weights_at}, arrived)"),
        f"from_channel += {hopper.depth}",
        "if from_channel >= inputs:",
        "    from_channel = 0",
        "    tap += 1",
        "    tap_column += 1",
        "    if tap_column == kernel_w:",
        "        tap_column = 0",
        "        tap_row += 1",
    ]
    flat, (split, names) = by_pixel(spec, table)
    emitter = BodyEmitter(flat.body, flat.reads, flat.writes, len(flat.axes), table, core={0: staged_value(PIECE)})
    before = emitter.start()
    by_row = [*split, *(line for axis, name in enumerate(names) for line in emitter.enter(axis, name))]
    head = ["channel = group * outputs + column"]
    multiplied = hopper.result(flat, emitter, "pixels", "outputs", by_row, head, "channel")
    lines = hopper.lines(place, aim, fetch, multiplied, before)
    return _called("conv2d", spec, tile, table, lines, tiles, blocks, (core.x, weights))


def _called(name: str, spec: KernelSpec, tile: HopperTile, table: ArgTable, lines: list[str], tiles: Size, blocks: int,
            operands: tuple[Access, Access]) -> Lowered:  # fmt: skip
    code = kernel(f"{name}_hopper_{operands[0].dtype}", lines, table, THREADS, tile.shared, modules=MODULES)
    reads = tuple(dict.fromkeys(access.buffer for access in (*operands, *spec.reads)))
    writes = tuple(dict.fromkeys(access.buffer for access in spec.writes))
    return Lowered(
        (Call(code.key, spec.name, table.args, blocks * nonzero(tiles), reads, writes, 0, spec.nodes),), (code,)
    )


# --- the weight gradient -------------------------------------------------------------------------------------


def weight_grad_way(core: ConvWeightGrad, exactness: str, parts: int, padded: tuple[bool, bool],
                    narrow: bool) -> tuple[HopperTile, int] | None:  # fmt: skip
    """The tile with which wgmma is expected soonest for products so exact, and into how many parts the pixels go, or
    None where mma.sync, in so many ``parts``, is sooner or must do. Image and gradient are copied for wgmma alone where
    they are ``padded``; mma.sync may be ``narrow``, as in :func:`convolution_tile`."""
    size, gradient = core.x.dtype.itemsize, core.dy
    aligned = copy_width((gradient.offset, gradient.strides[2]), size) == CHUNK
    if _window(core) is None or not _is_readable(core, exactness) or not aligned:
        return None
    rows, outputs, pixels = _rows(core), core.group_outputs, core.batch * product(core.out_size)

    def found(tile: HopperTile) -> tuple[float, int]:
        blocks = core.groups * -(-rows // ROWS) * -(-outputs // tile.columns)
        count = max(min(PROCESSORS // blocks, most_parts(core)), 1)
        return hopper_work(tile, core.groups * count, rows, outputs) / count, count

    best = min(tiles_of(core.x.dtype, exactness, b_along_k=False), key=found)
    by_mma = work(size, core.groups * parts, prod(core.kernel) * core.group_inputs, outputs) / parts
    image = core.batch * product(core.in_size) * core.in_channels
    sizes = zip(padded, (image, pixels * core.out_channels), strict=True)
    before = sum(copying(count, size) for is_copied, count in sizes if is_copied)
    saved = by_mma * (NARROW if narrow else 1) - found(best)[0]
    return (best, found(best)[1]) if before < saved * typical(pixels) / SPEED[size] else None


def _rows(core: ConvWeightGrad) -> int:
    """Rows of the sums: a group's channels, filled up to whole pieces, a tap."""
    return prod(core.kernel) * _channel_blocks(core) * depth_of(core.x.dtype)


def hopper_weight_grad(spec: KernelSpec, core: ConvWeightGrad, tile: HopperTile, parts: int,
                       blocks: int = PROCESSORS) -> tuple[Partial, Lowered]:  # fmt: skip
    """Room for the sums of ``parts`` parts of the pixels, and the call that makes them."""
    dtype, size = core.x.dtype, core.x.dtype.itemsize
    window, rows, outputs = _window(core), _rows(core), core.group_outputs
    assert window is not None
    hopper = hopper_of(dtype, tile, False, False, walks=True)
    box = hopper.depth
    width = _channel_blocks(core) * box
    each = core.groups * rows * outputs
    buffer = Buffer(f"{spec.name}.partial", "temp", dtype.computed, parts * each)
    strides = (rows * outputs, core.kernel[1] * width * outputs, width * outputs, outputs, 1)
    partial = Partial(buffer, parts, each, strides)
    sums = sums_of_parts(spec, partial, (core.groups, rows, outputs))
    pixels = core.batch * product(core.out_size)
    m_blocks, n_blocks = ceil_div(rows, ROWS), ceil_div(outputs, tile.columns)
    tiles = parts * core.groups * m_blocks * n_blocks
    gradient = BoxMap(
        Pointer(core.dy.buffer, core.dy.offset * size), (pixels, core.out_channels), (core.dy.strides[2] * size,), size,
        (box, box),
    )  # fmt: skip
    table = ArgTable()
    table.declare(
        a_map=_image(core, core.batch, window, box), b_map=gradient, pixels=pixels, rows=rows, outputs=outputs,
        per_part=ceil_div(ceil_div(pixels, parts), box) * box, channel_blocks=_channel_blocks(core),
        last_tap=prod(core.kernel) - 1, m_blocks=m_blocks, n_blocks=n_blocks, tiles=tiles,
    )  # fmt: skip
    _declare_image(table, core)
    place = [
        *coordinates(table, "number", {"part": parts, "group": core.groups, "tile": m_blocks * n_blocks}),
        *place_tile(ROWS, tile.columns),
        "first_pixel = part * per_part",
        f"k_tiles = (min(per_part, pixels - first_pixel) + {box - 1}) // {box}",
    ]
    aim = [
        # Where the boxes of this tile are in a patch; behind its end they are the last tap's again, and not stored.
        f"from_channel = cuda.local.array({ROWS // box}, int32)",
        f"further = cuda.local.array({ROWS // box}, int32)",  # rows down and columns right, in one number
        f"for box in range({ROWS // box}):",
        f"    block_number = tile_row // {box} + box",
        "    tap = quotient(block_number, channel_blocks)",
        f"    from_channel[box] = group * inputs + (block_number - tap * channel_blocks) * {box}",
        "    tap = min(tap, last_tap)",
        "    tap_row = quotient(tap, kernel_w)",
        "    further[box] = tap_row * dilation_h << 16 | (tap - tap_row * kernel_w) * dilation_w",
        # How far one stage's pixels are from the next one's.
        f"lines_on = quotient({box}, out_w)",
        f"columns_on = {box} - lines_on * out_w",
        "images_on = quotient(lines_on, out_h)",
        "rows_on = lines_on - images_on * out_h",
        *_first_pixel("first_pixel"),
    ]
    fetch = [
        *hopper.boxes("a", f"tma_load_patches(to, a_map, from_channel[box], {_AT_PIXEL}, further[box] & 0xFFFF, "
                           "further[box] >> 16)"),
        *hopper.boxes("b", f"tma_load_2d(to, b_map, group * outputs + tile_column + {box} * box, "
                           f"first_pixel + {box} * k_tile, arrived)"),
        "out_column += columns_on",
        "out_row += rows_on",
        "image += images_on",
        "if out_column >= out_w:",
        "    out_column -= out_w",
        "    out_row += 1",
        "if out_row >= out_h:",
        "    out_row -= out_h",
        "    image += 1",
    ]  # fmt: skip
    emitter = BodyEmitter(sums.body, sums.reads, sums.writes, 4, table, core={0: staged_value(PIECE)})
    before = emitter.start()
    multiplied = [*emitter.enter(0, "part"), *emitter.enter(1, "group")]
    multiplied += hopper.result(sums, emitter, "rows", "outputs", emitter.enter(2, "row"))
    lines = hopper.lines(place, aim, fetch, multiplied, before)
    return partial, _called("conv_weight_grad", sums, tile, table, lines, tiles, blocks, (core.x, core.dy))
