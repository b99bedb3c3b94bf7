"""Convolutions by plain sums, at any strides and of any dtype: a thread an output, or an element of the gradient.

What has no kernel on tensor cores runs here: float64, integers, images that are spread out, few channels a group.
"""

from __future__ import annotations

from engine import dtypes
from engine.dims import ceil_div, product
from engine.dtypes import DType
from engine.program import Call, Lowered, joined
from engine.schedule import Access, Conv2d, ConvWeightGrad, KernelSpec
from runtime.cuda.conv_specs import partial_sums, total_of, weights_by_output
from runtime.cuda.dense import Lower
from runtime.cuda.emit import kernel
from runtime.cuda.points import each_point
from runtime.emit import ArgTable, BodyEmitter, cast, constant, indent, load, loop, store, times, total
from runtime.tasks import outer_indices, typical

THREADS = 192
"""Outputs of a block: as many as leave ptxas the registers for all dtypes, with none of them put aside."""
ENOUGH_THREADS = 1 << 17
"""About how many sums keep a GPU busy: sums over pixels are cut into so many chunks."""


def summed_dtype(a: DType, b: DType) -> DType:
    """The dtype of sums of products: float32 for 16-bit floats, int64 for integers, which wrap as in NumPy."""
    found = dtypes.promote(a, b)
    return found.computed if found.is_float else dtypes.i64


class _Operand:
    """An array over ``(n, h, w, c)``, or weights over ``(group, output, h, w, input)``, as source text."""

    def __init__(self, access: Access, summed: DType, table: ArgTable):
        self._access, self._summed = access, summed
        self._pointer = table.pointer(access.buffer, access.offset * access.dtype.itemsize)
        self._scope = table.scope(access.buffer)
        self.strides = [table.size(stride) for stride in access.strides]

    def value(self, *terms: str) -> str:
        """The element that lies the sum of ``terms`` further on, as a summand."""
        found = load(self._access.dtype, self._pointer, total(*terms), self._scope)
        return cast(found, self._access.dtype.computed, self._summed)


def _met(core: Conv2d | ConvWeightGrad, table: ArgTable, axis: int, output: str, tap: str) -> tuple[list[str], str]:
    """Lines that set ``ih`` (or ``iw``) to what ``output`` meets at ``tap`` along ``axis``, and whether it is there."""
    at = ("ih", "iw")[axis]
    size, shift = table.size(core.in_size[axis]), table.size(-1 * core.padding[axis])
    place = total(times(output, table.size(core.stride[axis])), times(tap, table.size(core.dilation[axis])), shift)
    spread = core.x_dilation[axis] if isinstance(core, Conv2d) else 1
    if spread == 1:
        return [f"{at} = {place}"], f"{at} >= 0 and {at} < {size}"
    step = table.size(spread)
    lines = [f"spread_{at} = {place}", f"{at} = quotient(maximum(spread_{at}, 0), {step})"]
    return lines, f"{at} * {step} == spread_{at} and {at} < {size}"


def lower_direct_conv2d(spec: KernelSpec) -> Lowered:
    """The call for ``spec``, whose core is a Conv2d: a thread makes one output and runs the body on it."""
    core = spec.core
    assert isinstance(core, Conv2d)
    dtype = dtypes.promote(core.x.dtype, core.w.dtype)
    summed = summed_dtype(core.x.dtype, core.w.dtype)
    table = ArgTable()
    weights, _ = weights_by_output(core)
    x, w = _Operand(core.x, summed, table), _Operand(weights, summed, table)
    split, (n, oh, ow, channel) = outer_indices(table, spec.axes, "point")
    n_step, h_step, w_step, c_step = x.strides
    group_step, output_step, kh_step, kw_step, input_step = w.strides
    inputs, outputs = table.size(core.group_inputs), table.size(core.group_outputs)
    down, row_inside = _met(core, table, 0, oh, "kh")
    across, column_inside = _met(core, table, 1, ow, "kw")
    product_of = f"{x.value('x_at', times('c', c_step))} * {w.value('w_at', times('c', input_step))}"
    row = loop("kw", "0", table.size(core.kernel[1]), [
        *across,
        f"if {column_inside}:",
        *indent([
            f"x_at = {total('x_row', times('iw', w_step))}",
            f"w_at = {total('w_row', times('kw', kw_step))}",
            *loop("c", "0", inputs, [f"sum += {product_of}"]),
        ]),
    ])  # fmt: skip
    result = cast("sum", summed, dtype) if not dtype.is_float else "sum"
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, 4, table, core={0: result})
    lines = [
        *split,
        f"group = quotient({channel}, {outputs})" if core.groups > 1 else "group = 0",
        f"x_first = {total(times(n, n_step), times(times('group', inputs), c_step))}",
        f"w_first = {total(times('group', group_step), times(f'{channel} - group * {outputs}', output_step))}",
        f"sum = {constant(0, summed)}",
        *loop("kh", "0", table.size(core.kernel[0]), [
            *down,
            f"if {row_inside}:",
            *indent([
                f"x_row = {total('x_first', times('ih', h_step))}",
                f"w_row = {total('w_first', times('kh', kh_step))}",
                *row,
            ]),
        ]),
        *emitter.start(),
        *(line for axis, name in enumerate((n, oh, ow, channel)) for line in emitter.enter(axis, name)),
    ]  # fmt: skip
    points = product(spec.axes)
    lines, tasks = each_point(table, points, THREADS, lines)
    code = kernel(f"conv2d_direct_{dtype}", lines, table, THREADS)
    reads = dict.fromkeys([core.x.buffer, core.w.buffer, *(access.buffer for access in spec.reads)])
    writes = dict.fromkeys(access.buffer for access in spec.writes)
    call = Call(code.key, spec.name, table.args, tasks, tuple(reads), tuple(writes), 0, spec.nodes)
    return Lowered((call,), (code,))


