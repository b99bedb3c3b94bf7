"""Copies that exchange the axis which lies along memory: squares of elements turned over in vector registers.

A loop would walk one of both arrays with a stride, an element a cache line. Squares take whole vectors from either; at
the end of an axis the last square lies over the one before, and writes the same once more.
"""

from __future__ import annotations

from engine.dims import Size, ceil_div, product
from engine.dtypes import DType, f32, f64
from engine.program import Lowered, Pointer
from engine.schedule import KernelSpec
from runtime.cpu.emit import kernel
from runtime.cpu.tiles import host_tile, transpose_name
from runtime.emit import ArgTable, call, indent, load, loop, store, times, total
from runtime.tasks import coordinates

BLOCK = (64, 256)
"""Positions of a task: of the axis that is read along memory, and of the last one."""

AHEAD = 2
"""How many squares before it is written a square's lines are asked for."""


def turned_axis(flat: KernelSpec) -> int | None:
    """The axis along which a collapsed copy reads memory while it writes along the last one, if it is such a copy."""
    if [s.op for s in flat.body] != ["load", "store"] or flat.guard is not None:
        return None
    (read, *_), (write, *_) = flat.reads, flat.writes
    if read.dtype != write.dtype or read.dtype not in (f32, f64) or not flat.axes or write.strides[-1] != 1:
        return None
    return next((axis for axis, stride in enumerate(read.strides[:-1]) if stride == 1), None)


def square_lines(dtype: DType, lanes: int, source: str, step: str, target: str, stride: str, along: str,
                 across: str) -> list[str]:  # fmt: skip
    """Lines that turn ``along`` x ``across`` elements over, of each at least ``lanes``: element ``a + b * step`` of the
    address ``source`` goes to element ``a * stride + b`` of ``target``. The variables are ``a`` and ``b``."""
    size = dtype.itemsize
    return [
        f"for b0 in range(0, {across}, {lanes}):",
        f"    b = minimum(b0, {across} - {lanes})",
        f"    for a0 in range(0, {along}, {lanes}):",
        f"        a = minimum(a0, {along} - {lanes})",
        f"        {transpose_name(dtype, lanes)}({source} + (a + b * {step}) * {size}, {step} * {size}, "
        f"{target} + (a * {stride} + b) * {size}, {stride} * {size})",
    ]


def turning(dtype: DType, *lanes: int) -> dict[str, list[str]]:
    """What :func:`square_lines` import."""
    return {"runtime.cpu.transpose": [transpose_name(dtype, n) for n in lanes]}


def lower_turned(spec: KernelSpec, flat: KernelSpec, axis: int) -> Lowered:
    """The kernel of a copy whose :func:`turned_axis` is ``axis``."""
    (read, *_), (write, *_) = flat.reads, flat.writes
    size, last = read.dtype.itemsize, len(flat.axes) - 1
    lanes = host_tile(read.dtype).lanes
    table = ArgTable()
    outer = {f"i{i}": i for i in range(last) if i != axis}
    table.declare(
        source=Pointer(read.buffer, read.offset * size), target=Pointer(write.buffer, write.offset * size),
        along=flat.axes[axis], across=flat.axes[last], step=read.strides[last], stride=write.strides[axis],
        **{f"from_{name}": read.strides[i] for name, i in outer.items()},
        **{f"to_{name}": write.strides[i] for name, i in outer.items()},
    )  # fmt: skip
    space: dict[str, Size] = {name: flat.axes[i] for name, i in outer.items()}
    space |= {"block": ceil_div(flat.axes[axis], BLOCK[0]), "strip": ceil_div(flat.axes[last], BLOCK[1])}
    turn = transpose_name(read.dtype, lanes)
    value = load(read.dtype, "start", "a + b * step", table.scope(read.buffer))
    task = [
        *coordinates(table, "task", space),
        f"start = source + ({total(*(times(name, f'from_{name}') for name in outer))}) * {size}",
        f"out = target + ({total(*(times(name, f'to_{name}') for name in outer))}) * {size}",
        f"first = block * {BLOCK[0]}",
        f"stop = minimum(first + {BLOCK[0]}, along)",
        f"begin = strip * {BLOCK[1]}",
        f"end = minimum(begin + {BLOCK[1]}, across)",
        f"if minimum(along, across) >= {lanes}:",
        f"    for a0 in range(first, stop, {lanes}):",
        f"        a = minimum(a0, along - {lanes})",
        f"        for b0 in range(begin, end, {lanes}):",
        f"            b = minimum(b0, across - {lanes})",
        f"            for i in range({lanes}):",
        f"                claim(out + ((a + i) * stride + b + {AHEAD * lanes}) * {size})",
        f"            {turn}(start + (a + b * step) * {size}, step * {size}, out + (a * stride + b) * {size}, "
        f"stride * {size})",
        "else:",
        *indent(loop("a", "first", "stop", loop("b", "begin", "end", [
            store(write.dtype, "out", "a * stride + b", value, table.scope(write.buffer)),
        ]))),
    ]  # fmt: skip
    modules = {"runtime.cpu.transpose": [turn]}
    code = kernel(f"turn_{read.dtype}", loop("task", "lo", "hi", task), table, modules=modules)
    return Lowered((call(spec, code, table, product(space.values())),), (code,))
