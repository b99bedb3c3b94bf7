"""Tiles of products on tensor cores: what a block computes, how its warps share it, how it lies in shared memory.

A block of threads makes ``rows x columns`` of the result; each of its warps ``warp_rows x warp_columns`` of these, in
registers. The operands come through shared memory, ``depth`` elements of k at a time, ``stages`` of them under way.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.dims import Size
from engine.records import dataclass
from runtime.choices import pick
from runtime.tasks import typical

CHUNK = 16
"""Bytes: what one thread copies at a time, and a row of the matrices of 8 rows that ``ldmatrix`` reads."""
FRAGMENT_ROWS, FRAGMENT_COLUMNS = 16, 8
"""The result of one ``mma``."""
STEP = 32
"""Bytes of k that one ``mma`` takes: 16 elements of 2 bytes, or 8 of 4."""


@dataclass(frozen=True)
class SharedTile:
    """``rows`` of ``row`` bytes in shared memory, the chunks of each row swizzled so that neither copies into it nor
    loads of fragments meet in a bank.

    ``along_k`` says what its rows are: rows of a (or columns of b) with k along them, or (not ``along_k``) one element
    of k each, with rows of a (or columns of b) along them. ``itemsize`` is that of an element.
    """

    rows: int
    row: int
    itemsize: int
    along_k: bool

    @property
    def bytes(self) -> int:
        return self.rows * self.row

    @property
    def chunks(self) -> int:
        """Chunks in a row."""
        return self.row // CHUNK

    @property
    def elements(self) -> int:
        """Elements in a chunk."""
        return CHUNK // self.itemsize

    def turn(self, row: str) -> str:
        """What the number of each chunk in ``row``, the name of a number, is xor-ed with.

        Eight chunks fill the 32 banks once. ``ldmatrix`` reads the same chunk of eight rows: with eight chunks or more
        in a row they must all differ, with fewer several rows share one pass over the banks. Where elements of 4 bytes
        have k across the rows they are read one by one, from 8 places of each of 4 rows: two chunks a row.
        """
        if not self.along_k and self.itemsize == 4:
            return f"({row} & 3) * 2"
        if self.chunks >= 8:
            return f"{row} & 7"
        shift = {4: 1, 2: 2}[self.chunks]
        return f"{row} >> {shift} & {self.chunks - 1}"


@dataclass(frozen=True)
class Tile:
    """See above. Sizes are in elements."""

    rows: int
    columns: int
    depth: int
    warp_rows: int
    warp_columns: int
    stages: int

    def __str__(self) -> str:
        return f"{self.rows} x {self.columns} x {self.depth}, {self.stages} stages"

    @property
    def warps(self) -> int:
        return (self.rows // self.warp_rows) * (self.columns // self.warp_columns)

    @property
    def threads(self) -> int:
        return 32 * self.warps

    @property
    def fragments(self) -> tuple[int, int]:
        """Of a warp, along rows and along columns."""
        return self.warp_rows // FRAGMENT_ROWS, self.warp_columns // FRAGMENT_COLUMNS

    @property
    def accumulators(self) -> int:
        """float32 numbers of the result in each thread's registers."""
        return self.warp_rows * self.warp_columns // 32

    def side(self, extent: int, itemsize: int, along_k: bool) -> SharedTile:
        """One stage of an operand of which a block needs ``extent`` rows (of a) or columns (of b)."""
        if along_k:
            return SharedTile(extent, self.depth * itemsize, itemsize, True)
        return SharedTile(self.depth, extent * itemsize, itemsize, False)


PROCESSORS = 132
"""Of the GPU that tiles are chosen for."""


@dataclass(frozen=True)
class Choice:
    """A tile, and what is expected of it: ``resident`` blocks on a processor, and products in each unit of time, beside
    the largest tile's."""

    tile: Tile
    resident: int
    speed: float


HALF = (
    Choice(Tile(128, 256, 32, 64, 64, 4), 1, 1.0),
    Choice(Tile(128, 128, 32, 64, 64, 4), 2, 0.9),
    Choice(Tile(64, 128, 32, 32, 64, 4), 3, 0.7),
    Choice(Tile(64, 64, 64, 32, 32, 3), 3, 0.5),
    Choice(Tile(128, 32, 32, 32, 32, 4), 3, 0.45),
    Choice(Tile(32, 32, 64, 16, 32, 3), 6, 0.25),
)
"""For operands of 2 bytes."""
SINGLE = (
    Choice(Tile(128, 128, 16, 64, 32, 3), 1, 1.0),
    Choice(Tile(64, 64, 32, 32, 32, 3), 3, 0.7),
    Choice(Tile(128, 32, 16, 32, 32, 3), 3, 0.6),
    Choice(Tile(32, 32, 32, 16, 32, 3), 6, 0.35),
)
"""For operands of 4 bytes. Three products take twice the registers, so a warp's part is half as large."""


def table(itemsize: int) -> Sequence[Choice]:
    return HALF if itemsize == 2 else SINGLE


def choose_tile(itemsize: int, batch: Size, m: Size, n: Size) -> Tile:
    """The tile with which ``batch`` results of ``m`` by ``n`` are expected soonest: large tiles read less memory, small
    ones leave fewer processors without work in the last round. Dims count as typical ones."""
    return min(table(itemsize), key=lambda choice: _work(choice, batch, m, n)).tile


def tuned_tile(itemsize: int, batch: Size, m: Size, n: Size) -> Tile:
    """The same, as far as measurements do not say otherwise (runtime/choices.py)."""
    tiles = [choose_tile(itemsize, batch, m, n), *(choice.tile for choice in table(itemsize))]
    return pick("tile", {str(tile): tile for tile in tiles})


def by_wgmma() -> bool:
    """Whether a kernel that may go by wgmma does, which is expected to be faster, or by mma.sync all the same."""
    return pick("by", {"wgmma": True, "mma.sync": False})


def work(itemsize: int, batch: Size, m: Size, n: Size) -> float:
    """What a processor does for each element of k with the tile that :func:`choose_tile` takes, in products at the
    speed of the largest tile."""
    return min(_work(choice, batch, m, n) for choice in table(itemsize))


def _work(choice: Choice, batch: Size, m: Size, n: Size) -> float:
    tile, (count, rows, columns) = choice.tile, (max(typical(size), 1) for size in (batch, m, n))
    blocks = count * -(-rows // tile.rows) * -(-columns // tile.columns)
    rounds = -(-blocks // (PROCESSORS * choice.resident))
    return rounds * min(choice.resident, -(-blocks // PROCESSORS)) * tile.rows * tile.columns / choice.speed
