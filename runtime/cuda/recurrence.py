"""Lowering recurrences on the GPU: which kernel serves which dtype and size."""

from __future__ import annotations

from engine.program import Lowered
from engine.schedule import KernelSpec, Recurrence
from runtime.cuda.recurrence_plain import lower_recurrence_plain
from runtime.cuda.recurrence_tiles import fits_tiles, lower_recurrence_tiles


def lower_recurrence(spec: KernelSpec, core: Recurrence) -> Lowered:
    """The calls for ``spec``, whose core is ``core``."""
    return (lower_recurrence_tiles if fits_tiles(spec, core) else lower_recurrence_plain)(spec, core)
