"""An access as source text, for kernels that walk memory otherwise than their bodies do."""

from __future__ import annotations

from collections.abc import Collection

from engine.schedule import Access
from runtime.emit import ArgTable, load, store, times, total


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
