"""The instructions of sm_80 that kernels name themselves, as inline PTX: tensor cores, copies, shuffles, wide accesses.

Names follow the PTX ISA, which says what each does. Every body below is the same in Python, for the simulator
(runtime/cuda/simulator/). Addresses are numbers: 64 bits for global memory, 32 for shared; ``shared_memory`` is where
the block's dynamic shared memory begins. Words of 32 bits hold two 16-bit floats, the lower half first, or the bits of
a float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.cuda.simulator import copies, warp
from runtime.cuda.simulator.memory import (
    await_global,
    fence_global,
    load_atomic,
    load_global,
    load_shared,
    store_global,
    store_shared,
    swap_global,
)
from runtime.cuda.simulator.shared import BASE
from runtime.cuda.simulator.thread import barrier, together
from runtime.cuda.toolkit import f32, f64, intrinsic, literal, ptx, u16, u32, u64

_U16, _U32, _F32 = (np.dtype(t) for t in (np.uint16, np.uint32, np.float32))


# --- tensor cores --------------------------------------------------------------------------------------------


def _mma(shape: str, kind: str) -> str:
    return (
        f"mma.sync.aligned.{shape}.row.col.f32.{kind}.{kind}.f32 "
        "{$0, $1, $2, $3}, {$a0, $a1, $a2, $a3}, {$b0, $b1}, {$c0, $c1, $c2, $c3};"
    )


@ptx(_mma("m16n8k16", "f16"), pure=True)
def mma_m16n8k16_f16(
    a0: u32, a1: u32, a2: u32, a3: u32, b0: u32, b1: u32, c0: f32, c1: f32, c2: f32, c3: f32
) -> tuple[f32, f32, f32, f32]:
    """``A B + C`` of a 16 x 16 and a 16 x 8 matrix of float16, summed in float32."""
    return together(warp.mma, (a0, a1, a2, a3, b0, b1, c0, c1, c2, c3), "f16")


@ptx(_mma("m16n8k16", "bf16"), pure=True)
def mma_m16n8k16_bf16(
    a0: u32, a1: u32, a2: u32, a3: u32, b0: u32, b1: u32, c0: f32, c1: f32, c2: f32, c3: f32
) -> tuple[f32, f32, f32, f32]:
    """``A B + C`` of a 16 x 16 and a 16 x 8 matrix of bfloat16, summed in float32."""
    return together(warp.mma, (a0, a1, a2, a3, b0, b1, c0, c1, c2, c3), "bf16")


@ptx(_mma("m16n8k8", "tf32"), pure=True)
def mma_m16n8k8_tf32(
    a0: u32, a1: u32, a2: u32, a3: u32, b0: u32, b1: u32, c0: f32, c1: f32, c2: f32, c3: f32
) -> tuple[f32, f32, f32, f32]:
    """``A B + C`` of a 16 x 8 and an 8 x 8 matrix of float32, rounded towards zero to tf32, summed in float32."""
    return together(warp.mma, (a0, a1, a2, a3, b0, b1, c0, c1, c2, c3), "tf32")


@ptx("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {$0, $1}, [$address];")
def ldmatrix_x2(address: u32) -> tuple[u32, u32]:
    """Two 8 x 8 matrices of 16-bit elements from shared memory, one above the other: lanes 0 to 15 have the addresses
    of their rows."""
    return together(warp.ldmatrix, address, 2, False)


@ptx("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {$0, $1, $2, $3}, [$address];")
def ldmatrix_x4(address: u32) -> tuple[u32, u32, u32, u32]:
    """Four of them: each lane has the address of a row."""
    return together(warp.ldmatrix, address, 4, False)


@ptx("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {$0, $1, $2, $3}, [$address];")
def ldmatrix_x4_trans(address: u32) -> tuple[u32, u32, u32, u32]:
    """The same, each matrix transposed."""
    return together(warp.ldmatrix, address, 4, True)


# --- asynchronous copies -------------------------------------------------------------------------------------


@ptx("cp.async.ca.shared.global [$destination], [$source], 4;")
def cp_async_4(destination: u32, source: u64) -> None:
    """Begin to copy 4 bytes from global to shared memory."""
    copies.begin(destination, source, 4, 4)


@ptx("cp.async.ca.shared.global [$destination], [$source], 4, $size;")
def cp_async_4_zero(destination: u32, source: u64, size: u32) -> None:
    """The same, of which the first ``size`` bytes are read and the others are zeros."""
    copies.begin(destination, source, 4, int(size))


@ptx("cp.async.ca.shared.global [$destination], [$source], 8;")
def cp_async_8(destination: u32, source: u64) -> None:
    """Begin to copy 8 bytes from global to shared memory."""
    copies.begin(destination, source, 8, 8)


@ptx("cp.async.ca.shared.global [$destination], [$source], 8, $size;")
def cp_async_8_zero(destination: u32, source: u64, size: u32) -> None:
    """The same, of which the first ``size`` bytes are read and the others are zeros."""
    copies.begin(destination, source, 8, int(size))


@ptx("cp.async.cg.shared.global [$destination], [$source], 16;")
def cp_async_16(destination: u32, source: u64) -> None:
    """Begin to copy 16 bytes from global to shared memory."""
    copies.begin(destination, source, 16, 16)


@ptx("cp.async.cg.shared.global [$destination], [$source], 16, $size;")
def cp_async_16_zero(destination: u32, source: u64, size: u32) -> None:
    """The same, of which the first ``size`` bytes are read and the others are zeros."""
    copies.begin(destination, source, 16, int(size))


@ptx("cp.async.commit_group;")
def cp_async_commit() -> None:
    """What this thread has begun to copy since the last commit is a group."""
    copies.commit()


@ptx("cp.async.wait_group $pending;")
def cp_async_wait(pending: literal) -> None:
    """Wait until no more than the last ``pending`` groups of this thread are on their way."""
    copies.wait(pending)


# --- memory --------------------------------------------------------------------------------------------------


def _shared_memory(builder: Any, values: Any, results: Any) -> Any:
    from llvmlite import ir

    name = "shared_memory"
    memory = builder.module.globals.get(name)
    if memory is None:
        memory = ir.GlobalVariable(builder.module, ir.ArrayType(ir.IntType(8), 0), name, 3)
        memory.linkage, memory.align = "external", 1024
    return builder.ptrtoint(memory, results[0])


@intrinsic(_shared_memory)
def shared_memory() -> u32:
    """The address of the block's dynamic shared memory, a multiple of 1024."""
    return BASE


