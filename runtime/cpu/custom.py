"""Lowering a user's kernel: its source as it is, and a function that calls it on arrays."""

from __future__ import annotations

from dataclasses import replace

from engine.program import Kernel, Lowered
from engine.schedule import Custom, KernelSpec
from runtime.emit import ArgTable, call, computed_type, indent, key_of
from runtime.user_kernels import attribute_text


def lower_custom(spec: KernelSpec, core: Custom) -> Lowered:
    """One call: of a single task, or of one for each entry of the outputs' first axis."""
    table = ArgTable()
    user = core.function
    arrays = []
    for access, shape in zip((*spec.reads, *spec.writes), core.shapes, strict=True):
        pointer = table.pointer(access.buffer, access.offset * access.dtype.itemsize)
        sizes = "".join(f"{table.size(n)}, " for n in shape)
        arrays.append(f"_tenon.array_{computed_type(access.dtype)}({pointer}, ({sizes}))")
    attrs = [f"{name}={attribute_text(value, table)}" for name, value in core.attrs]
    bounds = [*(["lo", "hi"] if user.ranged else []), *(["0", "1"] if user.team else [])]
    name = f"custom_{spec.name}"
    while name in user.source:
        name += "_"
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
    indexed = any(a.dtype.is_integer for a in spec.reads)  # it may take them for places
    return Lowered((replace(call(spec, code, table, tasks), indexed=indexed),), (code,))
