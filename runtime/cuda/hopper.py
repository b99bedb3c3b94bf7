"""What multiplies matrices on Hopper (sm_90a): the copy engine fills a ring of stages, warpgroups multiply out of it.

A block has three warpgroups. One thread of the first asks for boxes of both operands, as long as stages are free; the
other two multiply 64 rows each and run the body. Stages change hands by mbarriers: ``full`` is over when all bytes of a
stage have arrived, ``empty`` when both warpgroups have multiplied them. There are as many blocks as processors, each
takes one tile after another, and while one tile's body runs the next tile is already being fetched.

In a stage an operand has rows of 128 bytes, swizzled as wgmma reads them: with k along them a row for each of its own
rows (columns), or with k across them square boxes: 64 rows of k and 64 of its own elements each, or 32 and 32 of 4
bytes. These wgmma does not read as they lie; runtime/cuda/hopper_single.py has what multiplies them all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine import dtypes
from engine.dims import Size
from engine.dtypes import DType
from engine.records import dataclass
from engine.schedule import KernelSpec
from runtime.cuda.epilogue import Region, body_lines
from runtime.cuda.mainloop import place_threads
from runtime.cuda.tiles import PROCESSORS
from runtime.emit import BodyEmitter, indent
from runtime.tasks import typical

ROWS = 128
"""Of a block's tile."""
GROUP_ROWS = 64
"""Of a warpgroup's part."""
ROW_BYTES = 128
"""Of a row in a stage, and what a stage has of k."""
BOX = 64
"""Rows and elements of 2 bytes in a row of a box with k across its rows."""
STEP_BYTES = 32
"""Of k, that one wgmma takes."""
PIECE = 32
"""Columns of the result that a warp runs the body on at a time."""
THREADS = 384
FEW_REGISTERS, MANY_REGISTERS = 40, 232
"""Of the threads that fetch and of those that multiply. They start with 168, the most that 384 threads can have."""
BARRIERS = 128
"""Bytes for the mbarriers, behind the stages."""

# What wgmma is told of a matrix in shared memory: rows of 128 bytes, swizzled, in groups of eight; and where k is
# across the rows, how far apart boxes of 64 elements are.
SWIZZLED = 1 << 62 | (8 * ROW_BYTES >> 4) << 32
_ACROSS = SWIZZLED | (BOX * ROW_BYTES >> 4) << 16

