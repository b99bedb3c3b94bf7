"""Products on Hopper (sm_90a): the copy engine fills a ring of stages, warpgroups multiply out of shared memory.

A block has three warpgroups. One thread of the first asks for boxes of both operands, as long as stages are free; the
other two multiply 64 rows each and run the body. Stages change hands by mbarriers: ``full`` is over when all bytes of a
stage have arrived, ``empty`` when both warpgroups have multiplied them. There are as many blocks as processors, each
takes one tile after another, and while one tile's body runs the next tile is already being fetched.

Boxes have rows of 128 bytes, 64 elements, swizzled as wgmma reads them. An operand with k along its rows is one box of
64 elements of k; one with k across its rows is several, of 64 rows of k and 64 of its own elements each.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine import dtypes
from engine.dims import Size, ceil_div
from engine.program import BoxMap, Call, Kernel, Pointer
from engine.schedule import Contraction, KernelSpec
from runtime.cuda.copies import copy_width
from runtime.cuda.emit import kernel
from runtime.cuda.epilogue import Region, body_lines, staged_value
from runtime.cuda.mainloop import place_threads, place_tile
from runtime.cuda.operands import Operand, nonzero, operands, touched
from runtime.cuda.tiles import CHUNK, PROCESSORS, work
from runtime.emit import ArgTable, BodyEmitter, indent
from runtime.tasks import typical

ROWS, DEPTH = 128, 64
"""Of a block's tile, in elements."""
GROUP_ROWS = 64
"""Of a warpgroup's part."""
BOX = 64
"""Elements in a row of a box, and rows of a box with k across its rows."""
BOX_BYTES = BOX * BOX * 2
PIECE = 32
"""Columns of the result that a warp runs the body on at a time."""
THREADS = 384
FEW_REGISTERS, MANY_REGISTERS = 40, 232
"""Of the threads that fetch and of those that multiply. They start with 168, the most that 384 threads can have."""
BARRIERS = 128
"""Bytes for the mbarriers, behind the stages."""

# What wgmma is told of a matrix in shared memory: rows of 128 bytes, swizzled, in groups of eight; and where k is
# across the rows, how far apart boxes of 64 elements are.
_SWIZZLED = 1 << 62 | (8 * 128 >> 4) << 32
_ACROSS = _SWIZZLED | (BOX_BYTES >> 4) << 16