@ptx("ld.global.u16 $0, [$address];")
def ld_global_u16(address: u64) -> u16:
    return load_global(address, _U16)


@ptx("st.global.u16 [$address], $value;")
def st_global_u16(address: u64, value: u16) -> None:
    store_global(address, _U16, value)


@ptx("ld.global.u32 $0, [$address];")
def ld_global_u32(address: u64) -> u32:
    return load_global(address, _U32)


@ptx("st.global.u32 [$address], $value;")
def st_global_u32(address: u64, value: u32) -> None:
    store_global(address, _U32, value)


@ptx("ld.global.f32 $0, [$address];")
def ld_global_f32(address: u64) -> f32:
    return load_global(address, _F32)


@ptx("st.global.f32 [$address], $value;")
def st_global_f32(address: u64, value: f32) -> None:
    store_global(address, _F32, value)


@ptx("ld.global.v2.u32 {$0, $1}, [$address];")
def ld_global_v2_u32(address: u64) -> tuple[u32, u32]:
    return load_global(address, _U32, 2)


@ptx("st.global.v2.u32 [$address], {$x, $y};")
def st_global_v2_u32(address: u64, x: u32, y: u32) -> None:
    store_global(address, _U32, x, y)


@ptx("ld.global.v2.f32 {$0, $1}, [$address];")
def ld_global_v2_f32(address: u64) -> tuple[f32, f32]:
    return load_global(address, _F32, 2)


@ptx("st.global.v2.f32 [$address], {$x, $y};")
def st_global_v2_f32(address: u64, x: f32, y: f32) -> None:
    store_global(address, _F32, x, y)


@ptx("ld.global.v4.u32 {$0, $1, $2, $3}, [$address];")
def ld_global_v4_u32(address: u64) -> tuple[u32, u32, u32, u32]:
    return load_global(address, _U32, 4)


@ptx("st.global.v4.u32 [$address], {$x, $y, $z, $w};")
def st_global_v4_u32(address: u64, x: u32, y: u32, z: u32, w: u32) -> None:
    store_global(address, _U32, x, y, z, w)


@ptx("ld.global.v4.f32 {$0, $1, $2, $3}, [$address];")
def ld_global_v4_f32(address: u64) -> tuple[f32, f32, f32, f32]:
    return load_global(address, _F32, 4)


@ptx("st.global.v4.f32 [$address], {$x, $y, $z, $w};")
def st_global_v4_f32(address: u64, x: f32, y: f32, z: f32, w: f32) -> None:
    store_global(address, _F32, x, y, z, w)


@ptx("ld.global.nc.L1::no_allocate.v4.u32 {$0, $1, $2, $3}, [$address];")
def ld_global_nc_v4_u32(address: u64) -> tuple[u32, u32, u32, u32]:
    return load_global(address, _U32, 4)


