"""One small kernel for each PTX intrinsic, and what it must give, stated in NumPy from the PTX ISA's words alone.

A wrong layout in the simulator would be mirrored by kernels that were tested there. So the same cases run in the
simulator (tests/cuda/simulator/test_conformance.py) and on a GPU (tests/gpu/test_conformance.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from engine.program import Kernel
from runtime.cuda.device import Device, Function
from runtime.cuda.tensor_map import TensorMap

LANES = 32
HEAD = """\
from numpy import float32, float64
from runtime.cuda.ptx import *
from runtime.cuda.ptx_hopper import *
from runtime.cuda.toolkit import cuda, device

@device
def copy(to, source, size, t):
    for i in range(t, size // 4, cuda.blockDim.x):
        st_shared_u32(to + 4 * i, ld_global_u32(source + 4 * i))

def of_{name}({parameters}):
    t = cuda.threadIdx.x
    base = shared_memory()
"""


@dataclass(frozen=True)
class IntrinsicCase:
    """A kernel of one block. Its parameters are the addresses of ``arrays`` and of the encoded ``maps``, each of the
    array of its name without ``_map``; ``expected`` says what arrays hold afterwards."""

    name: str
    body: str
    arrays: Mapping[str, np.ndarray]
    expected: Mapping[str, np.ndarray]
    threads: int = LANES
    shared: int = 4096
    hopper: bool = False
    ulp: int = 0
    maps: Mapping[str, TensorMap] = field(default_factory=dict)

    @property
    def kernel(self) -> Kernel:
        parameters = ", ".join([*self.arrays, *self.maps])
        lines = "".join(f"    {line}\n" for line in self.body.strip("\n").splitlines())
        source = HEAD.format(name=self.name, parameters=parameters) + lines
        return Kernel(f"of_{self.name}", self.name, source, threads=self.threads, shared=self.shared)

    def run(self, device: Device, load: Callable[[Kernel], Function]) -> dict[str, np.ndarray]:
        """What the arrays hold after the kernel, which ``load`` has made ready, has run on ``device``."""
        found = {name: np.ascontiguousarray(a).copy() for name, a in self.arrays.items()}
        with device.lock:
            device.activate()
            function = load(self.kernel)
            memory = {name: device.allocate(a.nbytes) for name, a in found.items()}
            for name, matrix in self.maps.items():
                encoded = device.tensor_map(memory[name.removesuffix("_map")].address, matrix)
                memory[name] = device.allocate(encoded.nbytes)
                device.compute.upload(memory[name].address, encoded)
            for name, a in found.items():
                device.compute.upload(memory[name].address, a)
            args = np.array([m.address for m in memory.values()], np.int64)
            device.compute.launch(function, 1, args)
            for name, a in found.items():
                device.compute.download(a, memory[name].address)
            device.compute.synchronize()
        return found

    def check(self, found: Mapping[str, np.ndarray]) -> None:
        for name, want in self.expected.items():
            got = found[name]
            if self.ulp:
                np.testing.assert_array_max_ulp(got, want, self.ulp)
            else:
                np.testing.assert_array_equal(_bytes(got), _bytes(want), f"{self.name}: {name}")


def cases() -> list[IntrinsicCase]:
    """All of them, Hopper's too."""
    import intrinsic_cases_hopper

    made = [case for family in (*FAMILIES, *intrinsic_cases_hopper.FAMILIES) for case in family()]
    assert len({c.name for c in made}) == len(made)
    return made


def _bytes(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).reshape(-1).view(np.uint8)


def random_words(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << 32, shape, np.uint32)


def small(*shape: int, seed: int = 0) -> np.ndarray:
    """Quarters from -2 to 2: every kind of float has them, their products and sums are exact."""
    return (np.random.default_rng(seed).integers(-8, 9, shape) / 4).astype(np.float32)


def bits16(x: np.ndarray, kind: str) -> np.ndarray:
    """The 16 bits of each number, which has no others."""
    if kind == "f16":
        return x.astype(np.float16).view(np.uint16)
    return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def words(x: np.ndarray, kind: str, places: Callable[[int, int], tuple[int, int]], count: int) -> np.ndarray:
    """(32, words) registers: element ``i`` of lane ``l`` is ``x[places(l, i)]``; two of 16 bits share a register."""
    elements = np.array([[x[places(lane, i)] for i in range(count)] for lane in range(LANES)], np.float32)
    return elements.view(np.uint32) if kind == "tf32" else bits16(elements, kind).view(np.uint32)


# --- products ------------------------------------------------------------------------------------------------


def a16(lane: int, i: int) -> tuple[int, int]:
    """ "Matrix Fragments for mma.m16n8k16 with floating point type": row and column of a_i."""
    row = lane >> 2 if 0 <= i < 2 or 4 <= i < 6 else (lane >> 2) + 8
    return row, (lane % 4) * 2 + (i & 1) + (8 if i >= 4 else 0)


def b16(lane: int, i: int) -> tuple[int, int]:
    """The same section: row and column of b_i."""
    return (lane % 4) * 2 + (i & 1) + (8 if i >= 2 else 0), lane >> 2


def a32(lane: int, i: int) -> tuple[int, int]:
    """ "Matrix Fragments for mma.m16n8k8" of .tf32: row and column of a_i."""
    return (lane >> 2) + (8 if i in (1, 3) else 0), lane % 4 + (4 if i >= 2 else 0)


def b32(lane: int, i: int) -> tuple[int, int]:
    return lane % 4 + 4 * i, lane >> 2


def c32(lane: int, i: int) -> tuple[int, int]:
    """Row and column of c_i, of both."""
    return (lane >> 2) + (8 if i >= 2 else 0), (lane % 4) * 2 + (i & 1)


def products() -> Iterator[IntrinsicCase]:
    for shape, kind in (("m16n8k16", "f16"), ("m16n8k16", "bf16"), ("m16n8k8", "tf32")):
        k = 8 if kind == "tf32" else 16
        a, b, c = small(16, k, seed=1), small(k, 8, seed=2), small(16, 8, seed=3)
        d = (a.astype(np.float64) @ b + c).astype(np.float32)
        at_a, at_b = (a32, b32) if kind == "tf32" else (a16, b16)
        yield IntrinsicCase(
            f"mma_{shape}_{kind}",
            f"""
a0, a1, a2, a3 = ld_global_v4_u32(a + 16 * t)
b0, b1 = ld_global_v2_u32(b + 8 * t)
c0, c1, c2, c3 = ld_global_v4_f32(c + 16 * t)
d0, d1, d2, d3 = mma_{shape}_{kind}(a0, a1, a2, a3, b0, b1, c0, c1, c2, c3)
st_global_v4_f32(d + 16 * t, d0, d1, d2, d3)
""",
            {"a": words(a, kind, at_a, k // 2), "b": words(b, kind, at_b, k // 4),
             "c": words(c, "tf32", c32, 4), "d": np.zeros((LANES, 4), np.uint32)},
            {"d": words(d, "tf32", c32, 4)},
        )  # fmt: skip


def tf32_is_cut() -> Iterator[IntrinsicCase]:
    """mma takes the upper 19 bits of a float32."""
    a = np.zeros((16, 8), np.float32)
    a[:, 0] = np.float32(1) + np.float32(2**-10) + np.float32(2**-11)
    b = np.zeros((8, 8), np.float32)
    b[0] = 1
    d = np.full((16, 8), np.float32(1 + 2**-10))
    yield IntrinsicCase(
        "mma_tf32_of_longer_numbers",
        """
a0, a1, a2, a3 = ld_global_v4_u32(a + 16 * t)
b0, b1 = ld_global_v2_u32(b + 8 * t)
zero = float32(0)
d0, d1, d2, d3 = mma_m16n8k8_tf32(a0, a1, a2, a3, b0, b1, zero, zero, zero, zero)
st_global_v4_f32(d + 16 * t, d0, d1, d2, d3)
""",
        {"a": words(a, "tf32", a32, 4), "b": words(b, "tf32", b32, 2), "d": np.zeros((LANES, 4), np.uint32)},
        {"d": words(d, "tf32", c32, 4)},
    )


# --- matrices in shared memory -------------------------------------------------------------------------------

_FILL = """
for i in range(4):
    st_shared_u32(base + 4 * (t + 32 * i), ld_global_u32(x + 4 * (t + 32 * i)))
cuda.syncthreads()
"""


def _matrices(memory: np.ndarray, count: int, transposed: bool) -> np.ndarray:
    """(32, count) words of ``count`` matrices, each 8 rows of 16 bytes in turn: "each thread loads a row fragment",
    thread l has elements 2 * (l % 4) and the next of row l / 4, or of column l / 4 where transposed."""
    found = np.zeros((LANES, count), np.uint32)
    elements = memory.view(np.uint16).reshape(-1, 8, 8)
    for lane in range(LANES):
        for m in range(count):
            matrix = elements[m].T if transposed else elements[m]
            low, high = matrix[lane // 4, 2 * (lane % 4) : 2 * (lane % 4) + 2]
            found[lane, m] = int(low) | int(high) << 16
    return found


def matrices() -> Iterator[IntrinsicCase]:
    x = random_words(128)
    for count, transposed in ((2, False), (4, False), (4, True)):
        name = f"ldmatrix_x{count}" + ("_trans" if transposed else "")
        names = ", ".join("abcd"[:count])
        load = f"{names} = {name}(base + 16 * (t % {8 * count}))"
        yield IntrinsicCase(
            name,
            f"{_FILL}\n{load}\nst_global_v{count}_u32(y + {4 * count} * t, {names})",
            {"x": x, "y": np.zeros((LANES, count), np.uint32)},
            {"y": _matrices(x, count, transposed)},
        )


# --- memory --------------------------------------------------------------------------------------------------

_BYTES = {"u16": 2, "u32": 4, "f32": 4}


def accesses() -> Iterator[IntrinsicCase]:
    widths = [("u16", 1), ("u32", 1), ("f32", 1), ("u32", 2), ("f32", 2), ("u32", 4), ("f32", 4)]
    for word, count in widths:
        vector = f"_{word}" if count == 1 else f"_v{count}_{word}"
        names, size = ", ".join("abcd"[:count]), _BYTES[word] * count
        x = random_words(LANES * size // 4) & np.uint32(0xBF7FBF7F)  # no NaN
        for how in ("global", "shared", "global_nc"):
            if how == "global_nc" and count < 4:
                continue
            lines = [f"{names} = ld_{how}{vector}(x + {size} * t)", f"st_global{vector}(y + {size} * t, {names})"]
            if how == "shared":
                lines[0] = f"{names} = ld_global{vector}(x + {size} * t)"
                lines[1:1] = [f"st_shared{vector}(base + {size} * t, {names})", "cuda.syncthreads()",
                              f"{names} = ld_shared{vector}(base + {size} * (31 - t))"]  # fmt: skip
            back = x.view(np.uint8).reshape(LANES, size)
            yield IntrinsicCase(
                f"access_{how}{vector}", "\n".join(lines), {"x": x, "y": np.zeros_like(x)},
                {"y": back if how != "shared" else np.ascontiguousarray(back[::-1])},
            )  # fmt: skip


def atomics() -> Iterator[IntrinsicCase]:
    yield IntrinsicCase(
        "atom_add_global_u32",
        "st_global_u32(y + 4 * atom_add_global_u32(x, 1), 7)",
        {"x": np.zeros(1, np.uint32), "y": np.zeros(LANES, np.uint32)},
        {"x": np.full(1, LANES, np.uint32), "y": np.full(LANES, 7, np.uint32)},
    )


def copies() -> Iterator[IntrinsicCase]:
    x = random_words(LANES * 4)
    for size in (4, 8, 16):
        words = size // 4
        back = x.reshape(-1)[: LANES * words].copy()
        for given in (None, size, size // 2, 0):
            call = f"cp_async_{size}(base + {size} * t, x + {size} * t)"
            if given is not None:
                call = f"cp_async_{size}_zero(base + {size} * t, x + {size} * t, {given} if t % 2 else {size})"
            expected = back.reshape(LANES, words).copy().view(np.uint8)
            if given is not None:
                expected[1::2, given:] = 0
            yield IntrinsicCase(
                f"cp_async_{size}" + ("" if given is None else f"_zero_{given}"),
                f"""
{call}
cp_async_commit()
cp_async_wait(0)
cuda.syncthreads()
for i in range({words}):
    st_global_u32(y + 4 * (t + 32 * i), ld_shared_u32(base + 4 * (t + 32 * i)))
""",
                {"x": x, "y": np.zeros(LANES * words, np.uint32)},
                {"y": expected},
            )
    yield IntrinsicCase(
        "cp_async_in_groups",
        """
for i in range(3):
    cp_async_4(base + 128 * i + 4 * t, x + 128 * i + 4 * t)
    cp_async_commit()
cp_async_wait(2)
cuda.syncthreads()
st_global_u32(y + 4 * t, ld_shared_u32(base + 4 * t))
cp_async_wait(0)
cuda.syncthreads()
for i in range(1, 3):
    st_global_u32(y + 128 * i + 4 * t, ld_shared_u32(base + 128 * i + 4 * t))
""",
        {"x": x, "y": np.zeros(96, np.uint32)},
        {"y": x[:96]},
    )


# --- threads -------------------------------------------------------------------------------------------------


def shuffles() -> Iterator[IntrinsicCase]:
    sources: dict[str, tuple[int, Callable[[int], int]]] = {
        "bfly": (5, lambda lane: lane ^ 5),
        "up": (3, lambda lane: lane - 3 if lane >= 3 else lane),
        "idx": (9, lambda lane: 9),
    }
    for word, dtype in (("u32", np.uint32), ("f32", np.float32), ("u64", np.uint64), ("f64", np.float64)):
        x = small(LANES).astype(dtype) if word.startswith("f") else random_words(LANES).astype(dtype) * dtype(0x10001)
        for how, (operand, source) in sources.items():
            if how == "idx" and not word.startswith("f"):
                continue  # no kernel has it
            # 64 bits have no load of their own: they come in halves, through shared memory
            if word == "f64":
                body = f"""
v = float64(ld_global_f32(x + 4 * t))
st_global_f32(y + 4 * t, float32(shfl_{how}_f64(v, {operand})))
"""
                given = x.astype(np.float32)
            elif word == "u64":
                body = f"""
low, high = ld_global_v2_u32(x + 8 * t)
v = shfl_{how}_u64(low | high << 32, {operand})
st_global_v2_u32(y + 8 * t, v, v >> 32)
"""
                given = x
            else:
                body = f"""
st_global_{word}(y + 4 * t, shfl_{how}_{word}(ld_global_{word}(x + 4 * t), {operand}))
"""
                given = x
            yield IntrinsicCase(
                f"shfl_{how}_{word}", body, {"x": given, "y": np.zeros_like(given)},
                {"y": given[[source(lane) for lane in range(LANES)]]},
            )  # fmt: skip


def meetings() -> Iterator[IntrinsicCase]:
    yield IntrinsicCase(
        "ballot",
        "st_global_u32(y + 4 * t, ballot(t % 3 == 1))",
        {"y": np.zeros(LANES, np.uint32)},
        {"y": np.full(LANES, sum(1 << i for i in range(1, LANES, 3)), np.uint32)},
    )
    yield IntrinsicCase(
        "barriers_by_number",
        """
if t < 32:
    st_shared_u32(base + 4 * t, t * t)
if t < 96:
    bar_sync(2, 96)
if 32 <= t < 96:
    st_global_u32(y + 4 * (t - 32), ld_shared_u32(base + 4 * ((95 - t) % 32)))
""",
        {"y": np.zeros(64, np.uint32)},
        {"y": ((np.arange(64)[::-1] % 32) ** 2).astype(np.uint32)},
        threads=128,
    )
    yield IntrinsicCase(
        "wait_global_u32",
        """
if t < 32:
    wait_global_u32(x, 32)
    st_global_u32(y + 4 * t, ld_global_u32(x))
else:
    fence_gpu()
    atom_add_global_u32(x, 1)
""",
        {"x": np.zeros(1, np.uint32), "y": np.zeros(LANES, np.uint32)},
        {"y": np.full(LANES, 32, np.uint32)},
        threads=64,
    )


# --- numbers -------------------------------------------------------------------------------------------------

_NUMBERS = np.array(
    [0, -0.0, 1, -1, 1 + 2**-8, 1 + 3 * 2**-9, 1 + 2**-11, 1 + 3 * 2**-12, 65504, 65520, 1e-8, 6e-8, 3e38, 3.4e38,
     np.inf, -np.inf, 1 + 2**-10 + 2**-11, 1 - 2**-12, 1e-40, -2.5, np.pi, 1 / 3, 2**-24, 2**-25, 1.5 * 2**-24, 1000.5,
     -7.75, 0.1, 123456.7, -1e-5, 5e-39, 0.7],
    np.float32,
)  # fmt: skip


def rounded(x: np.ndarray, bits: int, away: bool = False) -> np.ndarray:
    """The bits of float32 numbers, without their last ``bits``: rounded to nearest, ties to even or ``away``."""
    found = []
    for word in x.view(np.uint32):
        low, kept = int(word) & ((1 << bits) - 1), int(word) >> bits
        half = 1 << (bits - 1)
        if int(word) & 0x7F800000 != 0x7F800000 and (low > half or (low == half and (away or kept & 1))):
            kept += 1
        found.append(kept << bits)
    return np.array(found, np.uint32)


def numbers() -> Iterator[IntrinsicCase]:
    x = _NUMBERS
    with np.errstate(over="ignore"):
        half = x.astype(np.float16).view(np.uint16).astype(np.uint32)
    brain = rounded(x, 16) >> np.uint32(16)
    for name, bits in (("pack_f16", half), ("pack_bf16", brain)):
        yield IntrinsicCase(
            name,
            f"st_global_u32(y + 4 * t, {name}(ld_global_f32(x + 4 * t), ld_global_f32(x + 4 * (31 - t))))",
            {"x": x, "y": np.zeros(LANES, np.uint32)},
            {"y": bits | bits[::-1] << np.uint32(16)},
        )
    yield IntrinsicCase(
        "to_tf32",
        "st_global_u32(y + 4 * t, to_tf32(ld_global_f32(x + 4 * t)))",
        {"x": x, "y": np.zeros(LANES, np.uint32)},
        {"y": rounded(x, 13, away=True)},
    )
    yield IntrinsicCase(
        "float_bits_and_back",
        "st_global_f32(y + 4 * t, bits_float(float_bits(ld_global_f32(x + 4 * t)) ^ 1))",
        {"x": x, "y": np.zeros(LANES, np.float32)},
        {"y": x.view(np.uint32) ^ np.uint32(1)},
    )
    z = np.linspace(-30, 30, LANES, dtype=np.float32)
    yield IntrinsicCase(
        "ex2",
        "st_global_f32(y + 4 * t, ex2(ld_global_f32(x + 4 * t)))",
        {"x": z, "y": np.zeros(LANES, np.float32)},
        {"y": np.exp2(z.astype(np.float64)).astype(np.float32)},
        ulp=2,
    )


FAMILIES: list[Callable[[], Iterator[IntrinsicCase]]] = [
    products, tf32_is_cut, matrices, accesses, atomics, copies, shuffles, meetings, numbers,
]  # fmt: skip
