"""Packing the right operand of a contraction into panels that the microkernel reads in order.

A panel is ``columns`` columns of the operand, row after row: ``[batch][panel][k][columns]``, the last panel filled
with zeros. Packing is a call of its own into a buffer of its own, so a caller may hoist it out of a program when
what it reads is constant state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from engine.buffers import Buffer
from engine.dims import Size, ceil_div, product
from engine.dtypes import DType
from engine.program import Call, Kernel, Pointer
from engine.records import dataclass
from engine.schedule import Access
from runtime.cpu.emit import kernel
from runtime.cpu.tiles import LINE, host_tile, transpose_name
from runtime.emit import SCRATCH, ArgTable, cast, constant, indent, load, loop, store, times, total
from runtime.tasks import coordinates, typical

ROWS_PER_TASK = 256
AHEAD = 128
"""How many elements of a column are asked for before they are turned over: each column is a run of its own, which
processors do not see coming."""
POSITIONS_AHEAD = 4
"""The same where the columns of a position lie side by side, in positions."""


@dataclass(frozen=True)
class Axis:
    """``size`` positions, ``stride`` elements apart."""

    size: Size
    stride: Size


@dataclass(frozen=True)
class Panels:
    """The operand ``[batch..., k..., n]`` at element ``offset`` of ``buffer``, to be packed ``columns`` wide
    as ``packed_dtype``. Where there is a ``factor``, every column is multiplied by an element of that, whose
    strides run over the batch and the columns."""

    buffer: str
    offset: Size
    dtype: DType
    batch: Sequence[Axis]
    rows: Sequence[Axis]
    n: Axis
    columns: int
    packed_dtype: DType
    factor: Access | None = None

    @property
    def buffers(self) -> tuple[str, ...]:
        """What packing reads."""
        return (self.buffer,) if self.factor is None else (self.buffer, self.factor.buffer)

    @property
    def depth(self) -> Size:
        """How many rows a panel has."""
        return product(axis.size for axis in self.rows)

    @property
    def count(self) -> Size:
        """How many panels a batch has."""
        return ceil_div(self.n.size, self.columns)

    @property
    def size(self) -> Size:
        """Elements of the packed operand."""
        return product(axis.size for axis in self.batch) * self.count * self.depth * self.columns


@dataclass(frozen=True)
class Packed:
    """The call that packs, its kernel, and the buffer it fills."""

    call: Call
    kernel: Kernel
    buffer: Buffer


def pack(panels: Panels, target: str, label: str, nodes: tuple[str, ...] = ()) -> Packed:
    """Pack ``panels`` into a new temp buffer called ``target``. One task packs up to 256 rows of one panel."""
    panels = replace(panels, rows=_merged(panels.rows))
    if panels.n.stride != 1 and panels.rows[-1].stride != 1 and len(panels.rows) > 1:
        return _pack_taps(panels, target, label, nodes)
    dtype, columns, itemsize = panels.packed_dtype, panels.columns, panels.dtype.itemsize
    width = columns * dtype.itemsize
    batch = {f"b{i}": axis for i, axis in enumerate(panels.batch)}
    rows = {f"k{i}": axis for i, axis in enumerate(panels.rows)}
    table = ArgTable()
    table.declare(
        source=Pointer(panels.buffer, panels.offset * itemsize), packed=Pointer(target), n=panels.n.size,
        depth=panels.depth, inner_rows=product(axis.size for axis in panels.rows[1:]),
        **{f"{name}_size": axis.size for name, axis in rows.items()},
        **{f"{name}_stride": axis.stride for name, axis in (batch | rows).items()},
    )  # fmt: skip
    if panels.n.stride != 1:
        table.declare(n_stride=panels.n.stride)
    n_stride = "1" if panels.n.stride == 1 else "n_stride"
    space: dict[str, Size] = {name: axis.size for name, axis in batch.items()}
    space |= {"panel": panels.count, "chunk": ceil_div(panels.rows[0].size, ROWS_PER_TASK)}

    stored = panels.dtype.computed
    element = load(panels.dtype, "start", total("at", times("j", n_stride)), table.scope(panels.buffer))
    value = cast(element, stored, dtype)
    last = f"k{len(rows) - 1}"
    begin, end = ("first", "stop") if len(rows) == 1 else ("0", f"{last}_size")
    body = [
        f"at = {total(*(f'{name} * {name}_stride' for name in rows))}",
        *loop("j", "0", "width", [store(dtype, "out", "j", value, table.scope(target))]),
        *loop("j", "width", str(columns), [store(dtype, "out", "j", constant(0, dtype), table.scope(target))]),
        f"out += {width}",
    ]
    modules: dict[str, list[str]] = {}
    if panels.rows[-1].stride == 1 and panels.n.stride != 1 and dtype == panels.dtype and dtype.is_float:
        lanes = _square(dtype, columns)
        modules["runtime.cpu.transpose"] = [name := transpose_name(dtype, lanes)]
        at = total(*(f"{name} * {name}_stride" for name in list(rows)[:-1]), last)
        square = (
            f"{name}(start + ({at} + j * n_stride) * {itemsize}, n_stride * {itemsize}, out + j * {itemsize}, {width})"
        )
        body = [
            f"squares = ({end} - {begin}) & -{lanes} if width == {columns} else 0",
            f"for {last} in range({begin}, {begin} + squares, {lanes}):",
            f"    for j in range(0, {columns}, {lanes}):",
            f"        {square}",
            f"    out += {lanes * width}",
            *loop(last, f"{begin} + squares", end, body),
        ]
    else:
        body = loop(last, begin, end, body)
    for name in reversed(list(rows)[1:-1]):
        body = loop(name, "0", f"{name}_size", body)
    if len(rows) > 1:
        body = loop("k0", "first", "stop", body)
    first = total(*(f"{name} * {name}_stride" for name in batch), times(f"panel * {columns}", n_stride))
    task = [
        *coordinates(table, "task", space),
        f"width = minimum({columns}, n - panel * {columns})",
        f"start = source + ({first}) * {itemsize}",
        f"first = chunk * {ROWS_PER_TASK}",
        f"out = packed + (quotient(task, chunk_count) * depth + first * inner_rows) * {width}",
        f"stop = minimum(first + {ROWS_PER_TASK}, k0_size)",
        *body,
        *_scale_lines(panels, table, target, "(stop - first) * inner_rows"),
    ]
    code = kernel(f"pack_{panels.dtype}", loop("task", "lo", "hi", task), table, modules=modules)
    tasks = product(space.values())
    call = Call(code.key, f"pack {label}", table.args, tasks, panels.buffers, (target,), nodes=nodes)
    return Packed(call, code, Buffer(target, "temp", dtype, panels.size))


def _scale_lines(panels: Panels, table: ArgTable, target: str, rows: str) -> list[str]:
    """Lines that multiply the last ``rows`` rows before ``out`` by the factor, if there is one."""
    factor, dtype = panels.factor, panels.packed_dtype
    if factor is None:
        return []
    width, scope = panels.columns * dtype.itemsize, table.scope(target)
    batch = {f"factor_{i}": stride for i, stride in enumerate(factor.strides[:-1])}
    table.declare(
        factor=Pointer(factor.buffer, factor.offset * factor.dtype.itemsize), factor_n=factor.strides[-1], **batch,
    )  # fmt: skip
    first = total(*(f"b{i} * {name}" for i, name in enumerate(batch)), f"(panel * {panels.columns} + j) * factor_n")
    scaled = f"{load(dtype, 'line', 'j', scope)} * {load(dtype, 'factor', first, table.scope(factor.buffer))}"
    return loop("row", "0", rows, [
        f"line = out - (row + 1) * {width}",
        *loop("j", "0", "width", [store(dtype, "line", "j", scaled, scope)]),
    ])  # fmt: skip


def panel_lines(dtype: DType, columns: int, n_stride: str, k_stride: str, read: int,
                scope: int) -> tuple[list[str], dict[str, list[str]]]:  # fmt: skip
    """Lines that pack ``deep`` rows of ``present`` columns from the address ``start``, of the alias scope ``read``,
    into the one panel at ``panel``, with zeros in its other columns; and what they import."""
    size, lanes = dtype.itemsize, _square(dtype, columns)
    width = columns * size
    value = load(dtype, "start", total(times("t", k_stride), times("j", n_stride)), read)

    filled = loop("j", "0", str(columns), [store(dtype, "line", "j", value, scope)])
    some = loop("j", "0", "present", [store(dtype, "line", "j", value, scope)])
    some += loop("j", "present", str(columns), [store(dtype, "line", "j", constant(0, dtype), scope)])
    by_row = [f"line = panel + t * {width}", f"if present == {columns}:", *indent(filled), "else:", *indent(some)]
    if n_stride == "1" or k_stride != "1":
        return loop("t", "0", "deep", by_row), {}
    turn = transpose_name(dtype, lanes)
    return [
        f"squares = deep & -{lanes} if present == {columns} else 0",
        f"for t in range(0, squares, {lanes}):",
        f"    for j in range(0, {columns}, {lanes}):",
        f"        {turn}(start + (t + j * {n_stride}) * {size}, {n_stride} * {size}, "
        f"panel + t * {width} + j * {size}, {width})",
        *loop("t", "squares", "deep", by_row),
    ], {"runtime.cpu.transpose": [turn]}


def _square(dtype: DType, columns: int) -> int:
    """The side of the squares of elements that are turned over, which fill the ``columns`` of a panel."""
    return math.gcd(host_tile(dtype).lanes, columns)


def _merged(rows: Sequence[Axis]) -> list[Axis]:
    """``rows`` without axes of one position, neighbours that lie as one axis made one."""
    found: list[Axis] = []
    for axis in rows:
        if axis.size == 1:
            continue
        if found and found[-1].stride == axis.stride * axis.size:
            found[-1] = Axis(found[-1].size * axis.size, axis.stride)
        else:
            found.append(axis)
    return found or [rows[-1]]


def _pack_taps(panels: Panels, target: str, label: str, nodes: tuple[str, ...]) -> Packed:
    """Pack an operand that runs along neither the columns nor the last axis of the rows, as the weights of a
    convolution, whose taps lie side by side. A task takes so many positions of the last axis that what it reads stays
    in the first-level cache, however often it comes by."""
    dtype, columns, itemsize = panels.packed_dtype, panels.columns, panels.dtype.itemsize
    width = columns * dtype.itemsize
    batch = {f"b{i}": axis for i, axis in enumerate(panels.batch)}
    rows = {f"k{i}": axis for i, axis in enumerate(panels.rows)}
    *outer, last = rows
    share = max(ROWS_PER_TASK // typical(product(rows[name].size for name in outer)), 1)
    table = ArgTable()
    table.declare(
        source=Pointer(panels.buffer, panels.offset * itemsize), packed=Pointer(target), n=panels.n.size,
        depth=panels.depth, n_stride=panels.n.stride, share=share,
        **{f"{name}_size": axis.size for name, axis in rows.items()},
        **{f"{name}_stride": axis.stride for name, axis in (batch | rows).items()},
    )  # fmt: skip
    space: dict[str, Size] = {name: axis.size for name, axis in batch.items()}
    space |= {"panel": panels.count, "chunk": ceil_div(rows[last].size, share)}
    place = "0"
    for name in outer:
        place = total(times(place, f"{name}_size"), name)
    modules: dict[str, list[str]] = {}
    scratch = 0
    if _is_one_run(panels):
        lanes = _square(dtype, columns)
        modules["runtime.cpu.transpose"] = [turn := transpose_name(dtype, lanes)]
        scratch = share * typical(rows["k0"].size) * width
        before, fill = _run_lines(panels, table, target, turn, lanes)
    elif _is_by_columns(panels):
        lanes = _square(dtype, columns)
        modules["runtime.cpu.transpose"] = [turn := transpose_name(dtype, lanes)]
        scratch = (share * typical(rows["k0"].size) + lanes) * width
        before, fill = _column_lines(panels, table, target, turn, lanes)
    else:
        at = total(*(f"{name} * {name}_stride" for name in rows), "j * n_stride")
        value = cast(load(panels.dtype, "start", at, table.scope(panels.buffer)), panels.dtype.computed, dtype)
        before, fill = [], _row_lines(panels, table.scope(target), "out", value)
    body = loop(last, "first", "stop", [*fill, f"out += {width}", *_scale_lines(panels, table, target, "1")])
    body = [f"out = begin + (({place}) * {last}_size + first) * {width}", *body]
    for name in reversed(outer):
        body = loop(name, "0", f"{name}_size", body)
    origin = total(*(f"{name} * {name}_stride" for name in batch), f"panel * {columns} * n_stride")
    task = [
        *coordinates(table, "task", space),
        f"width = minimum({columns}, n - panel * {columns})",
        f"start = source + ({origin}) * {itemsize}",
        "first = chunk * share",
        f"stop = minimum(first + share, {last}_size)",
        f"begin = packed + quotient(task, chunk_count) * depth * {width}",
        *before,
        *body,
    ]
    code = kernel(f"pack_{panels.dtype}", loop("task", "lo", "hi", task), table, modules=modules)
    call = Call(code.key, f"pack {label}", table.args, product(space.values()), panels.buffers, (target,), scratch,
                nodes)  # fmt: skip
    return Packed(call, code, Buffer(target, "temp", dtype, panels.size))


def _is_one_run(panels: Panels) -> bool:
    """Whether all rows of a column lie side by side, the taps of one position of the last axis together."""
    rows, dtype = panels.rows, panels.packed_dtype
    return (
        len(rows) == 2 and rows[0].stride == 1 and rows[1].stride == rows[0].size and isinstance(rows[0].size, int)
        and dtype == panels.dtype and dtype.is_float
    )  # fmt: skip


def _is_by_columns(panels: Panels) -> bool:
    """Whether for one position of the last axis all columns lie side by side, the taps of each together: forwards or,
    as the input gradient of a convolution meets them, backwards."""
    rows, dtype = panels.rows, panels.packed_dtype
    return (
        len(rows) == 2 and rows[0].stride in (1, -1) and isinstance(rows[0].size, int)
        and panels.n.stride == rows[0].size and isinstance(rows[1].stride, int)
        and rows[1].stride >= panels.columns * rows[0].size
        and dtype == panels.dtype and dtype.is_float
    )  # fmt: skip


def _row_lines(panels: Panels, scope: int, out: str, value: str) -> list[str]:
    """Lines that write a row of a panel at ``out``: ``value`` of each ``j`` below ``width``, then zeros."""
    dtype = panels.packed_dtype
    return [
        *loop("j", "0", "width", [store(dtype, out, "j", value, scope)]),
        *loop("j", "width", str(panels.columns), [store(dtype, out, "j", constant(0, dtype), scope)]),
    ]


def _run_lines(panels: Panels, table: ArgTable, target: str, turn: str, lanes: int) -> tuple[list[str], list[str]]:
    """Lines that turn a task's part of all columns over into scratch, in squares, and those that copy a row of it."""
    dtype, columns, size = panels.packed_dtype, panels.columns, panels.dtype.itemsize
    width, scope = columns * size, table.scope(SCRATCH)
    element = load(dtype, "start", "first * k0_size + r + j * n_stride", table.scope(panels.buffer))
    before = [
        "run = (stop - first) * k0_size",
        f"squares = run & -{lanes} if width == {columns} else 0",
        f"for r in range(0, squares, {lanes}):",
        f"    for j in range({columns}):",
        f"        fetch(start + (first * k0_size + r + {AHEAD} + j * n_stride) * {size})",
        f"    for j in range(0, {columns}, {lanes}):",
        f"        {turn}(start + (first * k0_size + r + j * n_stride) * {size}, n_stride * {size}, "
        f"scratch + r * {width} + j * {size}, {width})",
        *loop("r", "squares", "run", [
            f"line = scratch + r * {width}",
            *_row_lines(panels, scope, "line", element),
        ]),
    ]  # fmt: skip
    copied = load(dtype, "line", "j", scope)
    copy = loop("j", "0", str(columns), [store(dtype, "out", "j", copied, table.scope(target))])
    return before, [f"line = scratch + ((k1 - first) * k0_size + k0) * {width}", *copy]


