"""Lowering convolutions to tensor cores: implicit products of matrices, which read their left side out of the image.

A convolution multiplies patches, a row an output, by the weights; its weight gradient multiplies the patches' transpose
by the gradient, and is cut into parts of the pixels, which a second kernel adds up. Both run the main loop of all
products (runtime/cuda/mainloop.py), with loaders of their own for the image (runtime/cuda/conv_copies.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engine import dtypes
from engine.dims import Size, ceil_div, product
from engine.dtypes import DType
from engine.program import Call, Lowered, Pointer, joined
from engine.schedule import Access, Conv2d, ConvWeightGrad, KernelSpec
from runtime.cuda.conv_copies import IMAGE_NAMES, PatchLoader, PixelLoader
from runtime.cuda.conv_hopper import convolution_tile, hopper_convolution, hopper_weight_grad, weight_grad_way
from runtime.cuda.conv_specs import by_pixel, most_parts, partial_sums, sums_of_parts, total_of, weights_by_output
from runtime.cuda.copies import MatrixLoader, copy_width
from runtime.cuda.dense import Lower, dense_copy, dense_strides, is_dense
from runtime.cuda.emit import kernel
from runtime.cuda.epilogue import body_lines, stage_lines, staged_bytes, staged_value, warp_region
from runtime.cuda.hopper import HopperTile
from runtime.cuda.mainloop import MODULES, MainLoop, place_threads, place_warps
from runtime.cuda.products import Products, product_kind
from runtime.cuda.tiles import CHUNK, PROCESSORS, SharedTile, Tile, by_wgmma, choose_tile, tuned_tile
from runtime.emit import ArgTable, BodyEmitter
from runtime.tasks import coordinates, typical

_MODULES = {name: [*words, "ld_shared_v4_u32", "st_shared_v4_u32"] for name, words in MODULES.items()}
FEW_OUTPUTS = 4
"""With fewer output channels a group, most of a tile would be empty."""
FEW_INPUTS = 4
"""With fewer input channels an image is read as it lies; with more, its channels are brought side by side first."""


def on_tensor_cores(core: Conv2d | ConvWeightGrad) -> bool:
    """Whether the kernels here serve ``core``."""
    other = core.w if isinstance(core, Conv2d) else core.dy
    spread = core.x_dilation if isinstance(core, Conv2d) else (1, 1)
    multiplied = dtypes.promote(core.x.dtype, other.dtype)
    return (
        multiplied.is_float and multiplied.computed == dtypes.f32 and spread == (1, 1)
        and core.group_outputs >= FEW_OUTPUTS
    )  # fmt: skip


def lower_conv2d(spec: KernelSpec, lower: Lower, architecture: str) -> Lowered:
    """The calls for ``spec``, whose core is a Conv2d: copies of what lies otherwise than the kernel reads it, then the
    convolution with the body. ``lower`` lowers the copies."""
    core = spec.core
    assert isinstance(core, Conv2d)
    dtype = dtypes.promote(core.x.dtype, core.w.dtype)
    found = _way_by_wgmma(spec, core, dtype, lower) if architecture == "sm_90a" else None
    if found is not None and by_wgmma():
        before, read, tile = found
        return joined([before, hopper_convolution(spec, *read, tile)])
    before, read = _copied(spec, core, dtype, lower)
    return joined([before, _convolve(spec, *read)])


def _way_by_wgmma(spec: KernelSpec, core: Conv2d, dtype: DType,
                  lower: Lower) -> tuple[Lowered, tuple[Conv2d, Access], HopperTile] | None:  # fmt: skip
    """The copies that wgmma needs, what it multiplies, and its tile, or None where mma.sync is sooner or must do. TMA
    wants pixels that begin at whole chunks: where they do not, their channels are ``padded``."""
    padded = core.groups == 1 and not _fills_chunks(core.in_channels, dtype)
    before, read = _copied(spec, core, dtype, lower, padded)
    tile = convolution_tile(spec, *read, padded, _patch_width(read[0]) < CHUNK)
    return None if tile is None else (before, read, tile)


def _copied(spec: KernelSpec, core: Conv2d, dtype: DType, lower: Lower,
            padded: bool = False) -> tuple[Lowered, tuple[Conv2d, Access]]:  # fmt: skip
    """The calls that copy what lies otherwise than kernels read it; the core with its image, and the weights."""
    before, image = _channels_together(spec, core, spec.axes[0], dtype, lower, padded)
    packed, weights = _rows_of_weights(spec, core, dtype, lower, padded)
    return joined([before, packed]), (replace(core, x=image), weights)


def _fills_chunks(count: int, dtype: DType) -> bool:
    """Whether so many elements are whole chunks."""
    return count * dtype.itemsize % CHUNK == 0


def _whole(count: Size, dtype: DType) -> Size:
    """So many elements, filled up to whole chunks."""
    chunk = CHUNK // dtype.itemsize
    return ceil_div(count, chunk) * chunk


def _channels_together(spec: KernelSpec, core: Conv2d | ConvWeightGrad, batch: Size, dtype: DType, lower: Lower,
                       padded: bool = False) -> tuple[Lowered, Access]:  # fmt: skip
    """The image as the kernels read it, in ``dtype``, and the call that makes it so, if one is needed. Where it is to
    be ``padded`` each pixel begins at a whole chunk."""
    if core.x.dtype == dtype and not padded and (core.x.strides[3] == 1 or core.group_inputs < FEW_INPUTS):
        return Lowered((), ()), core.x
    pixel = _whole(core.in_channels, dtype) if padded else core.in_channels
    shape, room = (batch, *core.in_size, core.in_channels), (batch, *core.in_size, pixel)
    copy, buffer, image = dense_copy(spec, core.x, shape, dtype, "image", dense_strides(room), product(room))
    return joined([Lowered((), (), (buffer,)), lower(copy)]), image


def _rows_of_weights(spec: KernelSpec, core: Conv2d, dtype: DType, lower: Lower,
                     padded: bool = False) -> tuple[Lowered, Access]:  # fmt: skip
    """The weights over (groups, outputs, kh, kw, inputs), of each output side by side, and the call that makes them so,
    if one is needed. It begins each output's at a whole chunk, and each tap's where they are to be ``padded``."""
    weights, shape = weights_by_output(core)
    if weights.dtype == dtype and not padded and is_dense(shape[2:], weights.strides[2:]):
        return Lowered((), ()), replace(weights, strides=(*weights.strides[:2], *dense_strides(shape[2:])))
    taps = (*shape[2:4], _whole(shape[4], dtype) if padded else shape[4])
    row = _whole(product(taps), dtype)
    strides = (shape[1] * row, row, *dense_strides(taps))
    copy, buffer, packed = dense_copy(spec, weights, shape, dtype, "weights", strides, shape[0] * shape[1] * row)
    return joined([Lowered((), (), (buffer,)), lower(copy)]), packed


def _convolve(spec: KernelSpec, core: Conv2d, weights: Access) -> Lowered:
    """The call that multiplies patches by ``weights`` and runs the body."""
    size = core.x.dtype.itemsize
    pixels, depth = product(spec.axes[:3]), product(core.kernel) * core.group_inputs
    tile = tuned_tile(size, core.groups, pixels, core.group_outputs)
    group_stride, row_stride = weights.strides[:2]
    table = _image_names(core)
    table.declare(weights=Pointer(weights.buffer, weights.offset * size), w_group=group_stride, b_stride=row_stride,
                  pixels=pixels, outputs=core.group_outputs, depth=depth)  # fmt: skip
    shared = tile.side(tile.rows, size, True), tile.side(tile.columns, size, True)
    patches = PatchLoader(shared[0], tile.threads, _patch_width(core), _stages(tile, shared))
    width = copy_width((weights.offset, group_stride, row_stride), size)
    rows = MatrixLoader("b", shared[1], tile.threads, "tile_column", "outputs", "depth", width)
    flat, (split, names) = by_pixel(spec, table)
    emitter = BodyEmitter(
        flat.body, flat.reads, flat.writes, len(flat.axes), table, core={0: staged_value(tile.warp_columns)}
    )
    lines = [
        f"b_base = weights + (group * w_group + tile_column * b_stride) * {size}",
        f"k_tiles = (depth + {tile.depth - 1}) // {tile.depth}",
    ]
    before = emitter.start()
    by_row = [*split, *(line for axis, name in enumerate(names) for line in emitter.enter(axis, name))]
    head = ["channel = group * outputs + column"]
    blocks: dict[str, Size] = {
        "group": core.groups, "row_block": ceil_div(pixels, tile.rows),
        "column_block": ceil_div(core.group_outputs, tile.columns),
    }  # fmt: skip
    region = warp_region(tile, "pixels", "outputs")
    body = [*before, *body_lines(region, flat, emitter, by_row, head, "channel")]
    return _multiplied("conv2d", spec, tile, patches, rows, table, blocks, lines, body, (core.x, weights))


def _image_names(core: Conv2d | ConvWeightGrad) -> ArgTable:
    """Arguments that give what conv_copies reads its names in the kernel."""
    (in_h, in_w), (out_h, out_w), (stride_h, stride_w) = core.in_size, core.out_size, core.stride
    values = (
        Pointer(core.x.buffer, core.x.offset * core.x.dtype.itemsize), *core.x.strides, in_h, in_w, out_h, out_w,
        stride_h, stride_w, *core.padding, *core.dilation, core.kernel[1], core.group_inputs,
    )  # fmt: skip
    table = ArgTable()
    table.declare(**dict(zip(IMAGE_NAMES, values, strict=True)))
    return table


def _patch_width(core: Conv2d | ConvWeightGrad) -> int:
    """Bytes of a patch that are known to lie side by side, aligned: those of one copy."""
    size, strides = core.x.dtype.itemsize, core.x.strides
    if strides[3] != 1:
        return size
    return copy_width((core.x.offset, *strides[:3], core.group_inputs), size) or size


def _stages(tile: Tile, shared: Sequence[SharedTile]) -> int:
    """Bytes of shared memory that the main loop takes; what the loader of patches keeps lies behind."""
    return tile.stages * sum(side.bytes for side in shared)


def _multiplied(name: str, spec: KernelSpec, tile: Tile, patches: PatchLoader | PixelLoader, other: MatrixLoader,
                table: ArgTable, blocks: dict[str, Size], lines: list[str], body: list[str],
                operands: tuple[Access, Access]) -> Lowered:  # fmt: skip
    """The call that multiplies what ``patches`` and ``other`` load in ``blocks``, among them ``group``, ``row_block``
    and ``column_block``, and runs ``body``. ``lines`` set what the loaders want in scope besides where the tile begins.
    """
    dtype = operands[0].dtype
    products = Products(product_kind(dtype, spec.products), *tile.fragments)
    code = kernel(
        f"{name}_{dtype}",
        [
            *place_threads(),
            *coordinates(table, "block", blocks),
            f"tile_row = row_block * {tile.rows}",
            f"tile_column = column_block * {tile.columns}",
            *place_warps(tile),
            f"x += group * inputs * x_c * {dtype.itemsize}",
            *lines,
            *MainLoop(tile, patches, other, products).lines(),
            *stage_lines(tile, products),
            *body,
        ],
        table, tile.threads, max(patches.table + patches.table_bytes, staged_bytes(tile)), modules=_MODULES,
    )  # fmt: skip
    reads = dict.fromkeys(access.buffer for access in (*operands, *spec.reads))
    writes = dict.fromkeys(access.buffer for access in spec.writes)
    tasks = product(blocks.values())
    call = Call(code.key, spec.name, table.args, tasks, tuple(reads), tuple(writes), 0, spec.nodes)
    return Lowered((call,), (code,))


# --- the weight gradient -------------------------------------------------------------------------------------


def lower_conv_weight_grad(spec: KernelSpec, lower: Lower, architecture: str) -> Lowered:
    """The calls for ``spec``, whose core is a ConvWeightGrad: copies of what lies otherwise than the kernel reads it,
    sums over parts of the pixels, then their total with the body. ``lower`` lowers all but the sums."""
    core = spec.core
    assert isinstance(core, ConvWeightGrad)
    dtype = dtypes.promote(core.x.dtype, core.dy.dtype)
    found = _weight_grad_by_wgmma(spec, core, dtype, lower) if architecture == "sm_90a" else None
    if found is not None and by_wgmma():
        before, core, way = found
        partial, made = hopper_weight_grad(spec, core, *way)
    else:
        before, core = _multiplicands(spec, core, dtype, lower)
        tile, chunks = _parts(core)
        partial = partial_sums(spec, dtype.computed, chunks)
        depth = product(core.kernel) * core.group_inputs
        made = _sum_pixels(sums_of_parts(spec, partial, (core.groups, depth, core.group_outputs)), core, tile)
    return joined([before, Lowered((), (), (partial.buffer,)), made, lower(total_of(spec, partial))])


def _weight_grad_by_wgmma(spec: KernelSpec, core: ConvWeightGrad, dtype: DType,
                          lower: Lower) -> tuple[Lowered, ConvWeightGrad, tuple[HopperTile, int]] | None:  # fmt: skip
    """As :func:`_way_by_wgmma`: of image and gradient that is padded whose pixels do not begin at whole chunks."""
    padded = (
        core.groups == 1 and not _fills_chunks(core.in_channels, dtype),
        not _fills_chunks(core.out_channels, dtype),
    )
    before, read = _multiplicands(spec, core, dtype, lower, padded)
    narrow = min(_patch_width(read), _gradient_width(read)) < CHUNK
    way = weight_grad_way(read, spec.products, _parts(read)[1], padded, narrow)
    return None if way is None else (before, read, way)


def _multiplicands(spec: KernelSpec, core: ConvWeightGrad, dtype: DType, lower: Lower,
                   padded: tuple[bool, bool] = (False, False)) -> tuple[Lowered, ConvWeightGrad]:  # fmt: skip
    """The calls that copy what lies otherwise than kernels read it, and the core with its image and its gradient."""
    before, image = _channels_together(spec, core, core.batch, dtype, lower, padded[0])
    copied, gradient = _evenly_spaced(spec, core, dtype, lower, padded[1])
    return joined([before, copied]), replace(core, x=image, dy=gradient)


def _parts(core: ConvWeightGrad) -> tuple[Tile, int]:
    """The tile for the sums, and into how many parts the pixels go."""
    depth, most = product(core.kernel) * core.group_inputs, most_parts(core)
    tile = choose_tile(core.x.dtype.itemsize, core.groups * most, depth, core.group_outputs)
    blocks = core.groups * ceil_div(depth, tile.rows) * ceil_div(core.group_outputs, tile.columns)
    return tile, max(min(2 * PROCESSORS // typical(blocks), most), 1)


def _evenly_spaced(spec: KernelSpec, core: ConvWeightGrad, dtype: DType, lower: Lower,
                   padded: bool = False) -> tuple[Lowered, Access]:  # fmt: skip
    """The gradient as a matrix, a row a pixel, in ``dtype``, and the call that makes it so, if one is needed. Where it
    is to be ``padded`` each row begins at a whole chunk."""
    n, h, w, c = core.dy.strides
    height, width = core.out_size
    if core.dy.dtype == dtype and not padded and c == 1 and h == width * w and n == height * h:
        return Lowered((), ()), core.dy
    pixels = core.batch, height, width
    room = (*pixels, _whole(core.out_channels, dtype) if padded else core.out_channels)
    copy, buffer, gradient = dense_copy(
        spec, core.dy, (*pixels, core.out_channels), dtype, "gradient", dense_strides(room), product(room)
    )
    return joined([Lowered((), (), (buffer,)), lower(copy)]), gradient


def _gradient_width(core: ConvWeightGrad) -> int:
    """Bytes of a row of the gradient that one copy may move."""
    return copy_width((core.dy.offset, core.dy.strides[2], core.group_outputs), core.dy.dtype.itemsize)


def _sum_pixels(parts: KernelSpec, core: ConvWeightGrad, tile: Tile) -> Lowered:
    """The call for ``parts``, whose axes are (chunks, groups, elements of a patch, outputs)."""
    size, pixels = core.x.dtype.itemsize, core.batch * product(core.out_size)
    chunks, groups, depth, outputs = parts.axes
    table = _image_names(core)
    table.declare(
        gradient=Pointer(core.dy.buffer, core.dy.offset * size), b_k=core.dy.strides[2], pixels=pixels,
        outputs=outputs, depth=depth, per_chunk=ceil_div(ceil_div(pixels, chunks), tile.depth) * tile.depth,
    )  # fmt: skip
    shared = tile.side(tile.rows, size, False), tile.side(tile.columns, size, False)
    patches = PixelLoader(shared[0], tile.threads, _patch_width(core), _stages(tile, shared))
    rows = MatrixLoader("b", shared[1], tile.threads, "tile_column", "outputs", "count", _gradient_width(core))
    emitter = BodyEmitter(parts.body, parts.reads, parts.writes, 4, table, core={0: staged_value(tile.warp_columns)})
    lines = [
        "first_pixel = chunk * per_chunk",
        "last_pixel = minimum(first_pixel + per_chunk, pixels)",
        "count = maximum(last_pixel - first_pixel, 0)",
        f"b_base = gradient + (first_pixel * b_k + group * outputs + tile_column) * {size}",
        f"k_tiles = (count + {tile.depth - 1}) // {tile.depth}",
    ]
    before = [*emitter.start(), *emitter.enter(0, "chunk"), *emitter.enter(1, "group")]
    by_row = emitter.enter(2, "row")
    blocks: dict[str, Size] = {
        "chunk": chunks, "group": groups, "row_block": ceil_div(depth, tile.rows),
        "column_block": ceil_div(outputs, tile.columns),
    }  # fmt: skip
    body = [*before, *body_lines(warp_region(tile, "depth", "outputs"), parts, emitter, by_row)]
    return _multiplied("conv_weight_grad", parts, tile, patches, rows, table, blocks, lines, body, (core.x, core.dy))
