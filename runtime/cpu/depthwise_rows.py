"""Lowering a depthwise convolution of an image whose rows lie along memory: neighbours in a row fill a vector.

A task makes some rows of one channel of one image: it copies what they read into scratch with its padding (see
conv_patch.py), and keeps the window in registers. The last vector of a row lies over the one before, and writes the
same once more. Where the window moves by several columns, every remainder of these is first laid side by side.
"""

from __future__ import annotations

from engine.dims import ceil_div, product
from engine.dtypes import DType
from engine.program import Call, Lowered, Pointer
from engine.records import dataclass
from engine.schedule import Conv2d, ConvWeightGrad, KernelSpec
from runtime.cpu.conv import computed_dtype, tap_axes
from runtime.cpu.conv_direct import writes_rows
from runtime.cpu.conv_patch import Patch
from runtime.cpu.depthwise import is_depthwise
from runtime.cpu.emit import kernel
from runtime.cpu.scratch import scratch_lines, scratch_parts
from runtime.cpu.tiles import host_tile
from runtime.emit import SCRATCH, ArgTable, BodyEmitter, cast, load, loop, store, total
from runtime.tasks import coordinates, piece

PATCH_BYTES = 16384
"""The most that the copy of a task's input should take."""
ROWS = 64
"""The most rows of a task."""


def is_by_rows(spec: KernelSpec) -> bool:
    """Whether this kernel serves ``spec``: rows of known width lie along memory in the image and in all results, are a
    vector or more, and may be written twice."""
    core = spec.core
    if not isinstance(core, Conv2d) or not is_depthwise(core) or core.x_dilation != (1, 1):
        return False
    width = core.out_size[1]
    return (
        core.x.strides[2] == 1 != core.x.strides[3] and writes_rows(spec)
        and isinstance(width, int) and width >= host_tile(computed_dtype(core)).lanes
        and not {access.buffer for access in spec.reads} & {access.buffer for access in spec.writes}
    )  # fmt: skip


