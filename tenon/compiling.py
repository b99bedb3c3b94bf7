"""``tn.compile``: from a model or a function to an executable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.errors import TenonError
from tenon.executable import Executable
from tenon.levels import checked_level
from tenon.specs import as_specs
from tenon.tracing import trace


def compile(
    function: Callable[..., Any],
    *specs: object,
    level: int | None = None,
    target: str = "cpu",
    name: str | None = None,
) -> Executable:
    """Trace ``function`` once on inputs of these specs and make one program of it.

    ``function`` is a Module (its forward, in the mode that it is in: train or eval) or any function of Tensors that
    returns Tensors, alone or in tuples, lists and dicts. ``level`` 0 lowers op by op, 1 simplifies, 2 chooses
    layouts and fuses too, and 3 also rounds otherwise where that is faster (quotients become products with reciprocals,
    within 1.5 units in the last place; see passes/simplify/relaxed.py); by default what ``TENON_OPT`` or ``tn.config``
    says, else 2. ``target`` is ``"cpu"`` or ``"reference"``
    (NumPy). ``name`` is what dumps and reports call it; by default the function's own.

    Raises TenonError where the specs, the options or what the function does cannot be compiled.
    """
    if not callable(function) or isinstance(function, type):
        raise TenonError(
            f"tn.compile takes a Module or a function of Tensors, not {type(function).__name__} {function!r:.60}"
        )
    checked_level(level)  # before a trace that may take long
    found = as_specs(specs, "tn.compile")
    return Executable(trace(function, found, name), level, target)
