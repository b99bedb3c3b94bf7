"""Elementwise kernels: a body at every point of a space, cut into tasks by shape.

The space is collapsed first, so that a chain over contiguous arrays is one loop over elements whatever its rank.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine import dims
from engine.dims import Size
from engine.program import Lowered
from engine.records import dataclass
from engine.schedule import KernelSpec, Stmt
from runtime.axes import collapse
from runtime.cpu.emit import kernel
from runtime.cpu.turned import lower_turned, turned_axis
from runtime.emit import ArgTable, BodyEmitter, call, loop, times
from runtime.row_passes import COSTLY
from runtime.tasks import outer_indices

TASK_POINTS = 16384
"""Points of the iteration space in a task: some ten microseconds of work, and 64 KiB of float32."""


def task_points(body: Iterable[Stmt]) -> int:
    """Points in a task of ``body``: a quarter where they take an exp or the like, which costs as much as many loads."""
    return TASK_POINTS // 4 if any(stmt.op in COSTLY for stmt in body) else TASK_POINTS


@dataclass(frozen=True)
class Partition:
    """How a space is cut. ``rows`` outer points (all axes but the last) are taken ``rows_per_task`` at a time;
    with ``chunk`` a single row is cut further, into pieces of that many points of the last axis."""

    rows: Size
    rows_per_task: int
    chunk: int | None
    tasks: Size


def partition(axes: tuple[Size, ...], points: int = TASK_POINTS) -> Partition:
    """Tasks of about ``points`` points. An only axis is cut in pieces, and so is a last one that is long or whose
    size is symbolic."""
    if not axes:
        return Partition(1, 1, None, 1)
    rows, inner = dims.product(axes[:-1]), axes[-1]
    if len(axes) == 1 or not isinstance(inner, int) or inner > 2 * points:
        return Partition(rows, 1, points, rows * dims.ceil_div(inner, points))
    per_task = max(1, points // max(inner, 1))
    return Partition(rows, per_task, None, dims.ceil_div(rows, per_task))


def loop_lines(spec: KernelSpec, table: ArgTable, cut: Partition, lo: str = "lo", hi: str = "hi") -> list[str]:
    """The function body that runs tasks lo..hi of a collapsed ``spec`` without reductions."""
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, len(spec.axes), table)
    lines = emitter.start()
    if not spec.axes:
        return loop("_", lo, hi, lines)
    last = len(spec.axes) - 1
    inner = table.size(spec.axes[last])
    if last == 0:
        chunk = table.size(cut.chunk or TASK_POINTS)
        body = emitter.enter(0, "i0", inline=True)
        return [*lines, *loop("i0", f"{lo} * {chunk}", f"min({hi} * {chunk}, {inner})", body)]
    decompose, names = outer_indices(table, spec.axes[:-1], "row")
    body = list(decompose)
    for axis, name in enumerate(names):
        body += emitter.enter(axis, name)
    if cut.chunk is None:
        per_task, rows = table.size(cut.rows_per_task), table.size(cut.rows)
        body += loop(f"i{last}", "0", inner, emitter.enter(last, f"i{last}", inline=True))
        return [*lines, *loop("row", times(lo, per_task), f"min({times(hi, per_task)}, {rows})", body)]
    chunk, chunks = table.size(cut.chunk), table.size(dims.ceil_div(spec.axes[last], cut.chunk))
    head = [f"row = quotient(task, {chunks})", f"first = (task - row * {chunks}) * {chunk}"]
    body += loop(f"i{last}", "first", f"min(first + {chunk}, {inner})", emitter.enter(last, f"i{last}", inline=True))
    return [*lines, *loop("task", lo, hi, head + body)]


def lower_loops(spec: KernelSpec) -> Lowered:
    """A kernel for ``spec``, which has neither a core nor reductions."""
    flat = collapse(spec)
    turned = turned_axis(flat)
    if turned is not None:
        return lower_turned(spec, flat, turned)
    table = ArgTable()
    cut = partition(flat.axes, task_points(flat.body))
    code = kernel(spec.name, loop_lines(flat, table, cut), table)
    return Lowered((call(spec, code, table, cut.tasks),), (code,))