MODULES = {
    "runtime.cuda.ptx": ("ld_shared_v2_f32", "ld_shared_v4_f32", "shared_memory", "st_shared_v2_f32"),
    "runtime.cuda.ptx_hopper": (
        "fence_mbarrier_init", "fence_tensor_map", "mbarrier_arrive", "mbarrier_arrive_expect", "mbarrier_init",
        "mbarrier_wait", "setmaxnreg_dec", "setmaxnreg_inc", "tma_load_2d", "wgmma_bf16", "wgmma_commit", "wgmma_f16",
        "wgmma_fence", "wgmma_wait",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class HopperTile:
    """128 rows by ``columns``, with ``stages`` of 64 elements of k; ``speed`` beside the largest tile of mma.sync."""

    columns: int
    stages: int
    speed: float

    @property
    def stage(self) -> int:
        """Bytes of both operands."""
        return (ROWS + self.columns) * DEPTH * 2

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


TILES = (HopperTile(256, 4, 1.6), HopperTile(128, 6, 1.3))


def hopper_tile(spec: KernelSpec) -> HopperTile | None:
    """The tile with which wgmma is expected soonest, or None where mma.sync is sooner, or TMA does not take the
    operands: they must be matrices of 2-byte floats, with rows known to be aligned."""
    core = spec.core
    assert isinstance(core, Contraction)
    if len(spec.axes) > 2 or core.a.dtype not in (dtypes.f16, dtypes.bf16):
        return None
    for side in operands(core):
        across = side.stride if side.along_k else side.k_stride
        if side.gap != 1 or across == 0 or copy_width(side.steps, 2) != CHUNK:
            return None
        if isinstance(across, int) and across < 0:
            return None
    m, n = spec.axes

    def cost(tile: HopperTile) -> float:
        blocks = -(-max(typical(m), 1) // ROWS) * -(-max(typical(n), 1) // tile.columns)
        return -(-blocks // PROCESSORS) * ROWS * tile.columns / tile.speed

    best = min(TILES, key=cost)
    return best if cost(best) < work(2, 1, m, n) else None


def hopper_kernel(spec: KernelSpec, tile: HopperTile, share: Size = 1, blocks: int = PROCESSORS) -> tuple[Call, Kernel]:
    """The call that multiplies and runs the body of a spec that :func:`hopper_tile` takes, in ``blocks`` blocks times
    ``share``."""
    core = spec.core
    assert isinstance(core, Contraction)
    a, b = operands(core)
    m, n = spec.axes
    table = ArgTable()
    table.declare(
        a_map=_map(a, m, core.k, ROWS), b_map=_map(b, n, core.k, tile.columns),
        m=m, n=n, k=core.k, m_blocks=ceil_div(m, ROWS), n_blocks=ceil_div(n, tile.columns),
    )  # fmt: skip
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, 2, table, core={0: staged_value(PIECE)})
    lines = [
        *place_threads(),
        f"full = shared + {tile.barriers}",
        f"empty = full + {8 * tile.stages}",
        "if thread == 0:",
        f"    for i in range({tile.stages}):",
        "        mbarrier_init(full + 8 * i, 1)",
        "        mbarrier_init(empty + 8 * i, 2)",
        "    fence_mbarrier_init()",
        "cuda.syncthreads()",
        f"k_tiles = (k + {DEPTH - 1}) // {DEPTH}",
        "tiles = m_blocks * n_blocks",
        "slot = 0",
        "if thread < 128:",
        f"    setmaxnreg_dec({FEW_REGISTERS})",
        "    if thread == 0:",
        *indent(_fetch(a, b, tile), 2),
        "else:",
        f"    setmaxnreg_inc({MANY_REGISTERS})",
        *indent(_multiply(spec, a, b, tile, emitter)),
    ]
    code = kernel(f"contract_hopper_{core.a.dtype}", lines, table, THREADS, tile.shared, modules=MODULES)
    reads, writes = touched(spec)
    tasks = blocks * nonzero(m * n) * share
    return Call(code.key, spec.name, table.args, tasks, reads, writes, 0, spec.nodes), code


def _map(side: Operand, extent: Size, k: Size, tile_extent: int) -> BoxMap:
    at = Pointer(side.access.buffer, side.access.offset * 2)
    if side.along_k:
        return BoxMap(at, (extent, k), (side.stride * 2,), 2, (tile_extent, BOX))
    return BoxMap(at, (k, extent), (side.k_stride * 2,), 2, (DEPTH, BOX))


def _fetch(a: Operand, b: Operand, tile: HopperTile) -> list[str]:
    """Lines of the thread that fetches."""
    loads = []
    for name, side, first, extent in (("a", a, "tile_row", ROWS), ("b", b, "tile_column", tile.columns)):
        place = "stage" if name == "a" else f"stage + {ROWS * DEPTH * 2}"
        if side.along_k:
            loads.append(f"tma_load_2d({place}, {name}_map, {DEPTH} * k_tile, {first}, full + 8 * slot)")
        else:
            loads += [
                f"for box in range({extent // BOX}):",
                f"    to = {place} + box * {BOX_BYTES}",
                f"    tma_load_2d(to, {name}_map, {first} + box * {BOX}, {DEPTH} * k_tile, full + 8 * slot)",
            ]
    return [
        "fence_tensor_map(a_map)",
        "fence_tensor_map(b_map)",
        "parity = 1",
        "for tile in range(block, tiles, cuda.gridDim.x):",
        *indent(place_tile(ROWS, tile.columns)),
        "    for k_tile in range(k_tiles):",
        "        mbarrier_wait(empty + 8 * slot, parity)",
        f"        mbarrier_arrive_expect(full + 8 * slot, {tile.stage})",
        f"        stage = shared + slot * {tile.stage}",
        *indent(loads, 2),
        *indent(_next(tile), 2),
    ]


def _next(tile: HopperTile) -> list[str]:
    return ["slot += 1", f"if slot == {tile.stages}:", "    slot = 0", "    parity ^= 1"]


def _multiply(spec: KernelSpec, a: Operand, b: Operand, tile: HopperTile, emitter: BodyEmitter) -> list[str]:
    """Lines of the warpgroups that multiply."""
    a_step, b_step = (DEPTH // 4 * 2 if side.along_k else DEPTH // 4 * 128 for side in (a, b))
    a_kind, b_kind = (_SWIZZLED if side.along_k else _ACROSS for side in (a, b))
    turned = f"{int(not a.along_k)}, {int(not b.along_k)}"
    by_start = emitter.start()
    first_row = f"tile_row + {GROUP_ROWS} * group + 16 * warp"
    region = Region(16, PIECE, first_row, f"tile_column + {PIECE} * piece", "m", "n")
    body = body_lines(region, spec, emitter, emitter.enter(0, "row"))
    return [
        "group = (thread >> 7) - 1",
        "warp = thread >> 5 & 3",
        f"acc = cuda.local.array({tile.columns // 2}, float32)",
        f"staged = shared + {tile.staged} + (group * 4 + warp) * {16 * PIECE * 4}",
        f"staged_at = staged + (lane >> 2) * {PIECE * 4}",
        "staged_turn = (lane >> 2 & 3) * 8",
        "parity = 0",
        *by_start,
        "for tile in range(block, tiles, cuda.gridDim.x):",
        *indent(place_tile(ROWS, tile.columns)),
        f"    for i in range({tile.columns // 2}):",
        "        acc[i] = float32(0.0)",
        "    for k_tile in range(k_tiles):",
        "        mbarrier_wait(full + 8 * slot, parity)",
        f"        a_stage = shared + slot * {tile.stage} + group * {GROUP_ROWS * DEPTH * 2}",
        f"        b_stage = shared + slot * {tile.stage} + {ROWS * DEPTH * 2}",
        "        wgmma_fence()",
        f"        for step in range({DEPTH // 16}):",
        f"            a_at = {a_kind} | a_stage + step * {a_step} >> 4",
        f"            b_at = {b_kind} | b_stage + step * {b_step} >> 4",
        f"            wgmma_{a.access.dtype}(acc, {tile.columns}, a_at, b_at, 1, {turned})",
        "        wgmma_commit()",
        "        # The stage before this one has been multiplied when only the last group is under way.",
        "        wgmma_wait(1)",
        "        if k_tile > 0 and thread & 127 == 0:",
        f"            mbarrier_arrive(empty + 8 * (slot - 1 if slot > 0 else {tile.stages - 1}))",
        *indent(_next(tile), 2),
        "    wgmma_wait(0)",
        "    if k_tiles > 0 and thread & 127 == 0:",
        f"        mbarrier_arrive(empty + 8 * (slot - 1 if slot > 0 else {tile.stages - 1}))",
        f"    for piece in range({tile.columns // PIECE}):",
        *indent(_put_down(tile), 2),
        "        cuda.syncwarp()",
        *indent(body, 2),
        "        cuda.syncwarp()",
    ]


def _put_down(tile: HopperTile) -> list[str]:
    """Lines that put the accumulators of piece ``piece`` into shared memory. They are registers, so their numbers are
    constants: each piece has lines of its own."""
    lines = []
    for piece in range(tile.columns // PIECE):
        lines += [
            f"{'el' if piece else ''}if piece == {piece}:",
            f"    for j in range({PIECE // 8}):",
            f"        o = {PIECE // 2 * piece} + 4 * j",
            "        at = staged_at + ((8 * j ^ staged_turn) + lane % 4 * 2) * 4",
            "        st_shared_v2_f32(at, acc[o], acc[o + 1])",
            f"        st_shared_v2_f32(at + {8 * PIECE * 4}, acc[o + 2], acc[o + 3])",
        ]
    return lines