MODULES = {
    "runtime.cuda.ptx": (
        "bits_float", "float_bits", "ld_shared_u32", "ld_shared_v2_f32", "ld_shared_v4_f32", "ld_shared_v4_u32",
        "ldmatrix_x4", "shared_memory", "st_shared_v2_f32", "st_shared_v4_u32",
    ),
    "runtime.cuda.ptx_hopper": (
        "fence_mbarrier_init", "fence_proxy_async", "fence_tensor_map", "mbarrier_arrive", "mbarrier_arrive_expect",
        "mbarrier_init", "mbarrier_wait", "setmaxnreg_dec", "setmaxnreg_inc", "tma_load_2d", "tma_load_3d",
        "tma_load_4d", "tma_load_patches", "wgmma_bf16", "wgmma_commit", "wgmma_f16", "wgmma_fence", "wgmma_tf32",
        "wgmma_tf32_registers", "wgmma_wait", "wgmma_wait_for",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class HopperTile:
    """128 rows by ``columns``, with ``stages`` of 128 bytes of k; ``speed`` beside the largest tile of mma.sync. With
    ``lower`` a stage has b twice: as it came, and the lower parts of its elements."""

    columns: int
    stages: int
    speed: float
    lower: bool = False

    @property
    def fetched(self) -> int:
        """Bytes of both operands."""
        return (ROWS + self.columns) * ROW_BYTES

    @property
    def stage(self) -> int:
        """Bytes of a stage."""
        return self.fetched + self.lower * self.columns * ROW_BYTES

    @property
    def barriers(self) -> int:
        """Where the mbarriers are in shared memory: those that say full, then those that say empty."""
        return self.stages * self.stage

    @property
    def staged(self) -> int:
        """Where warps put accumulators down, for the body."""
        return self.barriers + BARRIERS

    @property
    def shared(self) -> int:
        return self.staged + 2 * GROUP_ROWS * PIECE * 4


TILES = (HopperTile(256, 4, 1.6), HopperTile(128, 6, 1.3), HopperTile(64, 8, 0.9))


def hopper_work(tile: HopperTile, batch: Size, m: Size, n: Size) -> float:
    """As :func:`runtime.cuda.tiles.work`, with ``tile``: a processor has one block at a time."""
    count, rows, columns = (max(typical(size), 1) for size in (batch, m, n))
    blocks = count * -(-rows // ROWS) * -(-columns // tile.columns)
    return -(-blocks // PROCESSORS) * ROWS * tile.columns / tile.speed


def is_multiplied(dtype: DType, exactness: str) -> bool:
    """Whether wgmma multiplies ``dtype`` as exactly as a kernel's ``products`` ask for: floats of 2 bytes, and float32
    but as bf16."""
    return dtype in (dtypes.f16, dtypes.bf16) or (dtype == dtypes.f32 and exactness != "medium")


@dataclass(frozen=True)
class Hopper:
    """The lines of such a kernel, for elements of ``dtype`` in tiles of ``tile``. The two flags say whether an operand
    has k along its rows in a stage; ``registers`` are those of the threads that fetch and of those that multiply."""

    dtype: DType
    tile: HopperTile
    a_along_k: bool
    b_along_k: bool
    registers: tuple[int, int] = (FEW_REGISTERS, MANY_REGISTERS)

    @property
    def depth(self) -> int:
        """Elements of k in a stage."""
        return depth_of(self.dtype)

    def boxes(self, name: str, load: str) -> list[str]:
        """Lines that fetch operand ``name`` ("a" or "b") into ``stage``. ``load`` is one copy to ``to``: of all of it
        where k is along its rows, else of box number ``box``."""
        along, extent = (self.a_along_k, ROWS) if name == "a" else (self.b_along_k, self.tile.columns)
        first = "stage" if name == "a" else f"stage + {ROWS * ROW_BYTES}"
        if along:
            return [f"to = {first}", load]
        box = self.depth * ROW_BYTES
        return [f"for box in range({extent // self.depth}):", f"    to = {first} + box * {box}", f"    {load}"]

    def lines(self, place: Sequence[str], aim: Sequence[str], fetch: Sequence[str], multiplied: Sequence[str],
              before: Sequence[str]) -> list[str]:  # fmt: skip
        """All lines of the kernel, whose arguments are among others ``tiles``, how many there are, ``a_map`` and
        ``b_map``. ``place`` sets for tile ``number`` where it is and ``k_tiles``, how many stages it takes. The thread
        that fetches runs ``aim`` before a tile, and for each stage ``fetch``, whose copies tell the mbarrier
        ``arrived``. The others run ``before`` before their first tile, and behind each what it is ``multiplied`` for,
        as :meth:`result` says."""
        tile = self.tile
        return [
            *place_threads(),
            f"full = shared + {tile.barriers}",
            f"empty = full + {8 * tile.stages}",
            "if thread == 0:",
            f"    for i in range({tile.stages}):",
            "        mbarrier_init(full + 8 * i, 1)",
            "        mbarrier_init(empty + 8 * i, 2)",
            *indent(self._more_barriers(), 2),
            "    fence_mbarrier_init()",
            "cuda.syncthreads()",
            "slot = 0",
            "if thread < 128:",
            f"    setmaxnreg_dec({self.registers[0]})",
            "    if thread == 0:",
            "        fence_tensor_map(a_map)",
            "        fence_tensor_map(b_map)",
            "        parity = 1",
            "        for number in range(block, tiles, cuda.gridDim.x):",
            *indent([*place, *aim], 3),
            "            for k_tile in range(k_tiles):",
            "                mbarrier_wait(empty + 8 * slot, parity)",
            "                arrived = full + 8 * slot",
            f"                mbarrier_arrive_expect(arrived, {tile.fetched})",
            f"                stage = shared + slot * {tile.stage}",
            *indent([*fetch, *self._next()], 4),
            *indent(self._beside(place)),
            "else:",
            f"    setmaxnreg_inc({self.registers[1]})",
            "    warpgroup = (thread >> 7) - 1",
            "    warp = thread >> 5 & 3",
            *(f"    {sums} = cuda.local.array({tile.columns // 2}, float32)" for sums in self._sums),
            f"    staged = shared + {tile.staged} + (warpgroup * 4 + warp) * {16 * PIECE * 4}",
            f"    staged_at = staged + (lane >> 2) * {PIECE * 4}",
            "    staged_turn = (lane >> 2 & 3) * 8",
            "    parity = 0",
            *indent(before),
            "    for number in range(block, tiles, cuda.gridDim.x):",
            *indent([*place, *self._multiply(), *multiplied], 2),
        ]

    @property
    def _sums(self) -> tuple[str, ...]:
        """The names of the accumulators."""
        return ("acc",)

    def _more_barriers(self) -> list[str]:
        """Lines that make the mbarriers of stage ``i`` besides ``full`` and ``empty``."""
        return []

    def _beside(self, place: Sequence[str]) -> list[str]:
        """Lines behind those of the thread that fetches, for the other warps of its warpgroup."""
        return []

    def _value(self, number: str) -> str:
        """The expression of a sum when all has been added."""
        return f"acc[{number}]"

    def _clear(self) -> list[str]:
        """Lines that set the sums to zero."""
        return [f"for i in range({self.tile.columns // 2}):", *(f"    {sums}[i] = float32(0.0)" for sums in self._sums)]

    def _next(self) -> list[str]:
        return ["slot += 1", f"if slot == {self.tile.stages}:", "    slot = 0", "    parity ^= 1"]

    def _multiply(self) -> list[str]:
        """Lines that multiply the stages of a tile."""
        tile = self.tile
        a_step, b_step = (STEP_BYTES if along else STEP_BYTES // 2 * ROW_BYTES for along in self._along)
        a_kind, b_kind = (SWIZZLED if along else _ACROSS for along in self._along)
        turned = "".join(f", {int(not along)}" for along in self._along)
        product = "wgmma_tf32" if self.dtype == dtypes.f32 else f"wgmma_{self.dtype}"
        return [
            *self._clear(),
            "for k_tile in range(k_tiles):",
            "    mbarrier_wait(full + 8 * slot, parity)",
            f"    a_stage = shared + slot * {tile.stage} + warpgroup * {GROUP_ROWS * ROW_BYTES}",
            f"    b_stage = shared + slot * {tile.stage} + {ROWS * ROW_BYTES}",
            "    wgmma_fence()",
            f"    for step in range({ROW_BYTES // STEP_BYTES}):",
            f"        a_at = {a_kind} | a_stage + step * {a_step} >> 4",
            f"        b_at = {b_kind} | b_stage + step * {b_step} >> 4",
            f"        {product}(acc, {tile.columns}, a_at, b_at, 1{'' if self.dtype == dtypes.f32 else turned})",
            "    wgmma_commit()",
            "    # The stage before this one has been multiplied when only the last group is under way.",
            "    wgmma_wait(1)",
            *indent(self._free("k_tile > 0")),
            *indent(self._next()),
            "wgmma_wait(0)",
            *self._free("k_tiles > 0"),
        ]

    def _free(self, condition: str) -> list[str]:
        """Lines that give back the stage before ``slot``, where there is one."""
        before = f"slot - 1 if slot > 0 else {self.tile.stages - 1}"
        return [f"if {condition} and thread & 127 == 0:", f"    mbarrier_arrive(empty + 8 * ({before}))"]

    @property
    def _along(self) -> tuple[bool, bool]:
        return self.a_along_k, self.b_along_k

    def result(self, spec: KernelSpec, emitter: BodyEmitter, row_limit: str, column_limit: str, by_row: Sequence[str],
               head: Sequence[str] = (), variable: str = "column") -> list[str]:  # fmt: skip
        """Lines that run the body on the sums of a tile, which begins at ``tile_row`` and ``tile_column``; the last
        four are those of :func:`runtime.cuda.epilogue.body_lines`, and ``emitter`` has ``staged_value(PIECE)`` for its
        core."""
        region = Region(16, PIECE, f"tile_row + {GROUP_ROWS} * warpgroup + 16 * warp", f"tile_column + {PIECE} * piece",
                        row_limit, column_limit)  # fmt: skip
        return [
            f"for piece in range({self.tile.columns // PIECE}):",
            *indent(self._put_down()),
            "    cuda.syncwarp()",
            *indent(body_lines(region, spec, emitter, by_row, head, variable)),
            "    cuda.syncwarp()",
        ]

    def _put_down(self) -> list[str]:
        """Lines that put the accumulators of piece ``piece`` into shared memory. They are registers, so their numbers
        are constants: each piece has lines of its own."""
        lines = []
        for piece in range(self.tile.columns // PIECE):
            lines += [
                f"{'el' if piece else ''}if piece == {piece}:",
                f"    for j in range({PIECE // 8}):",
                f"        o = {PIECE // 2 * piece} + 4 * j",
                "        at = staged_at + ((8 * j ^ staged_turn) + lane % 4 * 2) * 4",
                f"        st_shared_v2_f32(at, {self._value('o')}, {self._value('o + 1')})",
                f"        st_shared_v2_f32(at + {8 * PIECE * 4}, {self._value('o + 2')}, {self._value('o + 3')})",
            ]
        return lines


def depth_of(dtype: DType) -> int:
    """Elements of k in a stage."""
    return ROW_BYTES // dtype.itemsize
