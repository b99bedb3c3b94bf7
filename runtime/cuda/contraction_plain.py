"""Contractions of the dtypes that tensor cores do not take: float64, integers, bools, operands of two dtypes.

A block of 256 threads makes 64 x 64 results, each thread 4 x 4 of them, from tiles of both operands in shared memory.
Integers wrap as in NumPy and bools are joined by ``or``; f16 and bf16 beside another dtype are summed in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine import dtypes
from engine.dims import Size, ceil_div, product
from engine.dtypes import DType
from engine.program import Call, Lowered
from engine.schedule import Access, Contraction, KernelSpec
from runtime.cuda.emit import kernel
from runtime.cuda.epilogue import enter_rows
from runtime.cuda.mainloop import MODULES, place_threads
from runtime.cuda.operands import touched
from runtime.emit import ArgTable, BodyEmitter, cast, computed_type, constant, indent, load, times, total
from runtime.tasks import coordinates

SIDE, DEPTH, THREADS = 64, 16, 256
PADDED = SIDE + 1
"""Elements from one k to the next in shared memory: odd, so that neighbours along k lie in different banks too."""
EACH = 4
"""A thread's results along either axis, 16 apart."""
ELEMENTS = SIDE * DEPTH // THREADS
"""Elements of each operand that a thread copies."""


def lower_plain_contraction(spec: KernelSpec, core: Contraction) -> Lowered:
    """One block for each 64 x 64 results."""
    table = ArgTable()
    dtype = dtypes.promote(core.a.dtype, core.b.dtype)
    summed = dtype.computed if dtype.is_float else dtypes.i64
    size = summed.itemsize
    batch = {f"batch{i}": extent for i, extent in enumerate(spec.axes[:-2])}
    m, n = spec.axes[-2:]
    m_blocks, n_blocks = ceil_div(m, SIDE), ceil_div(n, SIDE)
    table.declare(m=m, n=n, k=core.k)
    a_strides = core.a.strides
    b_strides = (*core.b.strides[:-2], core.b.strides[-1], core.b.strides[-2])
    a = _Side("a", core.a, a_strides, "m", table, list(batch), summed)
    b = _Side("b", core.b, b_strides, "n", table, list(batch), summed)
    value = f"load_shared_{summed}(shared, r * {SIDE} + c)"
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, len(spec.axes), table,
                          core={0: cast(value, summed, dtype)})  # fmt: skip
    lines = [
        *place_threads(),
        *coordinates(table, "block", {**batch, "m_block": m_blocks, "n_block": n_blocks}),
        f"a_first = m_block * {SIDE}",
        f"b_first = n_block * {SIDE}",
        *a.setup(),
        *b.setup(),
        "thread_row = thread // 16",
        "thread_column = thread % 16",
        f"acc = cuda.local.array({EACH * EACH}, {computed_type(summed)})",
        f"x = cuda.local.array({EACH}, {computed_type(summed)})",
        f"for i in range({EACH * EACH}):",
        f"    acc[i] = {constant(0, summed)}",
        f"b_shared = shared + {DEPTH * PADDED * size}",
        f"for k_first in range(0, k, {DEPTH}):",
        *indent([*a.copy("shared"), *b.copy("b_shared")]),
        "    cuda.syncthreads()",
        f"    for step in range({DEPTH}):",
        f"        for i in range({EACH}):",
        f"            x[i] = load_shared_{summed}(shared, step * {PADDED} + thread_row + 16 * i)",
        f"        for j in range({EACH}):",
        f"            y = load_shared_{summed}(b_shared, step * {PADDED} + thread_column + 16 * j)",
        f"            for i in range({EACH}):",
        f"                acc[{EACH} * i + j] += x[i] * y",
        "    cuda.syncthreads()",
        f"for i in range({EACH}):",
        f"    for j in range({EACH}):",
        f"        at = (thread_row + 16 * i) * {SIDE} + thread_column + 16 * j",
        f"        store_shared_{summed}(shared, at, acc[{EACH} * i + j])",
        "cuda.syncthreads()",
    ]
    before, by_row = enter_rows(emitter, batch)
    by_column = emitter.enter(len(batch) + 1, "column", inline=True)
    lines += [
        *before,
        f"for r in range(thread // {SIDE}, {SIDE}, {THREADS // SIDE}):",
        f"    c = thread % {SIDE}",
        "    row = a_first + r",
        "    column = b_first + c",
        "    if row < m and column < n:",
        *indent([*by_row, *by_column], 2),
    ]
    shared = max(2 * DEPTH * PADDED, SIDE * SIDE) * size
    code = kernel(f"contract_{dtype}", lines, table, THREADS, shared, modules=MODULES)
    reads, writes = touched(spec)
    tasks = product(batch.values()) * m_blocks * n_blocks
    return Lowered((Call(code.key, spec.name, table.args, tasks, reads, writes, 0, spec.nodes),), (code,))


class _Side:
    """One operand, whose ``strides`` run over batch, rows (or columns, up to ``limit``) and k."""

    def __init__(self, name: str, access: Access, strides: Sequence[Size], limit: str, table: ArgTable,
                 batch: list[str], summed: DType):  # fmt: skip
        self.name, self.access, self.limit, self.summed = name, access, limit, summed
        self.pointer = table.pointer(access.buffer, access.offset * access.dtype.itemsize)
        self.scope = table.scope(access.buffer)
        *outer, self.stride, self.k_stride = (table.size(s) for s in strides)
        self.base = total(*(times(b, s) for b, s in zip(batch, outer, strict=True)))

    def setup(self) -> list[str]:
        """Lines for once: which elements this thread copies. Neighbours take what lies side by side in memory."""
        name = self.name
        if self.k_stride == "1":
            inner = [f"{name}_k = thread % {DEPTH}", f"{name}_at = thread // {DEPTH}"]
        else:
            inner = [f"{name}_at = thread % {SIDE}", f"{name}_k = thread // {SIDE}"]
        return [f"{name}_base = {self.base}", *inner]

    def copy(self, shared: str) -> list[str]:
        """Lines that put this thread's elements at k ``k_first`` into shared memory, and zeros outside the operand."""
        name, dtype = self.name, self.access.dtype
        places = f"{name}_at + e * {THREADS // DEPTH}", f"{name}_k"
        if self.k_stride != "1":
            places = f"{name}_at", f"{name}_k + e * {THREADS // SIDE}"
        index = total(f"{name}_base", times(f"{name}_first + at", self.stride), times("k_first + at_k", self.k_stride))
        value = load(dtype, self.pointer, index, self.scope)
        value = f"int64({value})" if not self.summed.is_float else cast(value, dtype, self.summed)
        return [
            f"for e in range({ELEMENTS}):",
            f"    at = {places[0]}",
            f"    at_k = {places[1]}",
            f"    value = {constant(0, self.summed)}",
            f"    if {name}_first + at < {self.limit} and k_first + at_k < k:",
            f"        value = {value}",
            f"    store_shared_{self.summed}({shared}, at_k * {PADDED} + at, value)",
        ]
