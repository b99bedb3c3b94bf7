"""Lowering the weight gradient of a depthwise convolution of rows: neighbours fill a vector, and taps have registers.

A task makes the window of one channel, from all images. It copies some rows of the image into scratch, with their
padding, a vector at a time; where the window moves by several columns, those of each remainder lie side by side. What
is left of a row is a vector of which a part is read, so nothing is added for points that are not there. The elements of
the sums are added up when all images are through.
"""

from __future__ import annotations

from engine.dims import ceil_div, product
from engine.program import Call, Lowered, Pointer
from engine.records import dataclass
from engine.schedule import ConvWeightGrad, KernelSpec
from runtime.cpu.contraction import ENOUGH_TASKS
from runtime.cpu.depthwise_rows import PATCH_BYTES, ROWS
from runtime.cpu.depthwise_weight_grad import is_depthwise_gradient
from runtime.cpu.emit import kernel
from runtime.cpu.scratch import scratch_lines, scratch_parts
from runtime.cpu.tiles import host_registers, host_tile
from runtime.emit import SCRATCH, ArgTable, BodyEmitter, constant, indent, load, loop, store, total
from runtime.tasks import coordinates, piece, typical

UNROLLED = 36
"""About how many products are written out: those of as many rows of points as that leaves."""


def is_gradient_by_rows(core: ConvWeightGrad) -> bool:
    """Whether this kernel serves ``core``: rows of known width lie along memory in both images, the registers hold a
    sum for each tap, and there are channels for all threads."""
    x, dy = core.x, core.dy
    return (
        is_depthwise_gradient(core) and isinstance(core.out_size[1], int) and x.dtype == dy.dtype
        and not x.dtype.storage_only and x.strides[2] == dy.strides[2] == 1 and x.strides[3] != 1 != dy.strides[3]
        and typical(core.groups) >= ENOUGH_TASKS and product(core.kernel) + 3 <= host_registers()
    )  # fmt: skip