def _column_lines(panels: Panels, table: ArgTable, target: str, turn: str, lanes: int) -> tuple[list[str], list[str]]:
    """The same where :func:`_is_by_columns`. Squares read on behind the last tap, into the next column, and write on
    into the rows of the next position, which come after them: so the last position is taken element by element."""
    dtype, columns, size = panels.packed_dtype, panels.columns, panels.dtype.itemsize
    width, scope = columns * size, table.scope(SCRATCH)
    taps, stride = typical(panels.rows[0].size), panels.rows[0].stride
    begin, row = ("", "k0") if stride == 1 else (f" - {taps - 1}", f"{taps - 1} - k0")
    element = load(dtype, "start", f"k1 * k1_stride{begin} + t + j * n_stride", table.scope(panels.buffer))
    before = loop("k1", "first", "stop", [
        f"lines = scratch + (k1 - first) * {taps * width}",
        f"if width == {columns} and k1 < k1_size - 1:",
        *indent([
            f"for t in range(0, {columns * taps}, {LINE // size}):",
            f"    fetch(start + ((k1 + {POSITIONS_AHEAD}) * k1_stride{begin} + t) * {size})",
            f"for t in range(0, {taps}, {lanes}):",
            f"    for j in range(0, {columns}, {lanes}):",
            f"        {turn}(start + (k1 * k1_stride{begin} + t + j * n_stride) * {size}, n_stride * {size}, "
            f"lines + t * {width} + j * {size}, {width})",
        ]),
        "else:",
        *indent(loop("t", "0", str(taps), [
            f"line = lines + t * {width}",
            *_row_lines(panels, scope, "line", element),
        ])),
    ])  # fmt: skip
    copied = load(dtype, "line", "j", scope)
    copy = loop("j", "0", str(columns), [store(dtype, "out", "j", copied, table.scope(target))])
    return before, [f"line = scratch + ((k1 - first) * {taps} + {row}) * {width}", *copy]
