"""The points of a convolution's tile by the taps that they meet, so that padding is not multiplied.

Along an axis the outputs at the borders meet a part of the window. Columns of these are a part of the tile each, with
all rows; what is between them is cut where rows meet other taps. So there are few parts, all of them long, and corners
alone multiply some padding. Parts follow one another in the block of results: a table says where each point is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from engine import dtypes
from engine.dims import Size
from engine.records import dataclass
from engine.schedule import Conv2d
from runtime.conv_taps import Run, is_known, runs_of
from runtime.cpu.contraction import ends_narrow
from runtime.cpu.conv import ConvTile
from runtime.emit import SCRATCH, ArgTable, indent, load, loop, note

LEAST_GAIN = 0.95
"""The part of the products above which it is not worth the tables."""
LEAST_INPUTS = 8
"""With fewer channels a tap is too short for tables of its own."""


@dataclass(frozen=True)
class Part:
    """Outputs that meet the same taps: rows of ``down``, columns of ``across``."""

    down: Run
    across: Run

    def products(self, tile: ConvTile) -> int:
        """Taps multiplied in all tiles of an image, with the rows that fill the last microkernel of each."""
        least = tile.tile.short_heights[-2]
        found = 0
        for top in range(0, _size(tile.core.out_size[0]), tile.size[0]):
            rows = min(self.down.first + self.down.count, top + tile.size[0]) - max(self.down.first, top)
            found += -(-max(rows, 0) * self.across.count // least) * least
        return found * self.down.taps * self.across.taps


def _size(size: Size) -> int:
    assert isinstance(size, int)
    return size


def parts_of(core: Conv2d) -> list[Part]:
    """The parts of the whole image."""
    down, across = runs_of(core)
    every = Run(0, _size(core.out_size[0]), 0, core.kernel[0])
    return list(chain.from_iterable(
        [Part(row, column) for row in down] if column.taps == core.kernel[1] else [Part(every, column)]
        for column in across
    ))  # fmt: skip


def worth_parting(plan: ConvTile) -> bool:
    """Whether the tiles of ``plan``, as wide as the image, leave out enough padding."""
    core = plan.core
    if not is_known(core) or core.dilation[1] != 1 or core.group_inputs < LEAST_INPUTS or plan.taken:
        return False
    if plan.size[1] < _size(core.out_size[1]) or ends_narrow(core.group_outputs, plan.tile):
        return False
    parts = parts_of(core)
    if not all(p.down.taps and p.across.taps for p in parts):
        return False
    whole = Part(*(Run(0, _size(n), 0, taps) for n, taps in zip(core.out_size, core.kernel, strict=True)))
    return sum(p.products(plan) for p in parts) < LEAST_GAIN * whole.products(plan)


_FIELDS = ("part_h", "part_end_h", "first_tap_h", "run_h", "part_w", "part_end_w", "first_tap_w", "run_w")
"""What a task is told of a part."""
_NEXT_POINT = ["ow += 1", "if ow == end_w:", "    ow = from_w", "    oh += 1"]


def part_lines(plan: ConvTile, table: ArgTable) -> tuple[list[str], list[str]]:
    """Lines that compute all points of the tile in ``patch`` into ``block``, after those of :func:`image_lines`, and
    the names of the microkernels used. ``where`` then holds the address of every point's results."""
    core, tile, patch = plan.core, plan.tile, plan.patch
    size, scope = plan.dtype.itemsize, table.scope(SCRATCH)
    told = [(r.first, r.first + r.count, r.tap, r.taps) for part in parts_of(core) for r in (part.down, part.across)]
    parts = table.block(tuple(number for run in told for number in run))
    table.declare(
        part_count=len(told) // 2, step_h=patch.step(0), step_w=patch.step(1), tap_h=patch.tap(0), tap_w=patch.tap(1),
        taps_w=core.kernel[1], inputs=core.group_inputs,
    )  # fmt: skip
    names = {height: tile.name(plan.dtype, height, True, True, "jumps") for height in tile.short_heights}
    call = (
        f"{{tile}}(run_h, run_w * inputs, {size}, table + r * run_h * 8, panel, tap_row, "
        f"block + ((filled + r) * block_channels + c) * {size}, block_channels * {size}, 0)"
    )
    corner = "patch + (oh - oh0) * step_h + (ow - ow0) * step_w + first_tap_h * tap_h + first_tap_w * tap_w"
    entry = f"{load(dtypes.i64, 'bases', 'r + i', scope)} + kh * tap_h"
    lines = [
        f"tap_row = taps_w * inputs * {tile.columns * size}",
        "filled = 0",
        *loop("part", "0", "part_count", [
            *(f"{name} = slot({parts}, part * {len(_FIELDS)} + {k})" for k, name in enumerate(_FIELDS)),
            "from_h = maximum(part_h, oh0)",
            "from_w = maximum(part_w, ow0)",
            "end_w = minimum(part_end_w, ow0 + tile_w)",
            "here = maximum(minimum(part_end_h, oh0 + tile_h) - from_h, 0) * maximum(end_w - from_w, 0)",
            "oh = from_h",
            "ow = from_w",
            *loop("r", "0", "here", [
                note("bases", "r", corner, scope),
                note("where", "(oh - oh0) * tile_w + ow - ow0",
                      f"block + (filled + r) * block_channels * {size}", scope),
                *_NEXT_POINT,
            ]),
            "if here > 0:",
            *indent(loop("r", "here", f"here + {tile.rows - 1}", [
                note("bases", "r", load(dtypes.i64, "bases", "here - 1", scope), scope),
            ])),
            "at = 0",
            *_short_blocks(tile.short_heights, lambda high: loop("kh", "0", "run_h", [
                *loop("i", "0", str(high), [note("table", "at + i", entry, scope)]),
                f"at += {high}",
            ])),
            f"panel = first_panel + first_tap_h * tap_row + first_tap_w * inputs * {tile.columns * size}",
            f"for c in range(0, columns, {tile.columns}):",
            *indent(_short_blocks(tile.short_heights, lambda high: [call.format(tile=names[high])])),
            "    panel += panel_bytes",
            "filled += here",
        ]),
    ]  # fmt: skip
    return lines, list(names.values())


def _short_blocks(heights: Sequence[int], lines: Callable[[int], list[str]]) -> list[str]:
    """Lines that walk ``here`` rows in blocks of ``heights``; ``lines(high)`` are those of one of them, whose first row
    is ``r``. A block is filled up where two smaller ones would not do."""
    *larger, smallest = heights
    walk = [*lines(smallest), f"r += {smallest}"]
    for i, high in reversed(list(enumerate(larger))):
        block = [*lines(high), f"r += {high}"]
        walk = [f"if here - r > {sum(heights[i + 1 : i + 3])}:", *indent(block), "else:", *indent(walk)]
    return ["r = 0", "while r < here:", *indent(walk)]
