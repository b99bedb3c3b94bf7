"""Cases of the intrinsics of sm_90a: mbarriers, TMA and wgmma (see intrinsic_cases.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from intrinsic_cases import IntrinsicCase, a16, a32, bits16, random_words, small, words

from engine.program import Window
from runtime.cuda.tensor_map import TensorMap

FETCH = """
if t == 0:
    mbarrier_init(base + {at}, 1)
    fence_mbarrier_init()
cuda.syncthreads()
if t == 0:
    mbarrier_arrive_expect(base + {at}, {size})
    {load}
mbarrier_wait(base + {at}, 0)
for i in range({size} // 4 // {threads}):
    st_global_u32(y + 4 * (t + {threads} * i), ld_shared_u32(base + 4 * (t + {threads} * i)))
"""


def exchanged(chunk: int, row: int, swizzle: int) -> int:
    """Where a chunk of 16 bytes of a row of ``swizzle`` bytes lies: the pattern repeats after 8 rows of 128 bytes, in
    which all 8 chunks of a column differ; after 4 rows of 128 bytes with two rows of 64 each; after 2 with four."""
    return chunk ^ {0: 0, 32: row // 4 % 2, 64: row // 2 % 4, 128: row % 8}[swizzle]


def box(x: np.ndarray, rows: int, columns: int, swizzle: int) -> np.ndarray:
    """The first rows and columns of bytes of ``x``, zeros where it has none, with their chunks exchanged."""
    found = np.zeros((rows, columns), np.uint8)
    inside = x[:rows, :columns]
    found[: inside.shape[0], : inside.shape[1]] = inside
    turned = np.zeros_like(found)
    for r in range(rows):
        for c in range(columns // 16):
            to = exchanged(c, r, swizzle)
            turned[r, 16 * to : 16 * to + 16] = found[r, 16 * c : 16 * c + 16]
    return turned


def copies() -> Iterator[IntrinsicCase]:
    x = random_words(24, 32).view(np.uint8)  # 24 rows of 128 bytes
    for swizzle in (0, 32, 64, 128):
        columns = swizzle or 64
        size = 16 * columns
        first = 128 - columns // 2 - 16
        for row in (2, 12):
            load = f"fence_tensor_map(x_map)\n    tma_load_2d(base, x_map, {first // 2}, {row}, base + {size})"
            yield IntrinsicCase(
                f"tma_load_2d_swizzle_{swizzle}_row_{row}",
                FETCH.format(at=size, size=size, threads=32, load=load),
                {"x": x, "y": np.zeros(size // 4, np.uint32)},
                {"y": box(x[row:, first:], 16, columns, swizzle)},
                maps={"x_map": TensorMap((24, 64), (128,), 2, (16, columns // 2), swizzle)}, hopper=True,
            )  # fmt: skip
    for rank in (3, 4):
        yield boxes_of_many_axes(rank)
    yield patches()


def boxes_of_many_axes(rank: int) -> IntrinsicCase:
    """A box of several rows along each axis, past the end of all but the first. As in memory, the last axis is the
    innermost one in shared memory, and the first coordinate is that of it ("Tensor Size", "Tensor Coordinates")."""
    shape, sides, corner = (3, 4, 6, 40)[-rank:], (2, 2, 4, 32)[-rank:], (1, 3, 4, 16)[-rank:]
    x = random_words(*shape[:-1], shape[-1] // 2).view(np.uint16)
    filled = np.zeros([n + side for n, side in zip(shape, sides, strict=True)], np.uint16)
    filled[tuple(slice(n) for n in shape)] = x
    found = filled[tuple(slice(c, c + side) for c, side in zip(corner, sides, strict=True))]
    rows = np.ascontiguousarray(found).view(np.uint8).reshape(-1, 64)
    at = ", ".join(map(str, reversed(corner)))
    load = f"fence_tensor_map(x_map)\n    tma_load_{rank}d(base, x_map, {at}, base + {rows.size})"
    matrix = TensorMap(shape, x.strides[:-1], 2, sides, 64)
    return IntrinsicCase(
        f"tma_load_{rank}d",
        FETCH.format(at=rows.size, size=rows.size, threads=32, load=load),
        {"x": x, "y": np.zeros(rows.size // 4, np.uint32)},
        {"y": box(rows, len(rows), 64, 64)},
        maps={"x_map": matrix}, hopper=True,
    )  # fmt: skip


def patches() -> IntrinsicCase:
    """Pixels in im2col mode ("im2col Mode" of the ISA): they follow one another over the columns of the bounding box,
    then over its rows, then over images, in steps; the offsets are added to where each is read, and what is not in the
    image is zero. Here the box is not in the middle, and the copy ends behind the last image."""
    images, height, width, channels = 2, 5, 6, 40
    (top, left), (bottom, right), (down, across) = (-1, -2), (0, -1), (2, 1)
    x = random_words(images, height, width, channels // 2).view(np.uint16)
    pixels, first_channel, offset = 32, 8, (1, 2)
    walk = [
        (n, h, w)
        for n in range(images + 1)
        for h in range(top, height + bottom, down)
        for w in range(left, width + right, across)
    ]
    begin = walk.index((0, 1, 3))
    found = np.zeros((pixels, 32), np.uint16)
    for i, (n, h, w) in enumerate(walk[begin : begin + pixels]):
        row, column = h + offset[0], w + offset[1]
        if n < images and 0 <= row < height and 0 <= column < width:
            found[i] = x[n, row, column, first_channel:]
    size = found.nbytes
    corner = f"{first_channel}, 3, 1, 0, base + {size}, {offset[1]}, {offset[0]}"
    window = Window((top, left), (bottom, right), (down, across))
    return IntrinsicCase(
        "tma_load_patches",
        FETCH.format(at=size, size=size, threads=32,
                     load=f"fence_tensor_map(x_map)\n    tma_load_patches(base, x_map, {corner})"),
        {"x": x, "y": np.zeros(size // 4, np.uint32)},
        {"y": box(found.view(np.uint8).reshape(pixels, 64), pixels, 64, 64)},
        maps={"x_map": TensorMap(x.shape, x.strides[:-1], 2, (pixels, 32), 64, window)}, hopper=True,
    )  # fmt: skip


def arrivals() -> Iterator[IntrinsicCase]:
    yield IntrinsicCase(
        "mbarrier_of_many",
        """
if t == 0:
    mbarrier_init(base, 64)
cuda.syncthreads()
for i in range(3):
    if t < 64:
        st_shared_u32(base + 64 + 4 * t, t + i)
        mbarrier_arrive(base)
    else:
        mbarrier_wait(base, i % 2)
        st_global_u32(y + 4 * (64 * i + t - 64), ld_shared_u32(base + 64 + 4 * (127 - t)))
    cuda.syncthreads()
""",
        {"y": np.zeros(192, np.uint32)},
        {"y": (np.arange(64)[::-1] + np.arange(3)[:, None]).astype(np.uint32)},
        threads=128,
        hopper=True,
    )


# --- wgmma ---------------------------------------------------------------------------------------------------


def image(x: np.ndarray, swizzle: int, turned: bool) -> tuple[np.ndarray, int, int]:
    """``x`` (rows along m or n, elements of k) as bytes in shared memory, with the leading and the stride offset of its
    descriptor: "Shared Memory Matrix Layout" of the ISA's section on wgmma.

    K-major: rows of ``swizzle`` bytes of k, groups of eight rows ``stride`` apart; without swizzle, core matrices of
    eight rows of 16 bytes, neighbours along k ``leading`` apart. Otherwise rows of one element of k, with ``swizzle``
    bytes along m or n; further ones ``leading``, groups of eight elements of k ``stride`` apart.
    """
    rows, k = x.shape
    size = x.itemsize
    per_chunk = 16 // size
    wide = swizzle // size  # elements in a row
    groups = rows // 8
    if turned:
        leading, stride = k * swizzle, 8 * swizzle
    else:
        leading, stride = 128, 8 * swizzle if swizzle else 128 * (k // per_chunk)
    found = np.zeros(max(rows * k * size, groups * stride), np.uint8)
    raw = x.view(np.uint8).reshape(rows, k, size)
    for r in range(rows):
        for e in range(k):
            if turned:
                chunk = exchanged(r % wide // per_chunk, e, swizzle)
                at = r // wide * leading + e * swizzle + chunk * 16 + r % per_chunk * size
            elif swizzle:
                at = r * swizzle + exchanged(e // per_chunk, r, swizzle) * 16 + e % per_chunk * size
            else:
                at = r // 8 * stride + e // per_chunk * leading + r % 8 * 16 + e % per_chunk * size
            found[at : at + size] = raw[r, e]
    return found, leading, stride


def sums_of(d: np.ndarray) -> np.ndarray:
    """(128, columns / 2) registers: "Register fragments of D": row and column of element i of a thread."""
    found = np.zeros((128, d.shape[1] // 2), np.float32)
    for t in range(128):
        for i in range(found.shape[1]):
            row = 16 * (t // 32) + t % 32 // 4 + (8 if i % 4 >= 2 else 0)
            found[t, i] = d[row, i // 4 * 8 + t % 4 * 2 + i % 2]
    return found


def registers_of(a: np.ndarray, kind: str) -> np.ndarray:
    """(128, 4) words of A: each warp has 16 rows, as mma has them."""
    at = a32 if kind == "tf32" else a16
    return np.concatenate([words(a[16 * w : 16 * w + 16], kind, at, 4 if kind == "tf32" else 8) for w in range(4)])


def stored(x: np.ndarray, kind: str) -> np.ndarray:
    return x if kind == "tf32" else bits16(x, kind)


def products() -> Iterator[IntrinsicCase]:
    for kind in ("f16", "bf16"):
        for a_turned in (0, 1):
            for b_turned in (0, 1):
                yield product(kind, 128, a_turned, b_turned)
        yield product(kind, 128, None, 1)
    for swizzle in (0, 32, 64):
        yield product("bf16", swizzle, 0, 0)
    yield product("tf32", 128, 0, 0)
    yield product("tf32", 128, None, 0)
    for a_turned in (0, None):
        yield product("tf32", 128, a_turned, 0, more=0x1FFF)
    for columns in (32, 256):
        yield product("bf16", 128, None, 1, columns)
    yield two_sums()


def product(kind: str, swizzle: int, a_turned: int | None, b_turned: int, columns: int = 128,
            more: int = 0) -> IntrinsicCase:  # fmt: skip
    """A of 64 x k (in registers where ``a_turned`` is None) times B of k x ``columns``, plus the sums of the product
    before. tf32 takes the upper bits of a float32 as they are, so ``more`` bits below them must not change anything."""
    k = 8 if kind == "tf32" else 16
    a, b = small(64, k, seed=4), small(k, columns, seed=5)
    expected = sums_of((2 * a.astype(np.float64) @ b).astype(np.float32))
    if more:
        a, b = ((x.view(np.uint32) | np.uint32(more)).view(np.float32) for x in (a, b))
    b_image, leading, stride = image(np.ascontiguousarray(stored(b, kind).T), swizzle, bool(b_turned))
    layout = {0: 0, 128: 1, 64: 2, 32: 3}[swizzle] << 62
    b_at = f"{layout | leading >> 4 << 16 | stride >> 4 << 32} | (base >> 4)"
    literals = {"tf32": ""}.get(kind, f", {b_turned}" if a_turned is None else f", {a_turned}, {b_turned}")
    if a_turned is None:
        given, load = registers_of(a, kind), "a0, a1, a2, a3 = ld_global_v4_u32(a + 16 * t)"
        call = f"wgmma_{kind}_registers(sums, {columns}, a0, a1, a2, a3, {b_at}, adds{literals})"
    else:
        given, a_leading, a_stride = image(stored(a, kind), swizzle, bool(a_turned))
        a_at = f"{layout | a_leading >> 4 << 16 | a_stride >> 4 << 32} | ((base + {b_image.size}) >> 4)"
        load = f"copy(base + {b_image.size}, a, {given.size}, t)"
        call = f"wgmma_{kind}(sums, {columns}, {a_at}, {b_at}, adds{literals})"
    how = "registers" if a_turned is None else "turned" if a_turned else "plain"
    cut = "_cut" if more else ""
    return IntrinsicCase(
        f"wgmma_{kind}_{how}_{'turned' if b_turned else 'plain'}_swizzle_{swizzle}_columns_{columns}{cut}",
        f"""
copy(base, b, {b_image.size}, t)
{load}
fence_proxy_async()
cuda.syncthreads()
sums = cuda.local.array({columns // 2}, float32)
for i in range({columns // 2}):
    sums[i] = 7
for adds in range(2):
    wgmma_fence()
    {call}
    wgmma_commit()
wgmma_wait(0)
for i in range({columns // 2}):
    st_global_f32(y + 4 * ({columns // 2} * t + i), sums[i])
""",
        {"a": given, "b": b_image, "y": np.zeros((128, columns // 2), np.float32)},
        {"y": expected},
        threads=128,
        shared=32768,
        hopper=True,
    )


def two_sums() -> IntrinsicCase:
    """The first of two groups is waited for, and its sums are used while the second is under way."""
    a, b = small(64, 16, seed=4), small(16, 64, seed=5)
    b_image, leading, stride = image(np.ascontiguousarray(stored(b, "bf16").T), 128, False)
    given, a_leading, a_stride = image(stored(a, "bf16"), 128, False)
    b_at = f"{1 << 62 | leading >> 4 << 16 | stride >> 4 << 32} | (base >> 4)"
    a_at = f"{1 << 62 | a_leading >> 4 << 16 | a_stride >> 4 << 32} | ((base + {b_image.size}) >> 4)"
    return IntrinsicCase(
        "wgmma_wait_for",
        f"""
copy(base, b, {b_image.size}, t)
copy(base + {b_image.size}, a, {given.size}, t)
fence_proxy_async()
cuda.syncthreads()
first = cuda.local.array(32, float32)
second = cuda.local.array(32, float32)
wgmma_fence()
wgmma_bf16(first, 64, {a_at}, {b_at}, 0, 0, 0)
wgmma_commit()
wgmma_fence()
wgmma_bf16(second, 64, {a_at}, {b_at}, 0, 0, 0)
wgmma_commit()
wgmma_wait_for(first, 64, 1)
for i in range(32):
    first[i] = first[i] * 2
wgmma_wait_for(second, 64, 0)
for i in range(32):
    st_global_f32(y + 4 * (32 * t + i), first[i] + second[i])
""",
        {"a": given, "b": b_image, "y": np.zeros((128, 32), np.float32)},
        {"y": sums_of((3 * a.astype(np.float64) @ b).astype(np.float32))},
        threads=128,
        shared=32768,
        hopper=True,
    )


FAMILIES: list[Callable[[], Iterator[IntrinsicCase]]] = [copies, arrivals, products]
