"""Lowering recurrences on the GPU: which kernel serves which dtype and size."""

from __future__ import annotations

from engine.program import Lowered
from engine.schedule import KernelSpec, Recurrence
from runtime.cuda.recurrence_hopper import hopper_of
from runtime.cuda.recurrence_plain import lower_recurrence_plain
from runtime.cuda.recurrence_tiles import tiles_of
from runtime.cuda.recurrence_walk import Multiplier, lower_walk
from runtime.cuda.tiles import by_wgmma
from runtime.tasks import typical


def lower_recurrence(spec: KernelSpec, core: Recurrence, architecture: str) -> Lowered:
    """The calls for ``spec``, whose core is ``core``."""
    by: Multiplier | None = tiles_of(spec, core, architecture)
    hopper = hopper_of(spec, core) if architecture == "sm_90a" else None
    if hopper is not None and (by is None or _is_sooner(hopper, by, typical(core.batch)) and by_wgmma()):
        by = hopper
    return lower_recurrence_plain(spec, core) if by is None else lower_walk(spec, core, by)


def _is_sooner(one: Multiplier, other: Multiplier, batch: int) -> bool:
    """Whether a step of so many examples is expected to be shorter with ``one``."""
    return one.plan.cycles(batch, one.size) < other.plan.cycles(batch, other.size)
