"""What multiplies float32 on Hopper where one product of tf32 as it lies will not do: three of them, or turned over.

As runtime/cuda/hopper.py, with two differences. a comes to wgmma in registers: a warp takes its rows out of the stage
itself, whichever way they lie. And the warps beside the one that fetches prepare b, which wgmma takes from shared
memory alone: where k is across its rows they turn each box over in its place, for wgmma reads numbers of 4 bytes with k
along rows only. A third mbarrier says when a stage is ``ready``.

Products as exact as float32's own (``tile.lower``) are three of tf32, as in runtime/cuda/products.py: both factors are
split into an upper and a lower part, and all products of these but the smallest are added up. Tensor cores do not read
the lower 13 bits, so b as it came is its own upper part, and only the lower ones are written, beside it. a is split in
registers.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine import dtypes
from engine.dtypes import DType
from runtime.cuda.hopper import GROUP_ROWS, ROW_BYTES, ROWS, STEP_BYTES, SWIZZLED, TILES, Hopper, HopperTile
from runtime.cuda.products import lower_part, with_lower
from runtime.emit import indent

STEPS = ROW_BYTES // STEP_BYTES
"""Of k, in a stage."""
BOX = ROW_BYTES // 4
"""Rows and elements in a row of a box with k across its rows."""
BOX_BYTES = BOX * ROW_BYTES
PREPARING = 3
"""Warps that prepare b."""

SOME_REGISTERS, MOST_REGISTERS = 56, 224
"""Of threads that fetch or prepare, and of those that multiply."""
_WALKING = {True: (88, 208), False: (104, 200)}
"""The same where boxes are fetched along the pixels of an image, with lower parts and without."""

EXACT_TILES = (HopperTile(128, 4, 1.5, lower=True), HopperTile(64, 5, 1.1, lower=True))
"""Of three products. The small ones have sums of their own, so a tile is half as large as others. There is room for
three mbarriers of five stages."""
TURNED_TILES = (HopperTile(256, 4, 1.1), HopperTile(128, 5, 0.8))
"""Of one product, with k across the rows of b: turning it over takes longer than multiplying it."""


class HopperSingle(Hopper):
    """The lines of such a kernel."""

    @property
    def _sums(self) -> tuple[str, ...]:
        return ("acc", "acc_low") if self.tile.lower else ("acc",)

    @property
    def _prepares(self) -> bool:
        """Whether b has to be prepared."""
        return self.tile.lower or not self.b_along_k

    @property
    def _b_bytes(self) -> int:
        return self.tile.columns * ROW_BYTES

    def _value(self, number: str) -> str:
        return with_lower(f"acc[{number}]", f"acc_low[{number}]") if self.tile.lower else super()._value(number)

    # -- b

    def _more_barriers(self) -> list[str]:
        return [f"mbarrier_init(empty + 8 * ({self.tile.stages} + i), {PREPARING})"] if self._prepares else []

    def _beside(self, place: Sequence[str]) -> list[str]:
        if not self._prepares:
            return []
        return [
            "elif thread >= 32:",
            f"    ready = empty + {8 * self.tile.stages}",
            f"    words = cuda.local.array({4 if self.b_along_k else 16}, uint32)",
            "    lower = cuda.local.array(4, uint32)",
            "    parity = 0",
            "    for number in range(block, tiles, cuda.gridDim.x):",
            *indent(place, 2),
            "        for k_tile in range(k_tiles):",
            "            mbarrier_wait(full + 8 * slot, parity)",
            f"            b_stage = shared + slot * {self.tile.stage} + {ROWS * ROW_BYTES}",
            *indent(self._lower_parts() if self.b_along_k else self._turn(), 3),
            "            fence_proxy_async()",
            "            cuda.syncwarp()",
            "            if lane == 0:",
            "                mbarrier_arrive(ready + 8 * slot)",
            *indent(self._next(), 3),
        ]

    def _lower_parts(self) -> list[str]:
        """Lines that write down the lower parts of b, each where its number lies."""
        return [
            f"for at in range(b_stage + 16 * (thread - 32), b_stage + {self._b_bytes}, {16 * 32 * PREPARING}):",
            "    words[0], words[1], words[2], words[3] = ld_shared_v4_u32(at)",
            *indent(self._store("at", "e")),
        ]

    def _store(self, at: str, word: str) -> list[str]:
        """Lines that write down the lower parts of four ``words``, whose numbers ``word`` says for ``e``."""
        return [
            "for e in range(4):",
            *indent(lower_part(f"words[{word}]", "lower[e]")),
            f"st_shared_v4_u32({at} + {self._b_bytes}, lower[0], lower[1], lower[2], lower[3])",
        ]

    def _turn(self) -> list[str]:
        """Lines that turn the boxes of b over. A lane has a square of four by four: of the chunk ``across`` of four of
        b's elements the rows ``4 * down ..`` of k, which become four rows' chunk ``down``. The lane that has the square
        there is one of the same eight, so a box stays in its place. Eight lanes have eight chunks of both: neither
        their loads nor their stores meet in a bank."""
        lines = [
            f"for half in range((thread >> 5) - 1, {self.tile.columns // BOX * 2}, {PREPARING}):",
            f"    box = b_stage + (half >> 1) * {BOX_BYTES}",
            "    across = lane & 7",
            "    down = across ^ ((half & 1) * 4 + (lane >> 3))",
            "    for i in range(4):",
            f"        at = box + (4 * down + i) * {ROW_BYTES} + (across ^ (4 * (down & 1) + i)) * 16",
            "        words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3] = ld_shared_v4_u32(at)",
            "    cuda.syncwarp()",
            "    for i in range(4):",
            f"        at = box + (4 * across + i) * {ROW_BYTES} + (down ^ (4 * (across & 1) + i)) * 16",
            "        st_shared_v4_u32(at, words[i], words[4 + i], words[8 + i], words[12 + i])",
        ]
        return [*lines, *indent(self._store("at", "4 * e + i"), 2)] if self.tile.lower else lines

    # -- a

    def _multiply(self) -> list[str]:
        columns, exact = self.tile.columns, self.tile.lower
        wait = ["mbarrier_wait(ready + 8 * slot, parity)"] if self._prepares else []
        a, lower = (f"{name}[4 * step], {name}[4 * step + 1], {name}[4 * step + 2], {name}[4 * step + 3]"
                    for name in ("a", "a_low"))  # fmt: skip
        products = [f"wgmma_tf32_registers(acc, {columns}, {a}, b_at, 1)"]
        if exact:
            small = (f"wgmma_tf32_registers(acc_low, {columns}, {lower}, b_at, 1)",
                     f"wgmma_tf32_registers(acc_low, {columns}, {a}, b_at + {self._b_bytes >> 4}, 1)")  # fmt: skip
            products = [*small, *products]
        return [
            *([f"ready = empty + {8 * self.tile.stages}"] if self._prepares else []),
            f"a = cuda.local.array({4 * STEPS}, uint32)",
            *([f"a_low = cuda.local.array({4 * STEPS}, uint32)"] if exact else []),
            *self._place(),
            *self._clear(),
            "for k_tile in range(k_tiles):",
            "    mbarrier_wait(full + 8 * slot, parity)",
            *indent(wait),
            f"    a_stage = shared + slot * {self.tile.stage} + warpgroup * {GROUP_ROWS * ROW_BYTES}",
            f"    b_stage = shared + slot * {self.tile.stage} + {ROWS * ROW_BYTES}",
            f"    for step in range({STEPS}):",
            "        # The products of this step of the stage before have read its registers.",
            f"        wgmma_wait({STEPS - 1})",
            *indent(self._take(), 2),
            "        wgmma_fence()",
            f"        b_at = {SWIZZLED} | b_stage + step * {STEP_BYTES} >> 4",
            *indent(products, 2),
            "        wgmma_commit()",
            "    # The last step has waited for all products of the stage before.",
            *indent(self._free("k_tile > 0")),
            *indent(self._next()),
            *(f"wgmma_wait_for({sums}, {columns}, 0)" for sums in self._sums),
            *self._free("k_tiles > 0"),
        ]

    def _place(self) -> list[str]:
        """Lines that say where this lane finds its numbers of a."""
        if self.a_along_k:
            return [
                f"a_from = (16 * warp + (lane & 15)) * {ROW_BYTES}",
                "a_turn = lane & 7",
            ]
        # Number i of four is of row (i & 1) * 8 and of k 4 * (i >> 1) further on; odd lanes take the latter two first,
        # so that no two lanes meet in a bank.
        return [
            "a_from = cuda.local.array(4, int64)",
            "odd = lane & 1",
            "for i in range(4):",
            "    k_row = (lane & 3) + 4 * (i >> 1 ^ odd)",
            "    chunk = (warp & 1) * 4 + (i & 1) * 2 + (lane >> 4)",
            "    within = (chunk ^ k_row) * 16 + (lane >> 2 & 3) * 4",
            f"    a_from[i] = (warp >> 1) * {BOX_BYTES} + k_row * {ROW_BYTES} + within",
        ]

    def _take(self) -> list[str]:
        """Lines that load step ``step`` of a into registers, and split it."""
        four = ", ".join(f"a[4 * step + {e}]" for e in range(4))
        if self.a_along_k:
            lines = [f"{four} = ldmatrix_x4(a_stage + a_from + ((2 * step + (lane >> 4)) ^ a_turn) * 16)"]
        else:
            lines = [
                f"at = a_stage + step * {STEP_BYTES // 4 * ROW_BYTES}",
                *(f"a{i} = ld_shared_u32(at + a_from[{i}])" for i in range(4)),
                *(f"a[4 * step + {i}] = a{i ^ 2} if odd else a{i}" for i in range(4)),
            ]
        if self.tile.lower:
            lines += [
                "for e in range(4):",
                *indent(lower_part("a[4 * step + e]", "a_low[4 * step + e]")),
                "    a[4 * step + e] = upper",
            ]
        return lines


def tiles_of(dtype: DType, exactness: str, b_along_k: bool = True) -> tuple[HopperTile, ...]:
    """The tiles for ``dtype`` with products that are to be so exact."""
    if dtype != dtypes.f32:
        return TILES
    return EXACT_TILES if exactness == "highest" else TILES if b_along_k else TURNED_TILES


def hopper_of(dtype: DType, tile: HopperTile, a_along_k: bool, b_along_k: bool, walks: bool = False) -> Hopper:
    """What writes the lines of a kernel for such operands in tiles of ``tile``. It ``walks`` where boxes are fetched
    along the pixels of an image."""
    if dtype != dtypes.f32 or (a_along_k and b_along_k and not tile.lower):
        return Hopper(dtype, tile, a_along_k, b_along_k)
    registers = _WALKING[tile.lower] if walks else (SOME_REGISTERS, MOST_REGISTERS)
    return HopperSingle(dtype, tile, a_along_k, b_along_k, registers)
