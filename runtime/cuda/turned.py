"""Elementwise kernels that read along one axis and write along another: tiles go through shared memory.

A tile is a square of points of both axes. What lies along the other axis is loaded by threads that are neighbours along
that, put into shared memory by rows, and taken from there by columns: each row of a tile is a word longer than it needs
to be, so that neither the elements of a row nor those of a column meet in a bank.
"""

from __future__ import annotations

from engine import dims
from engine.dims import Size
from engine.memory import round_up
from engine.program import Lowered
from engine.schedule import KernelSpec
from runtime.cuda.emit import kernel
from runtime.emit import ArgTable, BodyEmitter, call, indent
from runtime.tasks import outer_indices

_SIDE = 32
_ROWS = 8
"""Rows of a tile that the block's threads take at once."""
_WORD = 4
_LEAST = 8
"""The points of an axis below which tiles would be mostly empty."""


def turned_axis(spec: KernelSpec) -> int | None:
    """The axis along which a collapsed ``spec`` reads memory while it writes along the last one, if there is one."""
    if not spec.axes or any(w.strides[-1] != 1 for w in spec.writes):
        return None
    reads = [spec.reads[int(s.args[0])].strides for s in spec.body if s.op == "load"]
    axis = next((s.index(1) for s in reads if 1 in s[:-1] and s[-1] not in (0, 1)), None)
    if axis is None:
        return None
    return None if any(isinstance(spec.axes[i], int) and spec.axes[i] < _LEAST for i in (axis, -1)) else axis


def lower_turned(spec: KernelSpec, flat: KernelSpec, axis: int) -> Lowered:
    """The kernel of ``flat``, ``spec`` collapsed, whose :func:`turned_axis` is ``axis``."""
    table = ArgTable()
    last = len(flat.axes) - 1
    outer = [i for i in range(last) if i != axis]
    tiles = [dims.ceil_div(flat.axes[i], _SIDE) for i in (axis, last)]
    space: tuple[Size, ...] = (*(flat.axes[i] for i in outer), *tiles)
    emitter = BodyEmitter(flat.body, flat.reads, flat.writes, len(flat.axes), table)
    lines = ["x = cuda.threadIdx.x & 31", "y = cuda.threadIdx.x >> 5", "tile = cuda.blockIdx.x", *emitter.start()]
    split, names = outer_indices(table, space, "tile", "t")
    lines += [*split, f"down = {names[-2]} * {_SIDE}", f"across = {names[-1]} * {_SIDE}"]
    for i, name in zip(outer, names, strict=False):
        lines += emitter.enter(i, name)

    loads = [s for s in flat.body if s.op == "load"]
    turned = [s for s in loads if flat.reads[int(s.args[0])].strides[axis] == 1]
    height, width = table.size(flat.axes[axis]), table.size(flat.axes[last])
    fill = emitter.fork(only=[s.name for s in turned])
    put = [*fill.enter(axis, f"i{axis}"), *fill.enter(last, f"i{last}")]
    body, known, shared = [], {}, 0
    for i, s in enumerate(turned):
        dtype = s.dtype.computed
        start = f"tiles + {shared}" if shared else "tiles"
        pitch = _SIDE + max(_WORD // dtype.itemsize, 1)
        put.append(f"store_shared_{dtype}({start}, (y + k) * {pitch} + x, {fill.value(s.name)})")
        body.append(f"z{i} = load_shared_{dtype}({start}, x * {pitch} + y + k)")
        known[s.name] = f"z{i}"
        shared += round_up(_SIDE * pitch * dtype.itemsize)
    take = emitter.fork(known=known)
    body += [*take.enter(axis, f"i{axis}"), *take.enter(last, f"i{last}")]

    def walk(rows: str, columns: str, inside: list[str]) -> list[str]:
        """``inside`` at the points of the tile, neighbouring threads along ``columns``."""
        at = {rows: "y + k", columns: "x"}
        return [
            f"for k in range(0, {_SIDE}, {_ROWS}):",
            *indent([
                f"i{axis} = down + {at['down']}",
                f"i{last} = across + {at['across']}",
                f"if (i{axis} < {height}) & (i{last} < {width}):",
                *indent(inside),
            ]),
        ]  # fmt: skip

    lines += ["tiles = shared_memory()", *walk("across", "down", put), "cuda.syncthreads()"]
    lines += walk("down", "across", body)
    modules = {"runtime.cuda.ptx": ["shared_memory"]}
    code = kernel(spec.name, lines, table, _SIDE * _ROWS, shared, modules=modules)
    return Lowered((call(spec, code, table, dims.product(space)),), (code,))
