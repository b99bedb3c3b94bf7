"""The memory that schedules and programs speak of."""

from __future__ import annotations

from engine.dims import Size
from engine.dtypes import DType
from engine.records import dataclass


@dataclass(frozen=True)
class Buffer:
    """``size`` elements of memory.

    ``kind``: ``input`` and ``output`` (the caller's arrays), ``state`` (a cell, by name), ``const`` (literal data),
    ``temp`` (in the arena), ``packed`` (derived from state alone, refreshed when that state changes), ``window`` (what
    one step of a loop sees of another buffer).

    A window starts ``start`` elements into the buffer ``within`` and moves on by ``step`` elements at every step of its
    loop; where it ``alternates``, back again at every second one.
    """

    name: str
    kind: str
    dtype: DType
    size: Size
    within: str = ""
    start: Size = 0
    step: Size = 0
    alternates: bool = False