@dataclass(frozen=True)
class RowsPatch:
    """What some rows of points of one channel read, of an image whose rows lie along memory: as many as stay near.

    Where the window moves by several columns, those of each remainder lie side by side: so every tap of neighbouring
    points is a vector."""

    core: Conv2d | ConvWeightGrad
    dtype: DType

    @property
    def patch(self) -> Patch:
        width = self.core.out_size[1]
        assert isinstance(width, int)
        rows = 1
        while rows < ROWS and Patch(self.core, (rows + 1, width), 1, self.dtype).bytes <= PATCH_BYTES:
            rows += 1
        return Patch(self.core, (piece(self.core.out_size[0], rows), width), 1, self.dtype)

    @property
    def _lane(self) -> int:
        """Columns of a remainder: whole vectors, which read on behind a row."""
        lanes, stride = host_tile(self.dtype).lanes, self.core.stride[1]
        return -(-self.patch.pitch // (stride * lanes)) * lanes

    @property
    def is_sorted(self) -> bool:
        return self.core.stride[1] > 1

    @property
    def parts(self) -> dict[str, int]:
        """Bytes of scratch."""
        row = self.core.stride[1] * self._lane * self.dtype.itemsize
        parts = {"patch": self.patch.bytes + row}
        return parts | {"sorted": self.patch.extent(0) * row} if self.is_sorted else parts

    @property
    def start(self) -> str:
        return "sorted" if self.is_sorted else "patch"

    @property
    def row(self) -> str:
        """Elements from one row to the next."""
        return str(self.core.stride[1] * self._lane) if self.is_sorted else "pitch"

    def scope(self, table: ArgTable) -> int:
        return table.scope("sorted" if self.is_sorted else SCRATCH)

    def lines(self, table: ArgTable) -> list[str]:
        """Lines that copy what the rows from ``oh0`` on read of the channel at ``image``, and set ``row_0``, ``row_1``
        and so on: how many elements behind :attr:`start` the lines of the taps begin."""
        table.declare(dilation_h=self.core.dilation[0])
        lines = [
            "ow0 = 0",
            *self.patch.copy_lines(table, table.scope(SCRATCH)),
            *(f"row_{kh} = {kh} * dilation_h * {self.row}" for kh in range(self.core.kernel[0])),
        ]
        if not self.is_sorted:
            return lines
        stride, size = self.core.stride[1], self.dtype.itemsize
        sort = [
            store(self.dtype, "out", f"{remainder * self._lane} + q",
                  load(self.dtype, "line", f"q * {stride} + {remainder}", table.scope(SCRATCH)), self.scope(table))
            for remainder in range(stride)
        ]  # fmt: skip
        return lines + loop("row", "0", "patch_rows", [
            f"line = patch + row * pitch * {size}",
            f"out = sorted + row * {stride * self._lane * size}",
            *loop("q", "0", str(self._lane), sort),
        ])  # fmt: skip

    def place(self, kh: int, kw: int) -> str:
        """Elements from the first tap of a point to another, along with ``row_0`` and so on."""
        column, remainder = divmod(kw * self.core.dilation[1], self.core.stride[1])
        return f"row_{kh} + {remainder * self._lane + column}"


def lower_depthwise_rows(spec: KernelSpec) -> Lowered:
    """The call for ``spec``, which :func:`is_by_rows`."""
    core = spec.core
    assert isinstance(core, Conv2d)
    dtype = computed_dtype(core)
    rows = RowsPatch(core, dtype)
    tall, width = rows.patch.tile
    size, lanes = dtype.itemsize, host_tile(dtype).lanes
    table = ArgTable()
    offset, taps = tap_axes(core)
    table.declare(
        x=Pointer(core.x.buffer, core.x.offset * core.x.dtype.itemsize), x_n=core.x.strides[0], x_c=core.x.strides[3],
        w=Pointer(core.w.buffer, offset * core.w.dtype.itemsize), w_c=core.w_group, w_h=taps[0].stride,
        w_w=taps[1].stride, out_h=core.out_size[0], tall=tall, width=width,
    )  # fmt: skip
    space = {"n": spec.axes[0], "channel": core.groups, "tile": ceil_div(core.out_size[0], tall)}
    window = [(kh, kw) for kh in range(core.kernel[0]) for kw in range(core.kernel[1])]
    weights = []
    for kh, kw in window:
        value = load(core.w.dtype, "window", f"{kh} * w_h + {kw} * w_w", table.scope(core.w.buffer))
        weights.append(f"w_{kh}_{kw} = {cast(value, core.w.dtype.computed, dtype)}")
    products = [
        f"{load(dtype, 'corner', f'{rows.place(kh, kw)} + j', rows.scope(table))} * w_{kh}_{kw}" for kh, kw in window
    ]
    emitter = BodyEmitter(spec.body, spec.reads, spec.writes, 4, table, core={0: "sum"})
    offsets = scratch_parts(rows.parts)
    lines = [*scratch_lines(offsets, table), *emitter.start()]
    by_image, by_channel = emitter.enter(0, "n"), emitter.enter(3, "channel")
    by_row = ["oh = oh0 + r", *emitter.enter(1, "oh")]
    inside = emitter.enter(2, "s + j", inline=True)
    lines += loop("task", "lo", "hi", [
        *coordinates(table, "task", space),
        "oh0 = tile * tall",
        "tile_h = minimum(tall, out_h - oh0)",
        f"image = x + (n * x_n + channel * x_c) * {core.x.dtype.itemsize}",
        *rows.lines(table),
        f"window = w + channel * w_c * {core.w.dtype.itemsize}",
        *weights,
        *by_image,
        *by_channel,
        *loop("r", "0", "tile_h", [
            *by_row,
            f"for s0 in range(0, width, {lanes}):",
            f"    s = minimum(s0, width - {lanes})",
            f"    corner = {rows.start} + (r * stride_h * {rows.row} + s) * {size}",
            *(f"    {line}" for line in loop("j", "0", str(lanes), [f"sum = {total(*products)}", *inside])),
        ]),
    ])  # fmt: skip
    code = kernel(f"depthwise_rows_{dtype}", lines, table)
    reads = dict.fromkeys([core.x.buffer, core.w.buffer, *(access.buffer for access in spec.reads)])
    writes = dict.fromkeys(access.buffer for access in spec.writes)
    main = Call(code.key, spec.name, table.args, product(space.values()), tuple(reads), tuple(writes), offsets["end"],
                spec.nodes)  # fmt: skip
    return Lowered((main,), (code,))
