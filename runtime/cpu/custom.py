"""Lowering a user's kernel: its source as it is, and a function that calls it on arrays."""

from __future__ import annotations

from dataclasses import replace

from engine.program import Kernel, Lowered
from engine.schedule import Custom, KernelSpec
from runtime.emit import ArgTable, call, indent, key_of
from runtime.user_kernels import arguments, indexes, wrapper_name


def lower_custom(spec: KernelSpec, core: Custom) -> Lowered:
    """One call: of a single task, or of one for each entry of the outputs' first axis."""
    table = ArgTable()
    user = core.function
    arrays, attrs = arguments(spec, core, table)
    bounds = [*(["lo", "hi"] if user.ranged else []), *(["0", "1"] if user.team else [])]
    name = wrapper_name(spec, core)
    prologue = [line.replace("= slot(", "= _tenon.slot(") for line in table.prologue()]
    source = "\n".join(
        [
            "import runtime.cpu.arrays as _tenon",
            "",
            user.source,
            "",
            *(f"{f} = _tenon.compiled({f})" for f in user.functions),
            "",
            f"def {name}(args, lo, hi, scratch):",
            *indent([*prologue, f"{user.functions[-1]}({', '.join([*arrays, *bounds, *attrs])})"]),
            "",
        ]
    )
    code = Kernel(name, key_of(source), source, libm=True)
    tasks = core.shapes[len(spec.reads)][0] if user.ranged else 1
    return Lowered((replace(call(spec, code, table, tasks), indexed=indexes(spec)),), (code,))
