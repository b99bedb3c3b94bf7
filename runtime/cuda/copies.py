"""Copying an operand's tiles from global to shared memory, each thread a chunk of 16 bytes at a time.

How many bytes one asynchronous copy may move depends on how memory is aligned: :func:`copy_width` says what is known.
Elements of 2 bytes that lie oddly, or with gaps between them, are loaded and stored one by one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from engine.dims import Expr, Size
from engine.records import dataclass
from runtime.cuda.tiles import CHUNK, SharedTile
from runtime.emit import indent, times


def divisor_of(size: Size) -> int:
    """The greatest number known to divide ``size`` whatever its dims are; 0 for the size 0."""
    if isinstance(size, Expr):
        return math.gcd(*(factor for _, factor in size.terms))
    return abs(size)


def copy_width(sizes: Iterable[Size], itemsize: int) -> int:
    """Bytes that an asynchronous copy may move where addresses are sums of multiples of ``sizes``, in elements: 16, 8
    or 4; 0 where not even 4 bytes are known to be aligned."""
    aligned = math.gcd(CHUNK, *(divisor_of(size) * itemsize for size in sizes))
    return aligned if aligned >= 4 else 0


@dataclass(frozen=True)
class MatrixLoader:
    """The tiles of a matrix in memory (see ``mainloop.Loader``).

    ``name`` begins all names in the lines; the expressions ``<name>_base`` (the address of the element at k = 0 of the
    tile's first row or column), ``<name>_stride`` and ``<name>_k`` (elements from one row, or column, to the next and
    along k) must be in scope. ``first`` and ``limit`` are the expressions of the tile's first row and of the end of
    rows, ``k_limit`` that of k. ``width`` is as :func:`copy_width` says, ``gap`` the stride inside a chunk, ``1``
    unless neither way is contiguous.
    """

    name: str
    shared: SharedTile
    threads: int
    first: str
    limit: str
    k_limit: str
    width: int = CHUNK
    gap: str = "1"

    @property
    def depth(self) -> int:
        """Elements of k in a stage."""
        return self.shared.chunks * self.shared.elements if self.shared.along_k else self.shared.rows

    @property
    def rows_at_once(self) -> int:
        return max(self.threads // self.shared.chunks, 1)

    @property
    def passes(self) -> int:
        return -(-self.shared.rows // self.rows_at_once)

    def setup(self) -> list[str]:
        name, size, elements, apart = self.name, self.shared.itemsize, self.shared.elements, self.rows_at_once
        lines = [
            f"{name}_copy_row = thread // {self.shared.chunks}",
            f"{name}_copy_chunk = thread % {self.shared.chunks}",
            f"{name}_source = {name}_base + {name}_copy_chunk * {times(str(elements), self.gap)} * {size}",
        ]
        if self.shared.along_k:
            # Rows past the end are the last one again: what becomes of them is not stored.
            return [
                *lines,
                f"{name}_next = {times(str(self.depth), self.gap)} * {size}",
                f"{name}_rows = cuda.local.array({self.passes}, int64)",
                f"for i in range({self.passes}):",
                f"    row = min({name}_copy_row + i * {apart}, {self.limit} - 1 - {self.first})",
                f"    {name}_rows[i] = row * {name}_stride * {size}",
            ]
        return [
            *lines,
            f"{name}_source += {name}_copy_row * {name}_k * {size}",
            f"{name}_below = {apart} * {name}_k * {size}",
            f"{name}_next = {self.depth} * {name}_k * {size}",
            *self._inside(f"{self.limit} - {self.first}"),
        ]

    def _inside(self, left: str) -> list[str]:
        """The line that sets how many bytes of this thread's chunks are inside, ``left`` elements being left."""
        shared = self.shared
        given = f"({left} - {self.name}_copy_chunk * {shared.elements}) * {shared.itemsize}"
        return [f"{self.name}_inside = min(max({given}, 0), {CHUNK})"]

    def copy(self, stage: str) -> list[str]:
        name, shared = self.name, self.shared
        each = [
            f"row = {name}_copy_row + i * {self.rows_at_once}",
            f"to = {stage} + row * {shared.row} + ({name}_copy_chunk ^ ({shared.turn('row')})) * {CHUNK}",
        ]
        if shared.along_k:
            before = self._inside(f"{self.k_limit} - k_tile * {self.depth}")
            each += self._chunk(f"{name}_source + {name}_rows[i]", f"{name}_inside")
        else:
            before = [f"left = {self.k_limit} - k_tile * {self.depth}"]
            each += [
                f"inside = {name}_inside if row < left else 0",
                *self._chunk(f"{name}_source + i * {name}_below", "inside"),
            ]
        if shared.rows % self.rows_at_once:
            each = [each[0], f"if row < {shared.rows}:", *indent(each[1:])]
        return [*before, f"for i in range({self.passes}):", *indent(each), f"{name}_source += {name}_next"]

    def _chunk(self, source: str, inside: str) -> list[str]:
        """Lines that copy the first ``inside`` bytes of a chunk from ``source`` to shared address ``to``, and zeros
        behind them."""
        size = self.shared.itemsize
        if self.width == CHUNK:
            return [f"cp_async_16_zero(to, {source}, {inside})"]
        if self.width:
            step = str(self.width) if self.gap == "1" else f"{self.gap} * {size}"
            return [
                f"for piece in range({CHUNK // self.width}):",
                f"    part = min(max({inside} - piece * {self.width}, 0), {self.width})",
                f"    cp_async_{self.width}_zero(to + piece * {self.width}, {source} + piece * {step}, part)",
            ]
        return [
            f"for piece in range({self.shared.elements}):",
            "    element = 0",
            f"    if piece * {size} < {inside}:",
            f"        element = ld_global_u16({source} + piece * {times(self.gap, str(size))})",
            f"    st_shared_u16(to + piece * {size}, element)",
        ]
