"""Packing the right operand of a contraction into panels that the microkernel reads in order.

A panel is ``columns`` columns of the operand, row after row: ``[batch][panel][k][columns]``, the last panel filled
with zeros. Packing is a call of its own into a buffer of its own, so a caller may hoist it out of a program when
what it reads is constant state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine import dtypes
from engine.dims import Size, ceil_div, product
from engine.dtypes import DType
from engine.program import Call, Kernel
from engine.schedule import Buffer
from runtime.cpu.emit import ArgTable, cast, constant, kernel, load, loop, store, times, total
from runtime.cpu.loops import outer_indices

ROWS_PER_TASK = 256


@dataclass(frozen=True)
class Axis:
    """``size`` positions, ``stride`` elements apart."""

    size: Size
    stride: Size


@dataclass(frozen=True)
class Panels:
    """The operand ``[batch..., k..., n]`` at element ``offset`` of ``buffer``, to be packed ``columns`` wide
    as ``packed_dtype``."""

    buffer: str
    offset: Size
    dtype: DType
    batch: Sequence[Axis]
    rows: Sequence[Axis]
    n: Axis
    columns: int
    packed_dtype: DType

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
    table = ArgTable()
    dtype, columns = panels.packed_dtype, panels.columns
    source = table.pointer(panels.buffer, panels.offset * panels.dtype.itemsize)
    result = table.pointer(target)
    read, written = table.scope(panels.buffer), table.scope(target)
    chunks = ceil_div(panels.rows[0].size, ROWS_PER_TASK)
    space = (*(axis.size for axis in panels.batch), panels.count, chunks)
    split, indices = outer_indices(table, space, "task")
    *batch_names, panel, chunk = indices
    n_size, n_stride = table.size(panels.n.size), table.size(panels.n.stride)
    inner_rows = table.size(product(axis.size for axis in panels.rows[1:]))
    depth, columns_first = table.size(panels.depth), times(f"{panel} * {columns}", n_stride)
    first = total(*_offsets(table, batch_names, panels.batch), columns_first)
    row_names = [f"k{a}" for a in range(len(panels.rows))]
    row_offset = total(*_offsets(table, row_names, panels.rows))

    computed = dtypes.f32 if panels.dtype.storage_only else panels.dtype
    value = cast(load(panels.dtype, "start", total("at", times("j", n_stride)), read), computed, dtype)
    body = [
        f"at = {row_offset}",
        *loop("j", "0", "width", [store(dtype, "out", "j", value, written)]),
        *loop("j", "width", str(columns), [store(dtype, "out", "j", constant(0, dtype), written)]),
        f"out += {columns * dtype.itemsize}",
    ]
    for name, axis in reversed(list(zip(row_names[1:], panels.rows[1:], strict=True))):
        body = loop(name, "0", table.size(axis.size), body)
    task = [
        *split,
        f"width = minimum({columns}, {n_size} - {panel} * {columns})",
        f"start = {source} + ({first}) * {panels.dtype.itemsize}",
        f"first = {chunk} * {ROWS_PER_TASK}",
        f"done = quotient(task, {table.size(chunks)}) * {depth} + first * {inner_rows}",
        f"out = {result} + done * {columns * dtype.itemsize}",
        *loop("k0", "first", f"minimum(first + {ROWS_PER_TASK}, {table.size(panels.rows[0].size)})", body),
    ]
    code = kernel(f"pack_{panels.dtype}", loop("task", "lo", "hi", task), table)
    call = Call(code.key, f"pack {label}", table.args, product(space), (panels.buffer,), (target,), nodes=nodes)
    return Packed(call, code, Buffer(target, "temp", dtype, panels.size))


def _offsets(table: ArgTable, names: Sequence[str], axes: Sequence[Axis]) -> list[str]:
    return [times(name, table.size(axis.stride)) for name, axis in zip(names, axes, strict=True)]
