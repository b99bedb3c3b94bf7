"""The instructions of sm_90a that kernels name themselves: mbarriers, TMA, wgmma, and what keeps them in order.

As runtime/cuda/ptx.py, which has those of sm_80. An mbarrier is 8 bytes of shared memory; its phases have the parities
0, 1, 0 ..., and the phase before the first counts as over with parity 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runtime.cuda.simulator import mbarriers, tma, warpgroup
from runtime.cuda.simulator.thread import current, together
from runtime.cuda.toolkit import array, i32, intrinsic, literal, ptx, u16, u32, u64

# --- mbarriers -----------------------------------------------------------------------------------------------


@ptx("mbarrier.init.shared::cta.b64 [$mbarrier], $count;")
def mbarrier_init(mbarrier: u32, count: u32) -> None:
    """Make an mbarrier of which each phase waits for ``count`` arrivals."""
    mbarriers.init(mbarrier, count)


@ptx("fence.mbarrier_init.release.cluster;")
def fence_mbarrier_init() -> None:
    """mbarriers that this thread has made are seen by TMA; other threads see them behind a barrier."""


@ptx("mbarrier.arrive.shared::cta.b64 _, [$mbarrier];")
def mbarrier_arrive(mbarrier: u32) -> None:
    """Be one of the arrivals."""
    mbarriers.arrive(mbarrier)


@ptx("mbarrier.arrive.expect_tx.shared::cta.b64 _, [$mbarrier], $size;")
def mbarrier_arrive_expect(mbarrier: u32, size: u32) -> None:
    """Be one of the arrivals, and let the phase wait for ``size`` bytes of copies too."""
    mbarriers.arrive(mbarrier, size)


@ptx(
    "{ .reg .pred over; AGAIN: mbarrier.try_wait.parity.shared::cta.b64 over, [$mbarrier], $parity; @!over bra AGAIN; }"
)
def mbarrier_wait(mbarrier: u32, parity: u32) -> None:
    """Wait until the phase of this parity is over."""
    mbarriers.wait(mbarrier, parity)


# --- copies --------------------------------------------------------------------------------------------------


@ptx("fence.proxy.async.shared::cta;")
def fence_proxy_async() -> None:
    """What this thread has written to shared memory, or knows that others have, is seen by TMA and wgmma."""
    thread = current()
    thread.block.shared.fence(thread.number)


@ptx("fence.proxy.tensormap::generic.acquire.gpu [$tensor_map], 128;")
def fence_tensor_map(tensor_map: u64) -> None:
    """A tensor map that lies in global memory, as it was written before the kernel began, is seen by copies."""


_BOX = (
    "cp.async.bulk.tensor.{}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
    "[$destination], [$tensor_map, {{{}}}], [$mbarrier];"
)


@ptx(_BOX.format(2, "$column, $row"))
def tma_load_2d(destination: u32, tensor_map: u64, column: i32, row: i32, mbarrier: u32) -> None:
    """Begin to copy the box of a matrix (runtime/cuda/tensor_map.py) at a row and a column to shared memory. The
    mbarrier's phase waits for all bytes of the box, those outside the matrix too: these become zeros."""
    tma.load(destination, tensor_map, (column, row), mbarrier)


@ptx(_BOX.format(3, "$column, $row, $plane"))
def tma_load_3d(destination: u32, tensor_map: u64, column: i32, row: i32, plane: i32, mbarrier: u32) -> None:
    """The same of an array of three axes; coordinates begin with that of the last axis."""
    tma.load(destination, tensor_map, (column, row, plane), mbarrier)


@ptx(_BOX.format(4, "$column, $row, $plane, $space"))
def tma_load_4d(
    destination: u32, tensor_map: u64, column: i32, row: i32, plane: i32, space: i32, mbarrier: u32
) -> None:
    """The same of an array of four axes."""
    tma.load(destination, tensor_map, (column, row, plane, space), mbarrier)


@ptx(
    "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes "
    "[$destination], [$tensor_map, {$channel, $column, $row, $image}], [$mbarrier], {$right, $down};"
)
def tma_load_patches(
    destination: u32, tensor_map: u64, channel: i32, column: i32, row: i32, image: i32, mbarrier: u32, right: u16,
    down: u16,
) -> None:  # fmt: skip
    """Begin to copy the pixels that outputs of a convolution meet with one tap: the map has a window, the first output
    meets ``column`` and ``row`` of ``image`` with its first tap, and this tap lies so much further ``right`` and
    ``down``."""
    tma.load_patches(destination, tensor_map, (channel, column, row, image), (right, down), mbarrier)


# --- warps ---------------------------------------------------------------------------------------------------


@ptx("setmaxnreg.inc.sync.aligned.u32 $registers;")
def setmaxnreg_inc(registers: literal) -> None:
    """From here on this warpgroup's threads have so many registers, when others have given theirs up."""


@ptx("setmaxnreg.dec.sync.aligned.u32 $registers;")
def setmaxnreg_dec(registers: literal) -> None:
    """From here on this warpgroup's threads need no more registers than this."""


# --- wgmma ---------------------------------------------------------------------------------------------------


@ptx("wgmma.fence.sync.aligned;")
def wgmma_fence() -> None:
    """Before the first product of a group: registers that were written are seen by it."""
    together(warpgroup.fence, None, warps=warpgroup.WARPS)


@ptx("wgmma.commit_group.sync.aligned;")
def wgmma_commit() -> None:
    """The products begun since the last commit are a group."""
    together(warpgroup.commit, None, warps=warpgroup.WARPS)


@ptx("wgmma.wait_group.sync.aligned $pending;")
def wgmma_wait(pending: literal) -> None:
    """Wait until no more than the last ``pending`` groups are under way: the others' registers hold their sums."""
    together(warpgroup.wait, None, pending, warps=warpgroup.WARPS)


