"""Lowering recurrences on the GPU: which kernel serves which dtype and size."""

from __future__ import annotations

from engine.program import Lowered
from engine.schedule import KernelSpec, Recurrence
from runtime.cuda.recurrence_plain import lower_recurrence_plain


def lower_recurrence(spec: KernelSpec, core: Recurrence) -> Lowered:
    """The calls for ``spec``, whose core is ``core``."""
    return lower_recurrence_plain(spec, core)
