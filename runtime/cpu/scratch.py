"""A thread's private memory: where in it a kernel keeps what."""

from __future__ import annotations

from dataclasses import dataclass

from engine.memory import round_up
from runtime.emit import ArgTable


@dataclass
class ScratchLayout:
    """Scratch memory handed out in pieces, each on cache lines of its own."""

    size: int = 0

    def take(self, elements: int, itemsize: int) -> int:
        """The byte offset of room for so many elements."""
        start = self.size
        self.size += round_up(elements * itemsize)
        return start


def scratch_parts(sizes: dict[str, int]) -> dict[str, int]:
    """The byte offset in scratch memory of parts of these ``sizes``, and the ``end`` of all."""
    layout = ScratchLayout()
    offsets = {name: layout.take(size, 1) for name, size in sizes.items()}
    return offsets | {"end": layout.size}


def scratch_lines(parts: dict[str, int], table: ArgTable) -> list[str]:
    """Name the parts of the scratch memory, which are at these byte offsets."""
    starts = {name: at for name, at in parts.items() if name != "end"}
    table.declare(**{f"{name}_at": at for name, at in starts.items()})
    return [f"{name} = scratch + {name}_at" for name in starts]
