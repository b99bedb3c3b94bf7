"""What the kernels of row and of column reductions share: argument table, scratch and body, and walks over chunks."""

from __future__ import annotations

from engine import dims
from engine.dims import Size
from engine.schedule import KernelSpec
from runtime.cpu.scratch import ScratchLayout
from runtime.emit import ArgTable, BodyEmitter

SUM_BLOCK = 4096
"""Elements added up before their sum goes to the outer sum: errors grow with the blocks, not with the elements."""


class ReductionKernel:
    """What the kernels of rows and of columns have in common: ``spec`` with its argument table, scratch and body."""

    def __init__(self, spec: KernelSpec):
        self.spec = spec
        self.table = ArgTable()
        self.scratch = ScratchLayout()
        self.emitter = BodyEmitter(spec.body, spec.reads, spec.writes, len(spec.axes), self.table,
                                   chunk="chunk" if spec.split is not None else "0", reduced=spec.reduced)  # fmt: skip

    def varies(self, name: str) -> bool:
        """Whether a statement differs along the reduced axes."""
        return bool(self.emitter.depends_on(name) & set(self.spec.reduced))

    def extent(self, axis: int) -> Size:
        """The length of a reduced axis, in one chunk where it is split."""
        split = self.spec.split
        return split if split is not None and axis == self.spec.reduced[0] else self.spec.axes[axis]

    def points(self) -> Size:
        """The points that are reduced to one, in one chunk."""
        return dims.product(self.extent(axis) for axis in self.spec.reduced)

    def bounds(self, axis: int) -> tuple[str, str]:
        """Where a task's walk over a reduced axis begins and ends."""
        size = self.table.size(self.spec.axes[axis])
        if self.spec.split is None or axis != self.spec.reduced[0]:
            return "0", size
        chunk = self.table.size(self.spec.split)
        return f"chunk * {chunk}", f"min((chunk + 1) * {chunk}, {size})"

    def split_task(self, blocks: Size) -> list[str]:
        """Lines that take ``task`` apart into the chunk of a split reduction and the block of kept points."""
        count = self.table.size(blocks)
        if count == "1":
            return ["chunk = task", "block = 0"]
        return [f"chunk = quotient(task, {count})", f"block = task - chunk * {count}"]
