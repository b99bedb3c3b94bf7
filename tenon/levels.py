"""Optimisation levels."""

from __future__ import annotations

from engine import settings
from engine.errors import TenonError

LEVELS = (0, 1, 2, 3)


def checked_level(level: int | None) -> int:
    """``level``, or where it is None what ``TENON_OPT`` or ``tn.config`` says. Raises TenonError for what is none."""
    if level is None:
        return settings.get("opt")
    if isinstance(level, bool) or level not in LEVELS:
        raise TenonError(f"level is {level!r}; expected one of {', '.join(map(str, LEVELS))}")
    return level
