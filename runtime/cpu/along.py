"""What the kernels that work along an axis share: the other axes as tasks, vectors across neighbouring lines."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from engine.dims import Size, ceil_div, product
from engine.schedule import Access, KernelSpec
from runtime.cpu.emit import ArgTable, load, loop, store, times, total
from runtime.cpu.loops import outer_indices

LANES = 64
"""Neighbouring lines that one task walks together."""


@dataclass(frozen=True)
class Lines:
    """The lines of a space along ``inside`` axes: one at every point of the axes ``outer``, and of ``lane``, the axis
    along which neighbours lie side by side in memory (None where none does)."""

    outer: tuple[int, ...]
    lane: int | None
    inside: tuple[int, ...]

    @staticmethod
    def of(spec: KernelSpec, inside: Collection[int], guide: Access) -> Lines:
        """``guide`` is the access whose memory decides."""
        kept = [i for i, n in enumerate(spec.axes) if i not in inside and n != 1]
        lane = next((i for i in kept if guide.strides[i] == 1), None)
        outer = tuple(i for i in kept if i != lane)
        return Lines(outer, lane, tuple(sorted(inside)))

    def tasks(self, spec: KernelSpec) -> Size:
        count = product(spec.axes[i] for i in self.outer)
        return count if self.lane is None else count * ceil_div(spec.axes[self.lane], LANES)

    def loops(self, spec: KernelSpec, table: ArgTable, task: list[str]) -> list[str]:
        """``task`` for each of the tasks lo..hi. In it ``i<axis>`` are the indices of the outer axes, and ``first`` and
        ``last`` bound those of the lane."""
        head: list[str] = []
        number = "task"
        if self.lane is not None:
            size, lanes = table.size(spec.axes[self.lane]), table.size(LANES)
            pieces = table.size(ceil_div(spec.axes[self.lane], LANES))
            head += [f"line = quotient(task, {pieces})", f"first = (task - line * {pieces}) * {lanes}"]
            head += [f"last = min(first + {lanes}, {size})"]
            number = "line"
        split, names = outer_indices(table, tuple(spec.axes[i] for i in self.outer), number, "o")
        head += split
        head += [f"i{axis} = {name}" for axis, name in zip(self.outer, names, strict=True)]
        return loop("task", "lo", "hi", head + task)


class Element:
    """An access as source text: where its element lies for the indices ``i<axis>`` that are in scope."""

    def __init__(self, access: Access, table: ArgTable):
        self.access = access
        self.pointer = table.pointer(access.buffer, access.offset * access.dtype.itemsize)
        self.scope = table.scope(access.buffer)
        self.strides = [table.size(s) for s in access.strides]

    def at(self, axes: Collection[int], *further: str) -> str:
        """The offset at the indices of ``axes``, and ``further`` terms."""
        return total(*(times(f"i{a}", self.strides[a]) for a in axes), *further)

    def load(self, offset: str) -> str:
        return load(self.access.dtype, self.pointer, offset, self.scope)

    def store(self, offset: str, value: str) -> str:
        return store(self.access.dtype, self.pointer, offset, value, self.scope)
