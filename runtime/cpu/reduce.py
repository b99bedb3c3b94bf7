"""Lowering a reduction: by rows or by columns, as what is reduced lies in memory."""

from __future__ import annotations

from engine.program import Lowered
from engine.schedule import KernelSpec
from runtime.axes import collapse
from runtime.cpu.columns import lower_columns
from runtime.cpu.rows import lower_rows


def lower_reduction(spec: KernelSpec) -> Lowered:
    """A kernel for ``spec``, which has reduced axes and no core."""
    flat = collapse(spec)
    columns = flat.reduced and flat.reduced[0] == 0 and len(flat.reduced) < len(flat.axes)
    return lower_columns(flat) if columns else lower_rows(flat)
