"""Kernels in which every thread takes one point of a space."""

from __future__ import annotations

from collections.abc import Iterable

from engine.dims import Size, ceil_div
from runtime.emit import ArgTable, indent


def each_point(table: ArgTable, points: Size, threads: int, lines: Iterable[str]) -> tuple[list[str], Size]:
    """``lines``, in which ``point`` is a number below ``points``, as those of a kernel with ``threads`` threads a
    block, and how many blocks there are. They must not wait for other threads: some have no point."""
    head = [f"point = cuda.blockIdx.x * {threads} + cuda.threadIdx.x", f"if point < {table.size(points)}:"]
    return [*head, *indent(lines)], ceil_div(points, threads)
