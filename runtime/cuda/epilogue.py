"""What becomes of the accumulators: the body of the kernel, placed on them.

A warp's accumulators lie scattered over its lanes, two neighbours each. They go through shared memory, where the main
loop is done with its stages, so that lanes take neighbouring columns: a body's loads and stores are coalesced, whatever
it does, and its text stands once, in a loop, however many accumulators there are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from engine.records import dataclass
from engine.schedule import KernelSpec
from runtime.cuda.loops import neighbour_lines, neighbours
from runtime.cuda.products import Products
from runtime.cuda.tiles import FRAGMENT_COLUMNS, FRAGMENT_ROWS, Tile
from runtime.emit import BodyEmitter, indent

NEIGHBOURS = 4
"""Columns that a lane takes at a time, at most: 16 bytes of accumulators."""


def enter_rows(emitter: BodyEmitter, batch: Collection[str]) -> tuple[list[str], list[str]]:
    """The body's lines outside the loops over results, where the names in ``batch`` count the axes of the batch, and
    those at the top of the loop in which ``row`` does."""
    lines = emitter.start()
    for axis, name in enumerate(batch):
        lines += emitter.enter(axis, name)
    return lines, emitter.enter(len(batch), "row")


def staged_bytes(tile: Tile) -> int:
    """Shared memory that the accumulators of a block take."""
    return tile.rows * tile.columns * 4


def stage_lines(tile: Tile, products: Products) -> list[str]:
    """Lines that put the accumulators of this warp, float32, into shared memory at ``staged``: by rows of
    ``tile.warp_columns``, groups of eight columns swizzled by the row so that no two lanes meet in a bank.

    ``shared``, ``warp`` and ``lane`` are in scope, and nobody reads the stages any more.
    """
    rows, columns = tile.fragments
    row = tile.warp_columns * 4
    at = f"staged_at + i * {FRAGMENT_ROWS * row} + ((j * {FRAGMENT_COLUMNS} ^ staged_turn) + lane % 4 * 2) * 4"
    return [
        f"staged = shared + warp * {tile.warp_rows * row}",
        f"staged_at = staged + (lane >> 2) * {row}",
        "staged_turn = (lane >> 2 & 3) * 8",
        f"for i in range({rows}):",
        f"    for j in range({columns}):",
        f"        at = {at}",
        f"        o = 4 * (i * {columns} + j)",
        f"        st_shared_v2_f32(at, {products.value('o')}, {products.value('o + 1')})",
        f"        st_shared_v2_f32(at + {8 * row}, {products.value('o + 2')}, {products.value('o + 3')})",
        "cuda.syncwarp()",
    ]


def staged_value(columns: int) -> str:
    """The expression of the accumulator in row ``r`` and column ``c`` of those at ``staged``, rows of ``columns``."""
    return f"load_shared_f32(staged, {_staged_index(columns)})"


def _staged_index(columns: int) -> str:
    return f"r * {columns} + (c ^ (r & 3) * 8)"


@dataclass(frozen=True)
class Region:
    """Accumulators of one warp at ``staged``: ``rows`` by ``columns``, which begin in the whole result, of
    ``row_limit`` by ``column_limit``, at ``first_row`` and ``first_column``; all four are expressions."""

    rows: int
    columns: int
    first_row: str
    first_column: str
    row_limit: str
    column_limit: str


def warp_region(tile: Tile, row_limit: str, column_limit: str) -> Region:
    """What :func:`stage_lines` has put down; ``tile_row`` and ``tile_column``, where the block's tile begins, are in
    scope, and ``warp_row`` and ``warp_column``."""
    first = ("tile_row + warp_row", "tile_column + warp_column")
    return Region(tile.warp_rows, tile.warp_columns, *first, row_limit, column_limit)


def body_lines(region: Region, spec: KernelSpec, emitter: BodyEmitter, by_row: Sequence[str], head: Sequence[str] = (),
               variable: str = "column") -> list[str]:  # fmt: skip
    """Lines that run the body of ``spec`` on ``region``, each lane on a few neighbours of the last axis at a time.

    ``emitter``, which has :func:`staged_value` for its core, has entered all axes but the last, of which ``by_row`` are
    the lines behind ``row``, the number of a row in the whole result. ``head`` sets ``variable``, the last axis' own
    number, from that of the ``column``.
    """
    last = len(spec.axes) - 1
    width = min(neighbours(spec), NEIGHBOURS)
    sums = [f"sum{e}" for e in range(width)]
    together: list[str] = []
    if width > 1:
        load = f"ld_shared_v{width}_f32(staged + ({_staged_index(region.columns)}) * 4)"
        core = [{0: name} for name in sums]
        together = [f"{', '.join(sums)} = {load}", *neighbour_lines(emitter, spec, width, variable, core=core)]
    single = [*head, *emitter.enter(last, variable, inline=True)]
    in_row = region.columns // width
    lines = [
        f"r = unit // {in_row}",
        f"c = unit % {in_row}" + (f" * {width}" if width > 1 else ""),
        f"row = {region.first_row} + r",
        f"column = {region.first_column} + c",
    ]
    inside, columns = f"row < {region.row_limit}", spec.axes[-1]
    if width == 1:
        lines += [f"if {inside} and column < {region.column_limit}:", *indent([*by_row, *single])]
    elif isinstance(columns, int) and columns % width == 0 and not head:
        lines += [f"if {inside} and column < {region.column_limit}:", *indent([*by_row, *together])]
    else:
        lines += [
            f"if {inside}:",
            *indent(by_row),
            f"    if column + {width} <= {region.column_limit}:",
            *indent([*head, *together], 2),
            "    else:",
            f"        for c in range(c, c + {width}):",
            f"            column = {region.first_column} + c",
            f"            if column < {region.column_limit}:",
            *indent(single, 4),
        ]
    return [f"for unit in range(lane, {region.rows * in_row}, 32):", *indent(lines)]