@ptx("ld.global.nc.L1::no_allocate.v4.f32 {$0, $1, $2, $3}, [$address];")
def ld_global_nc_v4_f32(address: u64) -> tuple[f32, f32, f32, f32]:
    return load_global(address, _F32, 4)


@ptx("ld.shared.u16 $0, [$address];")
def ld_shared_u16(address: u32) -> u16:
    return load_shared(address, _U16)


@ptx("st.shared.u16 [$address], $value;")
def st_shared_u16(address: u32, value: u16) -> None:
    store_shared(address, _U16, value)


@ptx("ld.shared.u32 $0, [$address];")
def ld_shared_u32(address: u32) -> u32:
    return load_shared(address, _U32)


@ptx("st.shared.u32 [$address], $value;")
def st_shared_u32(address: u32, value: u32) -> None:
    store_shared(address, _U32, value)


@ptx("ld.shared.f32 $0, [$address];")
def ld_shared_f32(address: u32) -> f32:
    return load_shared(address, _F32)


@ptx("st.shared.f32 [$address], $value;")
def st_shared_f32(address: u32, value: f32) -> None:
    store_shared(address, _F32, value)


@ptx("ld.shared.v2.u32 {$0, $1}, [$address];")
def ld_shared_v2_u32(address: u32) -> tuple[u32, u32]:
    return load_shared(address, _U32, 2)


@ptx("st.shared.v2.u32 [$address], {$x, $y};")
def st_shared_v2_u32(address: u32, x: u32, y: u32) -> None:
    store_shared(address, _U32, x, y)


@ptx("ld.shared.v2.f32 {$0, $1}, [$address];")
def ld_shared_v2_f32(address: u32) -> tuple[f32, f32]:
    return load_shared(address, _F32, 2)


@ptx("st.shared.v2.f32 [$address], {$x, $y};")
def st_shared_v2_f32(address: u32, x: f32, y: f32) -> None:
    store_shared(address, _F32, x, y)


@ptx("ld.shared.v4.u32 {$0, $1, $2, $3}, [$address];")
def ld_shared_v4_u32(address: u32) -> tuple[u32, u32, u32, u32]:
    return load_shared(address, _U32, 4)


@ptx("st.shared.v4.u32 [$address], {$x, $y, $z, $w};")
def st_shared_v4_u32(address: u32, x: u32, y: u32, z: u32, w: u32) -> None:
    store_shared(address, _U32, x, y, z, w)


@ptx("ld.shared.v4.f32 {$0, $1, $2, $3}, [$address];")
def ld_shared_v4_f32(address: u32) -> tuple[f32, f32, f32, f32]:
    return load_shared(address, _F32, 4)


@ptx("st.shared.v4.f32 [$address], {$x, $y, $z, $w};")
def st_shared_v4_f32(address: u32, x: f32, y: f32, z: f32, w: f32) -> None:
    store_shared(address, _F32, x, y, z, w)


@ptx("atom.global.add.u32 $0, [$address], $value;")
def atom_add_global_u32(address: u64, value: u32) -> u32:
    """Add to what is there; what was there."""
    return swap_global(address, _U32, load_atomic(address, _U32) + value)


@ptx(
    "{ .reg .pred less; .reg .u32 found; AGAIN: ld.acquire.gpu.global.u32 found, [$address]; "
    "setp.lt.u32 less, found, $count; @less bra AGAIN; }"
)
def wait_global_u32(address: u64, count: u32) -> None:
    """Wait until at least ``count`` is there, which other blocks, that run at the same time, add up."""
    await_global(address, _U32, count)


@ptx("fence.acq_rel.gpu;")
def fence_gpu() -> None:
    """What this thread has written is seen by all who see what it writes next."""
    fence_global()


# --- barriers ------------------------------------------------------------------------------------------------


@ptx("bar.sync $number, $threads;")
def bar_sync(number: u32, threads: u32) -> None:
    """Wait at the barrier ``number`` (1 to 15) until ``threads`` threads, whole warps, have come."""
    barrier(int(number), int(threads))


# --- between the lanes of a warp -----------------------------------------------------------------------------
# Each of shfl_bfly, shfl_up and shfl_idx gives a lane's own value back where the other is not in the warp.


def _in_halves(instruction: str) -> str:
    """``instruction`` on the two halves of ``$value``, which has 64 bits."""
    each = " ".join(instruction.replace("HALF", half) for half in ("low", "high"))
    return f"{{ .reg .b32 low, high; mov.b64 {{low, high}}, $value; {each} mov.b64 $0, {{low, high}}; }}"


def _bfly(lane: int, mask: int) -> int:
    return lane ^ mask


def _up(lane: int, delta: int) -> int:
    return lane - delta


