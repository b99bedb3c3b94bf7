"""What becomes of the accumulators: the body of the kernel, placed on them.

A warp's accumulators lie scattered over its lanes, two neighbours each. They go through shared memory, where the main
loop is done with its stages, so that lanes take neighbouring columns: a body's loads and stores are coalesced, whatever
it does, and its text stands once, in a loop, however many accumulators there are.
"""

from __future__ import annotations

from collections.abc import Sequence

from runtime.cuda.products import Products
from runtime.cuda.tiles import FRAGMENT_COLUMNS, FRAGMENT_ROWS, Tile
from runtime.emit import indent


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


def staged_value(columns: int, row: str = "r", column: str = "c") -> str:
    """The expression of the accumulator of this warp's row and column, of ``columns``."""
    return f"load_shared_f32(staged, {row} * {columns} + ({column} ^ ({row} & 3) * 8))"


def body_lines(tile: Tile, by_row: Sequence[str], by_column: Sequence[str], rows: str, columns: str) -> list[str]:
    """Lines that run a body on this warp's accumulators once :func:`stage_lines` has put them down.

    ``by_row`` and ``by_column`` are what the body's emitter, which has :func:`staged_value` for its core, places
    where ``row`` and ``column`` become known: the numbers of this point in a result of ``rows`` by ``columns``. In
    scope are ``tile_row`` and ``tile_column``, where the block's tile begins, ``warp_row`` and ``warp_column``.
    """
    return [
        f"for r in range({tile.warp_rows}):",
        "    row = tile_row + warp_row + r",
        f"    if row < {rows}:",
        *indent(by_row, 2),
        f"        for c in range(lane, {tile.warp_columns}, 32):",
        "            column = tile_column + warp_column + c",
        f"            if column < {columns}:",
        *indent(by_column, 4),
    ]
