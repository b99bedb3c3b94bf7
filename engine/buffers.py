"""The memory that schedules and programs speak of."""

from __future__ import annotations

from dataclasses import dataclass

from engine.dims import Size
from engine.dtypes import DType


@dataclass(frozen=True)
class Buffer:
    """``size`` elements of memory.

    ``kind``: ``input`` and ``output`` (the caller's arrays), ``state`` (a cell, by name), ``const`` (literal data),
    ``temp`` (in the arena), ``packed`` (derived from state alone, refreshed when that state changes).
    """

    name: str
    kind: str
    dtype: DType
    size: Size