def lower_direct_weight_grad(spec: KernelSpec, lower: Lower) -> Lowered:
    """The calls for ``spec``, whose core is a ConvWeightGrad: a thread sums up one element over a part of the rows of
    all images, then ``lower`` lowers the kernel that adds up the parts and runs the body."""
    core = spec.core
    assert isinstance(core, ConvWeightGrad)
    summed = summed_dtype(core.x.dtype, core.dy.dtype)
    rows = core.batch * core.out_size[0]
    chunks = max(min(ENOUGH_THREADS // typical(product(spec.axes)), typical(rows)), 1)
    partial = partial_sums(spec, summed, chunks)
    table = ArgTable()
    x, dy = _Operand(core.x, summed, table), _Operand(core.dy, summed, table)
    split, (chunk, group, kh, kw, ic, oc) = outer_indices(table, (chunks, *spec.axes), "point")
    n_step, h_step, w_step, c_step = x.strides
    dy_n, dy_h, dy_w, dy_c = dy.strides
    down, row_inside = _met(core, table, 0, "oh", kh)
    across, column_inside = _met(core, table, 1, "ow", kw)
    out_h, all_rows, per_chunk = map(table.size, (core.out_size[0], rows, ceil_div(rows, chunks)))
    channel = total(times(group, table.size(core.group_inputs)), ic)
    output = total(times(group, table.size(core.group_outputs)), oc)
    sums = table.pointer(partial.buffer.name)
    term = f"{x.value('x_row', times('iw', w_step))} * {dy.value('dy_row', times('ow', dy_w))}"
    lines = [
        *split,
        f"x_channel = {times(channel, c_step)}",
        f"dy_channel = {times(output, dy_c)}",
        f"sum = {constant(0, summed)}",
        *loop("row", times(chunk, per_chunk), f"minimum({times(f'{chunk} + 1', per_chunk)}, {all_rows})", [
            f"n = quotient(row, {out_h})",
            f"oh = row - n * {out_h}",
            *down,
            f"if {row_inside}:",
            *indent([
                f"x_row = {total('x_channel', times('n', n_step), times('ih', h_step))}",
                f"dy_row = {total('dy_channel', times('n', dy_n), times('oh', dy_h))}",
                *loop("ow", "0", table.size(core.out_size[1]), [
                    *across,
                    f"if {column_inside}:",
                    f"    sum += {term}",
                ]),
            ]),
        ]),
        store(summed, sums, "point", "sum", table.scope(partial.buffer.name)),
    ]  # fmt: skip
    lines, tasks = each_point(table, chunks * product(spec.axes), THREADS, lines)
    code = kernel(f"conv_weight_grad_direct_{summed}", lines, table, THREADS)
    call = Call(code.key, f"{spec.name} chunks", table.args, tasks, (core.x.buffer, core.dy.buffer),
                (partial.buffer.name,), 0, spec.nodes)  # fmt: skip
    end = lower(total_of(spec, partial))
    return joined([Lowered((call,), (code,), (partial.buffer,)), end])
