"""Lowering a depthwise convolution of what a convolution of single pixels makes: the image between them, often the
largest of a network, is never in memory.

A task makes a tile of the depthwise convolution for a block of channels, some rows at a time. It computes the pixels
that these read with the microkernel, runs the body between the two convolutions on them, and puts them with their
padding where the depthwise kernel would have copied them. There lines take turns: those that the next rows read too
stay, the others give way. Only pixels at the edge of two tiles are computed twice; so tiles are large.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from itertools import product as pairs

from engine import dims
from engine.dims import Size, product
from engine.program import Call, Lowered
from engine.records import dataclass
from engine.schedule import Access, ConvChain, KernelSpec
from runtime.cpu.contraction import TASK_OVERHEAD, THREADS, fitting
from runtime.cpu.conv import computed_dtype
from runtime.cpu.conv_chain_pixels import ChainPixels
from runtime.cpu.depthwise import DepthwiseTile, pack_windows, place_lines, points_together, row_lines
from runtime.cpu.emit import kernel
from runtime.cpu.factors import take_factor
from runtime.cpu.packing import Axis, Packed, Panels, pack
from runtime.cpu.scratch import scratch_lines, scratch_parts
from runtime.cpu.tiles import Tile, host_tile
from runtime.emit import SCRATCH, ArgTable, BodyEmitter, indent, load, loop
from runtime.tasks import coordinates, piece, typical

RING_BYTES = 262144
"""The most that the lines should take which a tile's rows read."""
CHANNELS = 96
"""The most channels of a task, where they divide so."""
STRIP = 192
"""How many pixels at least are made before rows that read them are computed, for whole microkernels."""
VECTOR_COST = 6
"""What a vector of a point costs besides its products, in multiply-adds: its body, and being written."""
POINT_COST = 8
"""What every point costs besides, in vector multiply-adds."""


@dataclass(frozen=True)
class ChainTile:
    """The blocking: tiles of the second convolution, ``rows`` of each at a time."""

    tile: DepthwiseTile
    rows: int

    @property
    def ring(self) -> int:
        """Lines of input that so many rows read."""
        return (self.rows - 1) * self.tile.core.stride[0] + self.tile.patch.reach(0)

    @property
    def bytes(self) -> int:
        return self.ring * self.tile.patch.pitch * self.tile.dtype.itemsize

    @property
    def ring_lines(self) -> list[str]:
        """Lines that set how far behind ``patch`` the lines of input are that row ``r`` reads, which take turns."""
        found = []
        for kh in range(self.tile.core.kernel[0]):
            found += [f"line_{kh} = r * stride_h + {kh} * dilation_h",
                      f"row_{kh} = (line_{kh} - quotient(line_{kh}, ring) * ring) * pitch"]  # fmt: skip
        return found


def chain_tile(tile: DepthwiseTile, strip: int = STRIP) -> ChainTile:
    """``tile`` in few rows at a time, so many that they read about ``strip`` pixels that others do not."""
    width = min(tile.patch.extent(1), typical(tile.core.in_size[1]))
    rows = -(-strip // (width * tile.core.stride[0]))
    return ChainTile(tile, piece(tile.size[0], rows) if rows < tile.size[0] else tile.size[0])


def plan_chain(core: ConvChain, images: Size) -> ChainTile:
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
    near = [tile for tile in found if chain_tile(tile).bytes <= RING_BYTES]
    return chain_tile(min(near or found[:1], key=time))


def without_factors(
    spec: KernelSpec, core: ConvChain, lasting: Collection[str]
) -> tuple[KernelSpec, ConvChain, Access | None, Access | None]:
    """``spec`` and its ``core`` without the factors, if they have such, that the weights of its convolutions take."""
    inner, first = take_factor(core.inner, spec.reads, core.source.w, lasting)
    body, last = take_factor(spec.body, spec.reads, core.last.w, lasting)
    return replace(spec, body=body), replace(core, inner=inner), first, last


def lower_conv_chain(spec: KernelSpec, core: ConvChain, lasting: Collection[str] = ()) -> Lowered:
    """The calls for ``spec``: two pack the weights of the two convolutions, one does the rest. ``lasting`` names the
    buffers that stay from call to call."""
    spec, core, first, last = without_factors(spec, core, lasting)
    chain = plan_chain(core, spec.axes[0])
    plan, source = chain.tile, core.source
    tile = fitting(host_tile(plan.dtype), plan.channels)
    windows, packed = pack_windows(spec, plan, last), _pack_weights(spec, core, plan, tile, first)
    table = ArgTable()
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, 4, table)
    value = load(plan.dtype, "values", "j", table.scope(SCRATCH))
    inner = BodyEmitter(core.inner, spec.reads, (), 4, table, core={0: value}, tag="_inner_")
    lines = [*emitter.start(), *inner.start()]
    make = ChainPixels(spec, core, plan, tile, packed.buffer.name, table, inner, emitter)
    by_task, by_strip, modules = make.lines()
    parts = scratch_parts({"patch": chain.bytes, **make.scratch()})
    table.declare(ring=chain.ring, strip=chain.rows)
    before, by_row = row_lines(plan, emitter, table, windows.buffer.name, chain.ring_lines)
    space = plan.space(spec.axes[0])
    task = loop("task", "lo", "hi", [
        *coordinates(table, "task", space),
        *place_lines(plan, table),
        *by_task,
        *before,
        "made = 0",
        "top = 0",
        "while top < tile_h:",
        *indent([
            "stop = minimum(top + strip, tile_h)",
            *by_strip,
            *loop("r", "top", "stop", by_row),
            "top = stop",
        ]),
    ])  # fmt: skip
    code = kernel(f"conv_chain_{plan.dtype}", [*scratch_lines(parts, table), *lines, *task], table, modules=modules)
    reads = dict.fromkeys([source.x.buffer, packed.buffer.name, windows.buffer.name, *(r.buffer for r in spec.reads)])
    writes = dict.fromkeys(access.buffer for access in spec.writes)
    main = Call(code.key, spec.name, table.args, product(space.values()), tuple(reads), tuple(writes), parts["end"],
                spec.nodes)  # fmt: skip
    kernels = {k.key: k for k in (packed.kernel, windows.kernel, code)}
    return Lowered((packed.call, windows.call, main), tuple(kernels.values()), (packed.buffer, windows.buffer))


def _pack_weights(spec: KernelSpec, core: ConvChain, plan: DepthwiseTile, tile: Tile,
                  factor: Access | None) -> Packed:  # fmt: skip
    """The call that packs the first convolution's weights, times ``factor``: ``[block][panel][inputs][columns]``."""
    w, each = core.source.w, plan.channels
    outputs, inputs = w.strides[:2]
    panels = Panels(
        w.buffer, w.offset, w.dtype, [Axis(core.last.groups // each, each * outputs)],
        [Axis(core.source.in_channels, inputs)], Axis(each, outputs), tile.columns, plan.dtype,
        factor and replace(factor, strides=(each, 1)),
    )  # fmt: skip
    return pack(panels, f"{spec.name}.weights", spec.name, spec.nodes)
