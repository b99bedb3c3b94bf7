"""The main loop of products on tensor cores: a ring of stages in shared memory, filled ahead by asynchronous copies.

Everything that multiplies tiles runs this loop; what differs is where the tiles come from, which a :class:`Loader`
knows (runtime/cuda/copies.py has that of matrices), and what becomes of the accumulators (runtime/cuda/epilogue.py).

The lines expect in scope: ``thread`` and ``lane``, ``shared`` (the address of the block's dynamic shared memory),
``k_tiles`` (how many stages there are to multiply), and ``warp_row`` and ``warp_column``: where in the tile the warp's
part begins. They leave the accumulators as ``Products`` has them.
"""

from __future__ import annotations

from typing import Protocol

from engine.records import dataclass
from runtime.cuda.fragments import Fragments
from runtime.cuda.products import Products
from runtime.cuda.tiles import STEP, SharedTile, Tile
from runtime.emit import indent

MODULES = {
    "runtime.cuda.ptx": (
        "bits_float", "cp_async_4_zero", "cp_async_8_zero", "cp_async_16_zero", "cp_async_commit", "cp_async_wait",
        "float_bits", "ld_global_nc_v4_u32", "ld_global_u16", "ld_global_v2_u32", "ld_global_v4_u32", "ld_shared_u32",
        "ld_shared_v2_f32", "ld_shared_v4_f32", "ldmatrix_x4", "ldmatrix_x4_trans", "mma_m16n8k8_tf32",
        "mma_m16n8k16_bf16", "mma_m16n8k16_f16", "pack_bf16", "shared_memory", "st_shared_u16", "st_shared_v2_f32",
        "to_tf32",
    ),
}  # fmt: skip
"""Where the functions come from that the lines of this module and of those that it uses call."""


GROUP = 8
"""Rows of blocks in a group: blocks that follow each other go down its columns first, so that what they read of a and b
stays in the second-level cache."""


class Loader(Protocol):
    """Copies one operand, stage by stage, from global to shared memory, all threads of the block together."""

    @property
    def shared(self) -> SharedTile:
        """How a stage of it lies in shared memory."""

    def setup(self) -> list[str]:
        """Lines before the loop."""

    def copy(self, stage: str) -> list[str]:
        """Lines that start the copies of the next stage into shared address ``stage`` and move on by one. ``k_tile``
        is its number. What lies outside the operand arrives as zeros."""


@dataclass(frozen=True)
class MainLoop:
    """``a`` and ``b`` multiplied by ``products``, tile by tile of ``tile``."""

    tile: Tile
    a: Loader
    b: Loader
    products: Products

    @property
    def stage(self) -> int:
        """Bytes of one stage."""
        return self.a.shared.bytes + self.b.shared.bytes

    @property
    def shared(self) -> int:
        """Bytes of shared memory."""
        return self.tile.stages * self.stage

    def lines(self) -> list[str]:
        tile, stages = self.tile, self.tile.stages
        a = Fragments("a", self.a.shared, tile.warp_rows)
        b = Fragments("b", self.b.shared, tile.warp_columns)
        at_once = self.products.steps
        steps = tile.depth * self.a.shared.itemsize // (STEP * at_once)
        step: list[str] = []
        for side in (a, b):
            for i in range(at_once):
                number = "step" if at_once == 1 else f"({at_once} * step + {i})"
                step += side.load(f"{side.name}_stage", number, i * side.words)
            step += self.products.prepare(side.name)
        step += self.products.multiply()
        return [
            *self.a.setup(),
            *self.b.setup(),
            *a.setup("warp_row"),
            *b.setup("warp_column"),
            *self.products.declare(),
            *self.products.clear(),
            "filled = shared",
            "used = shared",
            # Copies run ahead by all stages but one. Behind the barrier all threads have what they waited for, and all
            # are done with the stage that is filled next.
            f"for turn in range({1 - stages}, k_tiles):",
            f"    cp_async_wait({stages - 2})",
            "    cuda.syncthreads()",
            f"    k_tile = turn + {stages - 1}",
            "    if k_tile < k_tiles:",
            *indent(self.a.copy("filled"), 2),
            *indent(self.b.copy(f"filled + {self.a.shared.bytes}"), 2),
            "    cp_async_commit()",
            *indent(next_stage("filled", self.stage, stages)),
            "    if turn >= 0:",
            "        a_stage = used",
            f"        b_stage = used + {self.a.shared.bytes}",
            f"        for step in range({steps}):",
            *indent(step, 3),
            *indent(next_stage("used", self.stage, stages), 2),
            "cp_async_wait(0)",
            "cuda.syncthreads()",
        ]


def next_stage(name: str, stage: int, stages: int) -> list[str]:
    """Lines that move the address ``name`` on by one stage of the ring that starts at ``shared``."""
    return [f"{name} += {stage}", f"if {name} == shared + {stages * stage}:", f"    {name} = shared"]


def place_threads() -> list[str]:
    """Lines that begin a kernel: they set ``thread``, ``lane``, ``block`` and ``shared``."""
    return [
        "thread = cuda.threadIdx.x",
        "lane = thread & 31",
        "block = cuda.blockIdx.x",
        "shared = shared_memory()",
    ]


def place_tile(rows: int, columns: int) -> list[str]:
    """Lines that set ``tile_row`` and ``tile_column``: where tile number ``tile`` begins, of ``m_blocks`` by
    ``n_blocks`` tiles of so many rows and columns."""
    return [
        f"tiles_of_group = {GROUP} * n_blocks",
        "group_number = quotient(tile, tiles_of_group)",
        f"group_rows = min(m_blocks - {GROUP} * group_number, {GROUP})",
        "in_group = tile - group_number * tiles_of_group",
        "n_block = quotient(in_group, group_rows)",
        f"tile_row = ({GROUP} * group_number + in_group - n_block * group_rows) * {rows}",
        f"tile_column = n_block * {columns}",
    ]


def place_warps(tile: Tile) -> list[str]:
    """Lines that set ``warp``, ``warp_row`` and ``warp_column``."""
    across = tile.columns // tile.warp_columns
    return [
        "warp = thread >> 5",
        f"warp_row = warp // {across} * {tile.warp_rows}",
        f"warp_column = warp % {across} * {tile.warp_columns}",
    ]
