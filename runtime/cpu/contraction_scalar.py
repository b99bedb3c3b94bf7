"""Contractions of the dtypes that have no microkernel: a plain sum at every point of the result."""

from __future__ import annotations

from engine import dtypes
from engine.dims import product
from engine.dtypes import DType
from engine.program import Call, Lowered
from engine.schedule import Access, Contraction, KernelSpec
from runtime.cpu.emit import kernel
from runtime.emit import ArgTable, BodyEmitter, cast, constant, load, loop, times, total
from runtime.tasks import outer_indices


def lower_scalar_contraction(spec: KernelSpec, core: Contraction) -> Lowered:
    """One task a row of the result. Integers wrap as in NumPy, bools are joined by ``or``, f16 and bf16 are summed
    in float32."""
    table = ArgTable()
    dtype = dtypes.promote(core.a.dtype, core.b.dtype)
    summed = dtype if dtype.is_float else dtypes.i64
    space = spec.axes[:-1]
    split, indices = outer_indices(table, space, "task")
    *batch, row = indices

    def base(access: Access, extra: list[str]) -> str:
        strides = [table.size(s) for s in access.strides[: len(batch)]]
        return total(*(times(i, s) for i, s in zip(batch, strides, strict=True)), *extra)

    def element(access: Access, start: str, stride: str) -> str:
        pointer = table.pointer(access.buffer, access.offset * access.dtype.itemsize)
        value = load(access.dtype, pointer, total(start, times("k", stride)), table.scope(access.buffer))
        return _summand(value, access.dtype, summed)

    a_m, a_k = (table.size(s) for s in core.a.strides[-2:])
    b_k, b_n = (table.size(s) for s in core.b.strides[-2:])
    term = f"{element(core.a, 'a_row', a_k)} * {element(core.b, 'b_column', b_k)}"
    result = cast("sum", summed, dtype)
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, len(spec.axes), table, core={0: result})
    lines = emitter.start()
    task = [*split]
    for axis, name in enumerate(indices):
        task += emitter.enter(axis, name)
    task += [
        f"a_row = {base(core.a, [times(row, a_m)])}",
        f"b_first = {base(core.b, [])}",
        *loop("j", "0", table.size(spec.axes[-1]), [
            f"b_column = {total('b_first', times('j', b_n))}",
            f"sum = {constant(0, summed)}",
            *loop("k", "0", table.size(core.k), [f"sum += {term}"]),
            *emitter.enter(len(spec.axes) - 1, "j", inline=True),
        ]),
    ]  # fmt: skip
    code = kernel(f"contract_{dtype}", [*lines, *loop("task", "lo", "hi", task)], table)
    reads = dict.fromkeys([core.a.buffer, core.b.buffer, *(access.buffer for access in spec.reads)])
    writes = dict.fromkeys(access.buffer for access in spec.writes)
    call = Call(code.key, spec.name, table.args, product(space), tuple(reads), tuple(writes), 0, spec.nodes)
    return Lowered((call,), (code,))


def _summand(value: str, dtype: DType, summed: DType) -> str:
    """``value`` in the type of the sum; a bool counts as 0 or 1."""
    return f"int64({value})" if not summed.is_float else cast(value, dtype, summed)
