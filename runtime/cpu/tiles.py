"""The register tiles of the microkernel for each vector width: what lowering must know without importing numba."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from engine.dtypes import DType
from engine.records import dataclass

LINE = 64
"""Bytes of a cache line."""


@dataclass(frozen=True)
class Tile:
    """``rows`` x ``vectors`` vector registers of ``lanes`` elements hold one block of the result."""

    rows: int
    vectors: int
    lanes: int

    @property
    def columns(self) -> int:
        return self.vectors * self.lanes

    @property
    def heights(self) -> tuple[int, ...]:
        """The numbers of rows that there are microkernels for: whole tiles, and what a block ends with."""
        return tuple(dict.fromkeys(n for n in (self.rows, self.rows // 2, 1) if n))

    @property
    def short_heights(self) -> tuple[int, ...]:
        """The same for short blocks, of which what they end with is a good part."""
        return tuple(dict.fromkeys(n for n in (self.rows, self.rows // 2, self.rows // 4, 1) if n))

    @property
    def narrow(self) -> Tile:
        """One vector wide, for columns that fill no more."""
        return replace(self, vectors=1)

    @property
    def flat(self) -> Tile:
        """One row and many columns, for a matrix that is met by a single vector and streams past."""
        return replace(self, rows=1, vectors=8)

    def name(self, dtype: DType, rows: int, unit_k: bool, packed: bool, way: str = "") -> str:
        """The microkernel (see there) of this width and ``rows`` rows, as generated source imports it. ``way`` is
        ``jumps`` or ``near`` where packed rows of B are walked otherwise, ``taps`` where A's elements are."""
        flags = ("_unit" if unit_k else "") + (f"_{way or 'packed'}" if packed else "")
        return f"tile_{dtype}_{rows}x{self.vectors}x{self.lanes}{flags}"


# (vector bytes, vector registers): rows x vectors. The accumulators, one row of B and a broadcast fit the registers;
# there are enough accumulators to hide the latency of the multiply-adds, and more multiply-adds than loads.
_SHAPES = {(64, 32): (8, 2), (32, 16): (6, 2), (16, 32): (8, 3), (16, 16): (4, 2)}


@cache
def host_features() -> tuple[str, frozenset[str]]:
    """The architecture (``x86_64``, ``aarch64`` ...) and the CPU features that this process may use."""
    import llvmlite.binding as llvm

    features = frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)
    return llvm.get_process_triple().split("-")[0], features


@cache
def host_vector_bytes() -> int:
    """The width of a vector register: 64 with AVX-512, 32 with AVX2, else 16."""
    architecture, features = host_features()
    if architecture in ("x86_64", "amd64", "i686"):
        if "avx512f" in features:
            return 64
        if "avx2" in features:
            return 32
    return 16


@cache
def multiplies_halves() -> bool:
    """Whether vectors of the width that is used are multiplied half by half, so that two of half the width take no
    longer than one: so the first of AMD's processors with AVX-512 do it."""
    import llvmlite.binding as llvm

    return host_vector_bytes() == 64 and llvm.get_host_cpu_name() == "znver4"


def host_registers() -> int:
    """How many vector registers there are."""
    return 32 if host_vector_bytes() == 64 or host_features()[0] in ("aarch64", "arm64") else 16


def host_tile(dtype: DType) -> Tile:
    """The tile for ``dtype`` (f32 or f64) on this machine."""
    width = host_vector_bytes()
    rows, vectors = _SHAPES[width, host_registers()]
    return Tile(rows, vectors, width // dtype.itemsize)


def transpose_name(dtype: DType, lanes: int) -> str:
    """The transposition (see transpose.py) of ``lanes`` x ``lanes`` elements, as generated source imports it."""
    return f"transpose_{dtype}_{lanes}"


def dot_name(dtype: DType, size: int) -> str:
    """The product (see dot.py) of two vectors of ``size`` elements, as generated source imports it."""
    return f"dot_{dtype}_{size}x{host_vector_bytes() // dtype.itemsize}"
