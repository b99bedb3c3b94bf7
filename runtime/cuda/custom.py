"""Lowering a user's kernel: its source as it is, and a GPU kernel that calls it on arrays.

One that fills a range of its outputs is called by a thread for each entry of their first axis; any other by a single
thread, for nothing says what its parts are.
"""

from __future__ import annotations

from dataclasses import replace

from engine import dims
from engine.dims import Size
from engine.program import Kernel, Lowered
from engine.schedule import Custom, KernelSpec
from runtime.emit import ArgTable, call, computed_type, indent, key_of
from runtime.user_kernels import attribute_text

_THREADS = 128


def lower_custom(spec: KernelSpec, core: Custom) -> Lowered:
    """One call of as many threads as the user's function has parts."""
    table = ArgTable()
    user = core.function
    arrays = []
    for access, shape in zip((*spec.reads, *spec.writes), core.shapes, strict=True):
        pointer = table.pointer(access.buffer, access.offset * access.dtype.itemsize)
        sizes = "".join(f"{table.size(n)}, " for n in shape)
        arrays.append(f"_tenon.array_{computed_type(access.dtype)}({pointer}, ({sizes}))")
    attrs = [f"{name}={attribute_text(value, table)}" for name, value in core.attrs]
    parts: Size = core.shapes[len(spec.reads)][0] if user.ranged else 1
    bounds = ["part", "part + 1"] if user.ranged else []
    name = f"custom_{spec.name}"
    while name in user.source:
        name += "_"
    count = table.size(parts)
    source = "\n".join([
        "import runtime.cuda.arrays as _tenon",
        "",
        user.source,
        "",
        *(f"{f} = _tenon.compiled({f})" for f in user.functions),
        "",
        f"def {name}({', '.join(['guard', 'error', *table.names])}):",
        *indent([
            "if _tenon.skipped(guard, error):",
            "    return",
            f"part = _tenon.cuda.blockIdx.x * {_THREADS} + _tenon.cuda.threadIdx.x",
            f"if part < {count}:",
            f"    {user.functions[-1]}({', '.join([*arrays, *bounds, *attrs])})",
        ]),
        "",
    ])  # fmt: skip
    code = Kernel(name, key_of(source, _THREADS), source, threads=_THREADS)
    indexed = any(a.dtype.is_integer for a in spec.reads)  # it may take them for places
    return Lowered((replace(call(spec, code, table, dims.ceil_div(parts, _THREADS)), indexed=indexed),), (code,))
