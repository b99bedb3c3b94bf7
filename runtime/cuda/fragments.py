"""Fragments: from shared memory to the registers of a warp, in the order in which ``mma`` wants them.

Registers are arrays ``<name>`` of 32-bit words, four words for 16 rows of a or 16 columns of b and one step of k (see
``tiles.STEP``). Word ``4*i + e`` holds, of a, rows ``(e & 1) * 8 ..`` and the half ``e >> 1`` of the step; of b it is
the other way round, so that b's words ``2*j`` and ``2*j + 1`` are the fragment of 8 columns ``j``.

The lines expect ``lane`` (0..31) in scope, and use no other name than those that start with ``<name>_``.
"""

from __future__ import annotations

from engine.records import dataclass
from runtime.cuda.tiles import CHUNK, FRAGMENT_ROWS, STEP, SharedTile


@dataclass(frozen=True)
class Fragments:
    """One operand's fragments of a warp: ``name`` is ``a`` or ``b`` (which decides the order of words, with anything
    that may follow the letter), ``shared`` how a stage of it lies, ``extent`` how many rows or columns a warp needs."""

    name: str
    shared: SharedTile
    extent: int

    @property
    def pieces(self) -> int:
        return self.extent // FRAGMENT_ROWS

    @property
    def words(self) -> int:
        """Registers of each thread."""
        return 4 * self.pieces

    @property
    def _is_a(self) -> bool:
        return self.name.startswith("a")

    def setup(self, first: str) -> list[str]:
        """Lines for once: where this lane reads. ``first`` is the warp's first row or column inside the tile, a
        multiple of 16."""
        name, row = self.name, self.shared.row
        if self.shared.along_k or self.shared.itemsize == 2:
            # The four matrices of ldmatrix, eight lanes each: two of them lie below one another, two side by side.
            below, beside = "(lane & 7) + (lane >> 4) * 8", "(lane >> 3) & 1"
            if self._is_a == self.shared.along_k:
                below, beside = "lane & 15", "lane >> 4"
            if self.shared.along_k:
                return [
                    f"{name}_row = {first} + ({below})",
                    f"{name}_from = {name}_row * {row}",
                    f"{name}_half = {beside}",
                    f"{name}_turn = {self.shared.turn(f'{name}_row')}",
                ]
            return [
                f"{name}_row = {below}",
                f"{name}_from = {name}_row * {row}",
                f"{name}_chunk = ({first}) // {self.shared.elements} + ({beside})",
                f"{name}_turn = {self.shared.turn(f'{name}_row')}",
            ]
        return [
            f"{name}_from = (lane & 3) * {row} + (lane >> 2 & 3) * 4",
            f"{name}_chunk = ({first}) // 4 + (lane >> 4)",
            f"{name}_turn = {self.shared.turn('lane')}",
        ]

    def load(self, stage: str, step: str, first: int = 0) -> list[str]:
        """Lines that load step ``step`` of the stage at shared address ``stage`` into the registers from number
        ``first`` on."""
        name, row = self.name, self.shared.row
        words = ", ".join(f"{name}[4 * i + {first + e}]" for e in range(4))
        if self.shared.along_k:
            chunks = STEP // CHUNK
            return [
                f"{name}_at = {stage} + {name}_from + (({step} * {chunks} + {name}_half) ^ {name}_turn) * {CHUNK}",
                f"for i in range({self.pieces}):",
                f"    {words} = ldmatrix_x4({name}_at + i * {FRAGMENT_ROWS * row})",
            ]
        if self.shared.itemsize == 2:
            return [
                f"{name}_at = {stage} + {name}_from + {step} * {16 * row}",
                f"for i in range({self.pieces}):",
                f"    {words} = ldmatrix_x4_trans({name}_at + (({name}_chunk + 2 * i) ^ {name}_turn) * {CHUNK})",
            ]
        across, along = ("e & 1", "e >> 1") if self._is_a else ("e >> 1", "e & 1")
        return [
            f"{name}_at = {stage} + {name}_from + {step} * {8 * row}",
            f"for i in range({self.pieces}):",
            "    for e in range(4):",
            f"        {name}_place = (({name}_chunk + 4 * i + ({across}) * 2) ^ {name}_turn) * {CHUNK}",
            f"        {name}[4 * i + e + {first}] = ld_shared_u32({name}_at + ({along}) * {4 * row} + {name}_place)",
        ]
