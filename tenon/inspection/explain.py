"""`tn.explain`: what became of a program, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.errors import TenonError
from tenon.executable import Executable
from tenon.functions import Function

if TYPE_CHECKING:
    from tenon.inspection.explanation import Explanation


def explain(what: Executable | Function, /, *inputs: Any) -> Explanation:
    """What became of a program, and why: what was fused into which kernels and which rule kept others apart, what is
    computed more than once, what is copied, which layouts were chosen, what was compiled and why the cache did not have
    it. With ``inputs`` it is profiled too, and the explanation says what would make it faster on those.

    Runs the passes again. Raises UnsupportedError on the reference, which has no program, TenonError for anything that
    is no compiled program, and what a call on ``inputs`` raises.
    """
    from tenon.inspection.explaining import explained

    executable = what.executable if isinstance(what, Function) else what
    if not isinstance(executable, Executable):
        raise TenonError(f"tn.explain takes a compiled program, not {type(what).__name__} {what!r:.60}")
    return explained(executable, inputs)
