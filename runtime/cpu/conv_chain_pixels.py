"""The pixels between the two convolutions of a chain: multiplied, their body run, and put where rows are read.

Where the body is plain arithmetic with what is the same for all pixels, as a folded norm and a clipped relu are, it
runs on the sums while they are in registers. Any other body runs on sums that have been stored, a few pixels at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine import dtypes
from engine.program import Pointer
from engine.records import dataclass
from engine.schedule import ConvChain, KernelSpec
from runtime.cpu.contraction import by_width, row_blocks
from runtime.cpu.depthwise import DepthwiseTile
from runtime.cpu.register_bodies import RegisterBody, is_arithmetic
from runtime.cpu.tiles import Tile, host_tile
from runtime.emit import SCRATCH, ArgTable, BodyEmitter, indent, load, loop, note, store
from runtime.tasks import typical

PIXELS = 48
"""How many pixels are made with a panel of weights while it is near."""


@dataclass(frozen=True)
class ChainPixels:
    """What makes the input of the tiles of ``plan``, with microkernels of ``tile`` and packed ``weights``. ``inner`` is
    the body between the convolutions of ``core``, ``emitter`` the one behind them; both have been started."""

    spec: KernelSpec
    core: ConvChain
    plan: DepthwiseTile
    tile: Tile
    weights: str
    table: ArgTable
    inner: BodyEmitter
    emitter: BodyEmitter

    @property
    def in_registers(self) -> bool:
        """Whether the body can run on sums before they are stored: it has whole vectors of channels, plain arithmetic,
        and operands that are the same for all pixels."""
        dtype = self.plan.dtype
        whole = self.plan.channels % host_tile(dtype).lanes == 0
        return whole and is_arithmetic(self.core.inner, self.spec.reads, dtype)

    @property
    def owned(self) -> int | None:
        """The number of the write whose lines are made this core's own before they are needed, if they may be
        another's: where tasks share out channels, who reads all channels of a pixel has read what others wrote."""
        if any(typical(size) > 1 for size in list(self.plan.space(1).values())[1:3]):
            return None
        inputs = {self.core.source.x.buffer, *(a.buffer for a in self.spec.reads)}
        found = (
            k for k, a in enumerate(self.spec.writes)
            if a.dtype == self.plan.dtype and a.strides[3] == 1 and a.buffer not in inputs
        )  # fmt: skip
        return next(found, None) if self.in_registers else None

    @property
    def block_channels(self) -> int:
        return -(-self.plan.channels // self.tile.columns) * self.tile.columns

    def scratch(self) -> dict[str, int]:
        """The bytes of each part of the scratch memory: tables of addresses, and sums that are stored."""
        tables = ["bases", "targets"] if self.owned is None else ["bases", "targets", "results"]
        parts = dict.fromkeys(tables, (PIXELS + self.tile.rows) * 8)
        return parts if self.in_registers else parts | {
            "block": PIXELS * self.block_channels * self.plan.dtype.itemsize
        }  # fmt: skip

    def lines(self) -> tuple[list[str], list[str], dict[str, Sequence[str]]]:
        """Lines at the start of a task, those that make what its rows ``top .. stop`` read beyond the lines of input
        that are ``made``, and what they import."""
        source, plan, table = self.core.source, self.plan, self.table
        x, patch, size, scope = source.x, plan.patch, plan.dtype.itemsize, table.scope(SCRATCH)
        panel_bytes = source.in_channels * self.tile.columns * size
        patch.declare(table)
        table.declare(
            x=Pointer(x.buffer, x.offset * size), weights=Pointer(self.weights), x_n=x.strides[0], x_h=x.strides[1],
            x_w=x.strides[2], x_c=x.strides[3], inputs=source.in_channels, weights_panel=panel_bytes,
            weights_block=-(-plan.channels // self.tile.columns) * panel_bytes,
        )  # fmt: skip
        by_task = [
            f"image = x + n * x_n * {size}",
            "start_h = oh0 * stride_h - pad_h",
            "start_w = ow0 * stride_w - pad_w",
            "first_w = maximum(start_w, 0)",
            "last_w = maximum(first_w, minimum(in_w, start_w + patch_w))",
            "left = minimum(first_w - start_w, patch_w) * channels",
            "right = minimum(last_w - start_w, patch_w) * channels",
            *self.inner.enter(0, "n"),
        ]
        multiply, modules = self._in_registers() if self.in_registers else self._stored()
        place, by_pixel = self._own_lines()
        tables = {
            "bases": f"image + (ih * x_h + iw * x_w) * {size}",
            "targets": f"patch + (line * pitch + (iw - start_w) * channels) * {size}",
            **place,
        }
        repeated = [note(name, "r", load(dtypes.i64, name, "here - 1", scope), scope) for name in tables]
        by_strip = [
            "made = maximum(made, top * stride_h)",
            "needed = (stop - 1) * stride_h + reach_h",
            *loop("row", "made", "needed", [
                f"line = patch + (row - quotient(row, ring) * ring) * pitch * {size}",
                "if start_h + row >= 0 and start_h + row < in_h:",
                *indent([*patch.clear_lines("0", "left", scope), *patch.clear_lines("right", "pitch", scope)]),
                "else:",
                *indent(patch.clear_lines("0", "pitch", scope)),
            ]),
            "ih = maximum(start_h + made, 0)",
            "iw = first_w",
            "line = ih - start_h - quotient(ih - start_h, ring) * ring",
            "pixels = maximum(minimum(in_h, start_h + needed) - ih, 0) * (last_w - first_w)",
            *(["result_h = top", "result_w = 0", "expected = (stop - top) * tile_w"] if place else []),
            f"for begin in range(0, pixels, {PIXELS}):",
            *indent([
                f"here = minimum(pixels - begin, {PIXELS})",
                "from_h = ih",
                "from_w = iw",
                *loop("r", "0", "here", [
                    *by_pixel,
                    *(note(name, "r", address, scope) for name, address in tables.items()),
                    *_NEXT_PIXEL,
                    "    line = line + 1 if line + 1 < ring else 0",
                    *(_NEXT_RESULT if place else []),
                ]),
                *loop("r", "here", f"here + {self.tile.rows - 1}", repeated),
                "column = weights + channel_block * weights_block",
                *multiply,
            ]),
            "made = needed",
        ]  # fmt: skip
        return by_task, by_strip, modules

    def _own_lines(self) -> tuple[dict[str, str], list[str]]:
        """The table of results whose lines are asked for along with a pixel, and lines of a pixel that go before it.
        They are those of the rows that are computed next, one after the other."""
        if self.owned is None:
            return {}, []
        place = self.emitter.fork(only=(), tag="own_")
        lines = [*place.enter(0, "n"), *place.enter(1, "(oh0 + result_h)"), *place.enter(2, "(ow0 + result_w)")]
        place.enter(3, "channel0", inline=True)
        pointer, index, _ = place.written(self.owned)
        return {"results": f"{pointer} + ({index}) * {self.plan.dtype.itemsize}"}, lines

    def _panels(self, panel: Callable[[Tile, bool], list[str]]) -> list[str]:
        """The loop over panels of channels."""
        lines = by_width(self.plan.channels, self.tile, "channels - c", panel)
        return [f"for c in range(0, channels, {self.tile.columns}):", *indent([*lines, "column += weights_panel"])]

    def _in_registers(self) -> tuple[list[str], dict[str, Sequence[str]]]:
        """Lines that put what the body makes of the pixels in ``bases`` at ``targets``, and what they import."""
        size, unit = self.plan.dtype.itemsize, self.core.source.x.strides[3] == 1
        body = RegisterBody(self.inner, self.core.inner[-1].name, self.plan.dtype, "_inner")
        call = f"1, inputs, x_c * {size}, bases + r * 8, column, {self.tile.columns * size}"
        finish = f"store_rows_{{shape}}(targets + r * 8, c * {size}, {{value}})"
        claim = ["if begin + r < expected:", f"    own_rows_{{shape}}(results + r * 8, c * {size})"]
        before = claim if self.owned is not None else []

        def panel(tile: Tile, packed: bool) -> list[str]:
            return body.lines(tile, (unit, packed, ""), call, "channel0 + c", "here", finish, before)

        return self._panels(panel), body.modules

    def _stored(self) -> tuple[list[str], dict[str, Sequence[str]]]:
        """The same for any body: the sums go through ``block``."""
        dtype, size, scope = self.plan.dtype, self.plan.dtype.itemsize, self.table.scope(SCRATCH)
        unit, names = self.core.source.x.strides[3] == 1, []
        self.table.declare(block_channels=self.block_channels)
        call = (
            f"{{tile}}(1, inputs, x_c * {size}, bases + r * 8, column, {self.tile.columns * size}, "
            f"block + (r * block_channels + c) * {size}, block_channels * {size}, 0)"
        )

        def panel(tile: Tile, packed: bool) -> list[str]:
            found = [tile.name(dtype, height, unit, packed) for height in tile.heights]
            names.extend(found)
            return row_blocks(found, tile.heights, call, "0", "here")

        multiply = self._panels(panel)
        by_pixel = [*self.inner.enter(1, "ih"), *self.inner.enter(2, "iw")]
        by_channel = self.inner.enter(3, "channel0 + j", inline=True)
        by_channel.append(store(dtype, "target", "j", self.inner.value(self.core.inner[-1].name), scope))
        body = [
            "ih = from_h",
            "iw = from_w",
            *loop("r", "0", "here", [
                f"values = block + r * block_channels * {size}",
                f"target = {load(dtypes.i64, 'targets', 'r', scope)}",
                *by_pixel,
                *loop("j", "0", "channels", by_channel),
                *_NEXT_PIXEL,
            ]),
        ]  # fmt: skip
        return [*multiply, *body], {"runtime.cpu.microkernel": names}


_NEXT_PIXEL = ["iw += 1", "if iw == last_w:", "    iw = first_w", "    ih += 1"]
_NEXT_RESULT = [
    "result_w += 1",
    "if result_w == tile_w:",
    "    result_w = 0",
    "    result_h = minimum(result_h + 1, stop - 1)",
]
"""Behind the last result of a strip come those of its last row again: they are not computed yet."""
