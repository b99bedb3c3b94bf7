"""What the kernels that work along an axis share: the other axes as tasks, vectors across neighbouring lines."""

from __future__ import annotations

from collections.abc import Collection

from engine.dims import Size, ceil_div, product
from engine.records import dataclass
from engine.schedule import Access, KernelSpec
from runtime.emit import ArgTable, loop
from runtime.tasks import outer_indices

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
