"""Max pooling, its gradient, and the gradient of that: a thread for each point of the result.

The gradient gathers: each input point asks the windows it lies in whether they chose it, so nothing is cleared or added
to twice.
"""

from __future__ import annotations

from dataclasses import replace

from engine import dims
from engine.dtypes import u8
from engine.program import Lowered
from engine.schedule import KernelSpec, MaxPool2d, MaxPool2dGather, MaxPool2dGrad, Stmt
from runtime.cuda.emit import kernel
from runtime.cuda.loops import THREADS
from runtime.emit import ArgTable, BodyEmitter, call, constant, indent, loop, times
from runtime.reductions import extreme
from runtime.tasks import outer_indices
from runtime.windows import better

_POSITION = "$position"
_NAMES = ("n", "y", "x", "c")


def lower_pool(spec: KernelSpec, core: MaxPool2d | MaxPool2dGrad | MaxPool2dGather) -> Lowered:
    """A kernel for ``spec``, whose ``core`` is not fused into a convolution."""
    table = ArgTable()
    if not isinstance(core, MaxPool2d):
        spec = replace(spec, reads=(*spec.reads, core.position))
    outputs = {0: "best", 1: "uint8(max(position, 0))"} if isinstance(core, MaxPool2d) else {0: "gathered"}
    outer = BodyEmitter(spec.body, spec.reads, spec.writes, 4, table, core=outputs)
    split, indices = outer_indices(table, spec.axes, "unit", "i")
    lines = outer.start()
    for axis, (name, index) in enumerate(zip(_NAMES, indices, strict=True)):
        split.append(f"{name} = {index}")
        lines += outer.enter(axis, name) if axis < 3 else []
    match core:
        case MaxPool2d():
            lines += _pooled(spec, core, table)
        case MaxPool2dGrad():
            lines += _gradient(spec, core, table)
        case MaxPool2dGather():
            lines += _gathered(spec, core, table)
    lines += outer.enter(3, "c")
    units = dims.product(spec.axes)
    lines = [
        f"unit = cuda.blockIdx.x * {THREADS} + cuda.threadIdx.x",
        f"if unit < {table.size(units)}:",
        *indent([*split, *lines]),
    ]
    code = kernel(spec.name, lines, table, THREADS)
    return Lowered((call(spec, code, table, dims.ceil_div(units, THREADS)),), (code,))


def _entered(inner: BodyEmitter, y: str, x: str) -> list[str]:
    """Lines that place a core's inner body at row ``y`` and column ``x`` of this image and channel."""
    lines = inner.start()
    for axis, name in enumerate(("n", y, x, "c")):
        lines += inner.enter(axis, name)
    return lines


def _value(core: MaxPool2d | MaxPool2dGrad | MaxPool2dGather, inner: BodyEmitter) -> str:
    return inner.value(core.inner[-1].name)


def _zero(core: MaxPool2dGrad | MaxPool2dGather) -> str:
    return constant(0, core.inner[-1].dtype.computed)


def _pooled(spec: KernelSpec, core: MaxPool2d, table: ArgTable) -> list[str]:
    """Lines that set ``best`` and ``position``, -1 as long as the window has no value: its first is taken even where it
    is the lowest."""
    inner = BodyEmitter(core.inner, spec.reads, (), 4, table, tag="u")
    dtype = core.inner[-1].dtype.computed
    placed = _entered(inner, "at_y", "at_x")
    value = _value(core, inner)
    update = [
        *placed,
        f"better = ({better(value, 'best', dtype)}) | (position < int32(0))",
        f"best = select(better, {value}, best)",
        f"position = select(better, int32(ky * {core.kernel[1]} + kx), position)",
    ]
    for name, at in (("x", 1), ("y", 0)):
        size = table.size(core.in_size[at])
        update = loop(f"k{name}", "0", str(core.kernel[at]), [
            f"at_{name} = {times(name, str(core.stride[at]))} - {core.padding[at]} + k{name} * {core.dilation[at]}",
            f"if (at_{name} >= 0) & (at_{name} < {size}):",
            *indent(update),
        ])  # fmt: skip
    return [f"best = {constant(extreme(dtype, largest=False), dtype)}", "position = int32(-1)", *update]


def _gradient(spec: KernelSpec, core: MaxPool2dGrad, table: ArgTable) -> list[str]:
    """Lines that set ``gathered`` to the sum over the windows that have chosen this point."""
    body = (*core.inner, Stmt(_POSITION, "load", (len(spec.reads) - 1,), u8))
    inner = BodyEmitter(body, spec.reads, (), 4, table, tag="u")
    placed = _entered(inner, "window_y", "window_x")
    chosen = f"int32({inner.value(_POSITION)}) == int32(ky * {core.kernel[1]} + kx)"
    update = [*placed, f"gathered = gathered + select({chosen}, {_value(core, inner)}, {_zero(core)})"]
    for name, at in (("x", 1), ("y", 0)):
        stride, count = core.stride[at], table.size(core.out_size[at])
        update = loop(f"k{name}", "0", str(core.kernel[at]), [
            f"start_{name} = {name} + {core.padding[at]} - k{name} * {core.dilation[at]}",
            f"window_{name} = quotient(max(start_{name}, 0), {stride})",
            f"if (window_{name} * {stride} == start_{name}) & (window_{name} < {count}):",
            *indent(update),
        ])  # fmt: skip
    return [f"gathered = {_zero(core)}", *update]


def _gathered(spec: KernelSpec, core: MaxPool2dGather, table: ArgTable) -> list[str]:
    """Lines that set ``gathered`` to the value at this window's position, or to zero where that is outside."""
    stored = Stmt(_POSITION, "load", (len(spec.reads) - 1,), u8)
    where = BodyEmitter((stored,), spec.reads, (), 4, table, tag="p")
    inner = BodyEmitter(core.inner, spec.reads, (), 4, table, tag="u")
    placed = _entered(inner, "at_y", "at_x")
    lines = [
        *_entered(where, "y", "x"),
        f"chosen = int64({where.value(_POSITION)})",
        f"ky = quotient(chosen, {core.kernel[1]})",
        f"kx = chosen - ky * {core.kernel[1]}",
    ]
    inside = []
    for name, at in (("y", 0), ("x", 1)):
        tap = f"k{name} * {core.dilation[at]}"
        lines.append(f"at_{name} = {times(name, str(core.stride[at]))} - {core.padding[at]} + {tap}")
        inside.append(f"(at_{name} >= 0) & (at_{name} < {table.size(core.in_size[at])})")
    lines += [f"gathered = {_zero(core)}", f"if {' & '.join(inside)}:"]
    return [*lines, *indent([*placed, f"gathered = {_value(core, inner)}"])]
