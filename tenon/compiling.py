"""``tn.compile``: from a model or a function to an executable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from engine import settings
from engine.errors import TenonError
from engine.options import Options
from tenon.executable import Executable
from tenon.memory import bytes_of, limit_at
from tenon.options import checked_autotune, checked_level, checked_precision
from tenon.specs import as_specs
from tenon.tracing import trace


def compile(
    function: Callable[..., Any],
    *specs: object,
    level: int | None = None,
    target: str = "cpu",
    name: str | None = None,
    memory_limit: int | str | None = None,
    memory_at: Mapping[str, int] | None = None,
    precision: str = "fp32",
    autotune: bool | None = None,
) -> Executable:
    """Trace ``function`` once on inputs of these specs and make one program of it.

    ``function`` is a Module (its forward, in the mode that it is in: train or eval) or any function of Tensors that
    returns Tensors, alone or in tuples, lists and dicts. ``level`` 0 lowers op by op, 1 simplifies, 2 chooses
    layouts and fuses too, and 3 also rounds otherwise where that is faster (quotients become products with reciprocals,
    within 1.5 units in the last place; see passes/simplify/relaxed.py; 3 x 3 convolutions go by Winograd's algorithm
    where their weights stay, with errors some ten times as large; see runtime/cpu/conv_winograd.py); by default what
    ``TENON_OPT`` or ``tn.config`` says, else 2. ``target`` is ``"cpu"``, ``"cuda"`` (the first GPU; ``"cuda:1"`` is the
    second) or ``"reference"`` (NumPy). ``name`` is what dumps and reports call it; by default the function's own.

    ``memory_limit``, bytes or a text such as ``"200 MB"``, is how much memory the program may take for what it computes
    on the way (``exe.memory().arena``), at the sizes of its dims that ``memory_at`` gives: ``{"B": 64}``. Where it
    would take more, it computes some values twice instead of keeping them; results stay the same.

    ``precision`` ``"bf16"`` or ``"fp16"`` has matrix products, convolutions, attention and recurrences compute in 16
    bits, with sums in float32; what must be exact stays in float32, and so do parameters, gradients with respect to
    them, and results: see passes/mixed_precision.py.

    ``autotune=True`` measures what is otherwise estimated: which blocks, tiles and algorithms of each product,
    convolution and attention are the fastest on this machine and its threads, at the sizes of the first call (where
    sizes are not symbolic, at once). It takes seconds, and is kept in the cache; other sizes run the same program. By
    default what ``TENON_AUTOTUNE`` or ``tn.config`` says, else no. See docs/autotuning.md.

    Raises TenonError where the specs, the options or what the function does cannot be compiled.
    """
    if not callable(function) or isinstance(function, type):
        raise TenonError(
            f"tn.compile takes a Module or a function of Tensors, not {type(function).__name__} {function!r:.60}"
        )
    options = Options(  # checked before a trace that may take long
        checked_level(level),
        checked_precision(precision),
        settings.get("float32_matmul_precision"),
        autotune=checked_autotune(autotune, target),
    )
    found = as_specs(specs, "tn.compile")
    nbytes = None if memory_limit is None else bytes_of(memory_limit)
    traced = trace(function, found, name)
    if nbytes is not None:
        options = replace(options, limit=limit_at(traced.graph, nbytes, memory_at or {}, target))
    return Executable(traced, target, options)