@dataclass(frozen=True)
class _Rows:
    """What ``tall`` rows of points read, in scratch: as many as stay near."""

    core: ConvWeightGrad
    lanes: int
    width: int

    def extent(self, rows: int) -> int:
        """The rows of the image that so many rows of points span."""
        return (rows - 1) * self.core.stride[0] + (self.core.kernel[0] - 1) * self.core.dilation[0] + 1

    @property
    def lane(self) -> int:
        """Columns of one remainder by the stride: whole vectors, of the points and of the taps beside the last one."""
        beside = (self.core.kernel[1] - 1) * self.core.dilation[1] // self.core.stride[1]
        return (-(-self.width // self.lanes) + -(-beside // self.lanes)) * self.lanes

    @property
    def pitch(self) -> int:
        """Elements from one row to the next."""
        return self.lane * self.core.stride[1]

    @property
    def tall(self) -> int:
        rows = 1
        while rows < ROWS and self.extent(rows + 1) * self.pitch * self.core.x.dtype.itemsize <= PATCH_BYTES:
            rows += 1
        return piece(self.core.out_size[0], rows)

    def place(self, kw: int) -> int:
        """Elements from where the first tap of a point is to another one of its row."""
        column, remainder = divmod(kw * self.core.dilation[1], self.core.stride[1])
        return remainder * self.lane + column


def lower_gradient_by_rows(spec: KernelSpec) -> Lowered:
    """The call for ``spec``, whose core :func:`is_gradient_by_rows`."""
    core = spec.core
    assert isinstance(core, ConvWeightGrad) and isinstance(core.out_size[1], int)
    dtype = core.x.dtype
    size, lanes, stride = dtype.itemsize, host_tile(dtype).lanes, core.stride[1]
    rows = _Rows(core, lanes, core.out_size[1])
    taps = [(kh, kw) for kh in range(core.kernel[0]) for kw in range(core.kernel[1])]
    table = ArgTable()
    scope, zero = table.scope(SCRATCH), constant(0, dtype)
    units = {"n": core.batch, "tile": ceil_div(core.out_size[0], rows.tall)}
    table.declare(
        x=Pointer(core.x.buffer, core.x.offset * size), dy=Pointer(core.dy.buffer, core.dy.offset * size),
        **{f"x_{name}": core.x.strides[at] for name, at in (("n", 0), ("h", 1), ("c", 3))},
        **{f"dy_{name}": core.dy.strides[at] for name, at in (("n", 0), ("h", 1), ("c", 3))},
        in_h=core.in_size[0], in_w=core.in_size[1], out_h=core.out_size[0], tall=rows.tall, width=rows.width,
        stride_h=core.stride[0], pad_h=core.padding[0], pad_w=core.padding[1],
        extra_rows=rows.extent(1), pitch=rows.pitch, units=product(units.values()), kernel_w=core.kernel[1],
    )  # fmt: skip
    word = f"{dtype}_1x{lanes}"
    copied, sort = "line", []
    if stride > 1:
        copied = "straight"
        sort = loop("q", "0", str(rows.lane), [
            store(dtype, "line", f"{remainder * rows.lane} + q",
                  load(dtype, "straight", f"q * {stride} + {remainder}", table.scope("straight")), scope)
            for remainder in range(stride)
        ])  # fmt: skip
    copy = loop("row", "0", "(tile_h - 1) * stride_h + extra_rows", [
        "ih = oh0 * stride_h - pad_h + row",
        "there = in_w + pad_w if ih >= 0 and ih < in_h else 0",
        f"source = x + (n * x_n + ih * x_h + channel * x_c) * {size}",
        f"line = patch + row * pitch * {size}",
        *loop("v", "0", f"{rows.pitch // lanes}", [
            f"at = v * {lanes}",
            f"store_row_{word}({copied}, at, load_part_{word}(source, at - pad_w, pad_w - at, there - at))",
        ]),
        *sort,
    ])  # fmt: skip

    def added(points: int, read: str) -> list[str]:
        """Lines that add the products of ``points`` neighbouring rows of points, from column ``s`` on: ``read`` says
        how a vector is loaded. What several of the rows meet is loaded once."""
        places = {(i * core.stride[0] + kh * core.dilation[0], kw) for i in range(points) for kh, kw in taps}
        lines = [f"slope_{i} = {read.format('line', f'{i} * dy_h + s')}" for i in range(points)]
        for row, kw in sorted(places):
            lines.append(f"x_{row}_{kw} = {read.format('corner', f'{row * rows.pitch + rows.place(kw)} + s')}")
        for kh, kw in taps:
            met = (f"x_{i * core.stride[0] + kh * core.dilation[0]}_{kw} * slope_{i}" for i in range(points))
            lines.append(f"sum_{kh}_{kw} = {total(f'sum_{kh}_{kw}', *met)}")
        return lines

    def across(points: int) -> list[str]:
        """The same for all columns of the rows from ``r`` on."""
        whole = rows.width // lanes * lanes
        lines = [
            f"line = dy + (n * dy_n + (oh0 + r) * dy_h + channel * dy_c) * {size}",
            f"corner = patch + r * stride_h * pitch * {size}",
        ]
        if whole:
            lines += [f"for s in range(0, {whole}, {lanes}):", *indent(added(points, f"load_row_{word}({{}}, {{}})"))]
        if whole < rows.width:
            lines += [f"s = {whole}", *added(points, f"load_part_{word}({{}}, {{}}, 0, {rows.width - whole})")]
        return lines

    together = max(min(UNROLLED // len(taps), rows.tall), 1)
    walk = [f"several = quotient(tile_h, {together}) * {together}", f"for r in range(0, several, {together}):",
            *indent(across(together))]  # fmt: skip
    if together > 1:
        walk += loop("r", "several", "tile_h", across(1))
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, len(spec.axes), table, core={0: "total"})
    offsets = scratch_parts({
        "patch": rows.extent(rows.tall) * rows.pitch * size, "straight": rows.pitch * size,
        "sums": len(taps) * lanes * size,
    })  # fmt: skip
    lines = [*scratch_lines(offsets, table), *emitter.start()]
    by_channel = [*emitter.enter(0, "channel"), *emitter.enter(3, "0"), *emitter.enter(4, "0")]
    by_tap = ["kh = quotient(tap, kernel_w)", *emitter.enter(1, "kh")]
    by_tap += emitter.enter(2, "tap - kh * kernel_w", inline=True)
    lines += loop("channel", "lo", "hi", [
        *(f"sum_{kh}_{kw} = load_part_{word}(sums, 0, 0, 0)" for kh, kw in taps),
        *loop("unit", "0", "units", [
            *coordinates(table, "unit", units),
            "oh0 = tile * tall",
            "tile_h = minimum(tall, out_h - oh0)",
            *copy,
            *walk,
        ]),
        *(f"store_row_{word}(sums, {number * lanes}, sum_{kh}_{kw})" for number, (kh, kw) in enumerate(taps)),
        *by_channel,
        *loop("tap", "0", f"{len(taps)}", [
            f"total = {zero}",
            *loop("v", "0", f"{lanes}", [f"total = total + {load(dtype, 'sums', f'tap * {lanes} + v', scope)}"]),
            *by_tap,
        ]),
    ])  # fmt: skip
    words = [f"{name}_{word}" for name in ("load_row", "load_part", "store_row")]
    code = kernel(f"depthwise_rows_grad_{dtype}", lines, table, modules={"runtime.cpu.register_tiles": words})
    reads = dict.fromkeys([core.x.buffer, core.dy.buffer, *(access.buffer for access in spec.reads)])
    writes = dict.fromkeys(access.buffer for access in spec.writes)
    main = Call(code.key, spec.name, table.args, core.groups, tuple(reads), tuple(writes), offsets["end"], spec.nodes)
    return Lowered((main,), (code,))