def _idx(lane: int, source: int) -> int:
    return source % 32


@ptx("shfl.sync.bfly.b32 $0, $value, $mask, 31, -1;")
def shfl_bfly_u32(value: u32, mask: u32) -> u32:
    return together(warp.shuffle, (value, mask), _bfly)


@ptx("shfl.sync.bfly.b32 $0, $value, $mask, 31, -1;")
def shfl_bfly_f32(value: f32, mask: u32) -> f32:
    return together(warp.shuffle, (value, mask), _bfly)


@ptx(_in_halves("shfl.sync.bfly.b32 HALF, HALF, $mask, 31, -1;"))
def shfl_bfly_u64(value: u64, mask: u32) -> u64:
    return together(warp.shuffle, (value, mask), _bfly)


@ptx(_in_halves("shfl.sync.bfly.b32 HALF, HALF, $mask, 31, -1;"))
def shfl_bfly_f64(value: f64, mask: u32) -> f64:
    return together(warp.shuffle, (value, mask), _bfly)


@ptx("shfl.sync.up.b32 $0, $value, $delta, 0, -1;")
def shfl_up_u32(value: u32, delta: u32) -> u32:
    return together(warp.shuffle, (value, delta), _up)


@ptx("shfl.sync.up.b32 $0, $value, $delta, 0, -1;")
def shfl_up_f32(value: f32, delta: u32) -> f32:
    return together(warp.shuffle, (value, delta), _up)


@ptx(_in_halves("shfl.sync.up.b32 HALF, HALF, $delta, 0, -1;"))
def shfl_up_u64(value: u64, delta: u32) -> u64:
    return together(warp.shuffle, (value, delta), _up)


@ptx(_in_halves("shfl.sync.up.b32 HALF, HALF, $delta, 0, -1;"))
def shfl_up_f64(value: f64, delta: u32) -> f64:
    return together(warp.shuffle, (value, delta), _up)


@ptx("shfl.sync.idx.b32 $0, $value, $source, 31, -1;")
def shfl_idx_f32(value: f32, source: u32) -> f32:
    return together(warp.shuffle, (value, source), _idx)


@ptx(_in_halves("shfl.sync.idx.b32 HALF, HALF, $source, 31, -1;"))
def shfl_idx_f64(value: f64, source: u32) -> f64:
    return together(warp.shuffle, (value, source), _idx)


@ptx("{ .reg .pred p; setp.ne.u32 p, $predicate, 0; vote.sync.ballot.b32 $0, p, -1; }")
def ballot(predicate: u32) -> u32:
    """A bit for each lane whose predicate is not zero."""
    return together(warp.ballot, predicate)


# --- numbers -------------------------------------------------------------------------------------------------


@ptx("cvt.rn.f16x2.f32 $0, $high, $low;", pure=True)
def pack_f16(low: f32, high: f32) -> u32:
    """Two float32 as float16, rounded to nearest even, in one word."""
    return int(np.array([low, high], np.float32).astype(np.float16).view(np.uint32)[0])


@ptx("cvt.rn.bf16x2.f32 $0, $high, $low;", pure=True)
def pack_bf16(low: f32, high: f32) -> u32:
    """Two float32 as bfloat16, rounded to nearest even, in one word."""
    return _bf16(low) | _bf16(high) << 16


@ptx("cvt.rna.tf32.f32 $0, $value;", pure=True)
def to_tf32(value: f32) -> u32:
    """A float32 rounded to nearest, ties away from zero, to the 11 bits of tf32, as a float32's bits."""
    bits = float_bits(value)
    if bits & 0x7F800000 == 0x7F800000:
        return bits if bits & 0x7FFFFF == 0 else 0x7FFFFFFF
    return (bits + 0x1000) & 0xFFFFE000


@ptx("mov.b32 $0, $value;", pure=True)
def float_bits(value: f32) -> u32:
    """The bits of a float32."""
    return int(np.float32(value).view(np.uint32))


@ptx("mov.b32 $0, $bits;", pure=True)
def bits_float(bits: u32) -> f32:
    """The float32 with these bits."""
    return np.uint32(int(bits) & 0xFFFFFFFF).view(np.float32)


@ptx("ex2.approx.ftz.f32 $0, $x;", pure=True)
def ex2(x: f32) -> f32:
    """2 to the power of ``x``, to 2 ulp; results that would be subnormal are zero."""
    found = np.exp2(np.float32(x))
    return found if not abs(found) < np.finfo(np.float32).tiny else np.float32(0)


def _bf16(value: f32) -> int:
    bits = float_bits(value)
    if bits & 0x7FFFFFFF > 0x7F800000:
        return 0x7FFF
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
