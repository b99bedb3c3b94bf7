"""The options of a compilation as users give them, checked: the level, the precision, autotuning."""

from __future__ import annotations

from engine import settings
from engine.dtypes import DType, bf16, f16, f32
from engine.errors import TenonError, UnsupportedError
from tenon import backends

LEVELS = (0, 1, 2, 3)
PRECISIONS = {"fp32": f32, "bf16": bf16, "fp16": f16}


def checked_level(level: int | None) -> int:
    """``level``, or where it is None what ``TENON_OPT`` or ``tn.config`` says. Raises TenonError for what is none."""
    if level is None:
        return settings.get("opt")
    if isinstance(level, bool) or level not in LEVELS:
        raise TenonError(f"level is {level!r}; expected one of {', '.join(map(str, LEVELS))}")
    return level


def checked_precision(precision: str) -> DType:
    """The dtype that ``precision`` has contractions compute in. Raises TenonError for what is none."""
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise TenonError(f"precision is {precision!r}; expected one of {', '.join(map(repr, PRECISIONS))}")
    return PRECISIONS[precision]


def checked_autotune(autotune: bool | None, target: str) -> bool:
    """``autotune``, or where it is None what ``TENON_AUTOTUNE`` or ``tn.config`` says, which targets whose kernels
    cannot be measured pass over. Raises TenonError for what is no bool, UnsupportedError where one of these targets is
    asked for it."""
    if autotune is None:
        return settings.get("autotune")
    if not isinstance(autotune, bool):
        raise TenonError(f"autotune is {autotune!r}; expected True or False")
    why = backends.get(target).untunable() if autotune else ""
    if why:
        raise UnsupportedError(f"autotune=True with target={target!r} has nothing to measure: {why}")
    return autotune
