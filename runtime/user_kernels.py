"""What every backend writes around a user's kernel: what the kernel is called with, as text."""

from __future__ import annotations

import math

from engine.dims import Expr
from engine.schedule import Custom, KernelSpec
from runtime.emit import ArgTable, computed_type


def arguments(spec: KernelSpec, core: Custom, table: ArgTable) -> tuple[list[str], list[str]]:
    """The arrays that the kernel of ``core`` reads and writes, and its attributes, as expressions; ``_tenon`` is the
    module of the backend that knows about arrays."""
    arrays = []
    for access, shape in zip((*spec.reads, *spec.writes), core.shapes, strict=True):
        pointer = table.pointer(access.buffer, access.offset * access.dtype.itemsize)
        sizes = "".join(f"{table.size(n)}, " for n in shape)
        arrays.append(f"_tenon.array_{computed_type(access.dtype)}({pointer}, ({sizes}))")
    return arrays, [f"{name}={_attribute(value, table)}" for name, value in core.attrs]


def wrapper_name(spec: KernelSpec, core: Custom) -> str:
    """A name for the function around the kernel of ``core`` that its source does not use."""
    name = f"custom_{spec.name}"
    while name in core.function.source:
        name += "_"
    return name


def indexes(spec: KernelSpec) -> bool:
    """Whether the kernel may take what it reads for places in its arrays."""
    return any(a.dtype.is_integer for a in spec.reads)


def _attribute(value: object, table: ArgTable) -> str:
    if isinstance(value, Expr):
        return table.size(value)
    if isinstance(value, tuple):
        return f"({''.join(f'{_attribute(v, table)}, ' for v in value)})"
    if isinstance(value, float) and not math.isfinite(value):
        return f"_tenon.{'nan' if value != value else 'inf' if value > 0 else 'minus_inf'}"
    return repr(value)