def _on_sums(builder: Any, sums: Any, count: int, text: str, constraints: list[str], more: Sequence[Any]) -> None:
    """Inline PTX that takes the first ``count`` numbers of a local array and leaves them there, and takes ``more``."""
    from llvmlite import ir

    places = [builder.gep(sums, [ir.IntType(32)(i)]) for i in range(count)]
    before = [builder.load(p) for p in places]
    number = ir.FloatType()
    made = ir.FunctionType(ir.LiteralStructType([number] * count), [number] * count + [v.type for v in more])
    tied = ["=f"] * count + [str(i) for i in range(count)]
    assembly = ir.InlineAsm(made, text, ",".join([*tied, *constraints, "~{memory}"]), True)
    found = builder.call(assembly, [*before, *more], attrs=("convergent",))
    for i, place in enumerate(places):
        builder.store(builder.extract_value(found, i), place)


def _wait_for(builder: Any, values: Sequence[Any], results: Sequence[Any]) -> None:
    sums, columns, pending = values
    _on_sums(builder, sums, columns // 2, f"wgmma.wait_group.sync.aligned {pending};", [], [])


@intrinsic(_wait_for)
def wgmma_wait_for(sums: array, columns: literal, pending: literal) -> None:
    """The same, and ``sums`` is among those: what is computed from it is computed behind this, which arithmetic on
    registers alone is not behind :func:`wgmma_wait`."""
    wgmma_wait(pending)


def _wgmma(kind: str, registers: bool) -> Any:
    """``sums += A B`` by one wgmma: what of it are literals is part of the instruction's text."""

    def build(builder: Any, values: Sequence[Any], results: Sequence[Any]) -> None:
        a_count = 4 if registers else 1
        sums, columns, given, adds, turned = (
            values[0], values[1], [*values[2 : 2 + a_count], values[2 + a_count]], values[3 + a_count],
            values[4 + a_count :],
        )  # fmt: skip
        count = columns // 2
        names = [f"${2 * count + i}" for i in range(len(given) + 1)]
        a = f"{{{', '.join(names[:4])}}}" if registers else names[0]
        transposed = {"tf32": ""}.get(kind, "".join(f", {t}" for t in turned))
        text = (
            f"{{\n.reg .pred add;\nsetp.ne.b32 add, {names[-1]}, 0;\n"
            f"wgmma.mma_async.sync.aligned.m64n{columns}k{8 if kind == 'tf32' else 16}.f32.{kind}.{kind} "
            f"{{{', '.join(f'${i}' for i in range(count))}}}, {a}, {names[-2]}, add, 1, 1{transposed};\n}}"
        )
        constraints = (["r"] * 4 if registers else ["l"]) + ["l", "r"]
        _on_sums(builder, sums, count, text, constraints, [*given, adds])

    return build


def _begin(kind: str, sums: array, columns: int, a: Any, b: int, adds: int, *turned: int) -> None:
    turns = (bool(turned and turned[0]), bool(turned and turned[1]))
    together(warpgroup.product, (sums, a, int(b), int(adds)), kind, columns, turns, warps=warpgroup.WARPS)


@intrinsic(_wgmma("f16", registers=False))
def wgmma_f16(sums: array, columns: literal, a: u64, b: u64, adds: u32, a_turned: literal, b_turned: literal) -> None:
    """``sums += A B``, or ``sums = A B`` where ``adds`` is 0: 64 x 16 and 16 x ``columns`` (8 to 256, in eights)
    numbers of float16 in shared memory, where descriptors say, with k across their rows where they are ``turned``. A
    thread has ``columns / 2`` of the sums, in float32, and they are there when it has waited."""
    _begin("f16", sums, columns, int(a), b, adds, a_turned, b_turned)


@intrinsic(_wgmma("f16", registers=True))
def wgmma_f16_registers(
    sums: array, columns: literal, a0: u32, a1: u32, a2: u32, a3: u32, b: u64, adds: u32, b_turned: literal
) -> None:
    """The same with A in registers: of each warp 16 rows, as mma has them."""
    _begin("f16", sums, columns, (a0, a1, a2, a3), b, adds, 0, b_turned)


@intrinsic(_wgmma("bf16", registers=False))
def wgmma_bf16(sums: array, columns: literal, a: u64, b: u64, adds: u32, a_turned: literal, b_turned: literal) -> None:
    """The same of bfloat16."""
    _begin("bf16", sums, columns, int(a), b, adds, a_turned, b_turned)


@intrinsic(_wgmma("bf16", registers=True))
def wgmma_bf16_registers(
    sums: array, columns: literal, a0: u32, a1: u32, a2: u32, a3: u32, b: u64, adds: u32, b_turned: literal
) -> None:
    """The same with A in registers: of each warp 16 rows, as mma has them."""
    _begin("bf16", sums, columns, (a0, a1, a2, a3), b, adds, 0, b_turned)


@intrinsic(_wgmma("tf32", registers=False))
def wgmma_tf32(sums: array, columns: literal, a: u64, b: u64, adds: u32) -> None:
    """The same of float32, taken as tf32: 64 x 8 and 8 x ``columns`` numbers, k along their rows."""
    _begin("tf32", sums, columns, int(a), b, adds)


@intrinsic(_wgmma("tf32", registers=True))
def wgmma_tf32_registers(sums: array, columns: literal, a0: u32, a1: u32, a2: u32, a3: u32, b: u64, adds: u32) -> None:
    """The same with A in registers: of each warp 16 rows, as mma has them."""
    _begin("tf32", sums, columns, (a0, a1, a2, a3), b, adds)
