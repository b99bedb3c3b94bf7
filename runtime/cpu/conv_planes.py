"""Lowering a convolution of images whose channels are planes: the weights, where they lie, times columns of pixels.

Neighbouring outputs of a row fill the vectors, so images are read and written as they are, and weights, whose taps and
input channels lie side by side, are the rows of the product without being packed; where output channels do, as for the
input gradient of a window of one pixel, a task copies its own. A task takes some output channels of
a run of pixels, which may go over rows and images. For some input channels at a time it copies, for each tap, what its
pixels meet (see conv_planes_copy.py): one row of the product's right side, near the processor.
"""

from __future__ import annotations

import itertools

from engine import dtypes
from engine.dims import Size, ceil_div, product
from engine.dtypes import DType
from engine.program import Call, Lowered, Pointer
from engine.records import dataclass
from engine.schedule import Conv2d, KernelSpec
from runtime.axes import all_strides, regroup
from runtime.choices import pick
from runtime.cpu.contraction import STRIP, TASK_OVERHEAD, THREADS, fitting, row_blocks, share_lines
from runtime.cpu.conv_planes_copy import VECTOR_COST, Copy, by_image
from runtime.cpu.emit import kernel
from runtime.cpu.scratch import scratch_lines, scratch_parts
from runtime.cpu.tiles import LINE, Tile, host_tile
from runtime.emit import SCRATCH, ArgTable, BodyEmitter, indent, load, loop, note, store
from runtime.tasks import coordinates, typical

DEPTH = 256
"""About how many products are added up before the next input channels are copied: a panel of so many rows stays in the
first-level cache."""
MOST_PANELS = 8
MOST_ROWS = 256
NEAR_BYTES = 3 << 18
"""The most that a task works on at a time: it stays in the second-level cache."""
FEW_PLANES = 128
"""Up to so many planes are always read where they lie."""
FALLING = 1024
"""More are not if they are a multiple of so many bytes apart: rows of them fall on each other in the cache."""
COPIED = 4
"""Up to so many products for each output channel, copying what taps meet costs less than turning images over."""
WEIGHT_COST = 0.25
"""What reading a weight takes, in vector multiply-adds."""


def has_planes(spec: KernelSpec) -> bool:
    """Whether this kernel serves ``spec``: planes of a known size in the image and in all results, a body that walks
    the pixels of a plane as one axis, weights that lie output by output, and whole tiles of both."""
    core = spec.core
    if not isinstance(core, Conv2d) or core.groups != 1 or core.x_dilation != (1, 1):
        return False
    x, w = core.x, core.w
    if x.dtype != w.dtype or x.dtype not in (dtypes.f32, dtypes.f64):
        return False
    height, width = core.kernel
    by_output = w.strides[1:] == (height * width, width, 1) and (not core.flip or core.kernel == (1, 1))
    tile = host_tile(x.dtype)
    return (
        all(isinstance(n, int) and n > 0 for n in (*core.in_size, *core.out_size))
        and core.out_channels >= tile.rows and typical(spec.axes[0] * product(core.out_size)) >= tile.columns
        and x.strides[2] == 1 != x.strides[3] and (by_output or _by_input(core))
        and all(access.strides[2] == 1 != access.strides[3] for access in spec.writes)
        and all(s[1] == s[2] * core.out_size[1] for s in all_strides(spec))
    )  # fmt: skip


def _by_input(core: Conv2d) -> bool:
    """Whether the weights of one input channel lie side by side."""
    return core.kernel == (1, 1) and core.w.strides[0] == 1 != core.w.strides[1]


def goes_by_planes(spec: KernelSpec) -> bool:
    """Whether this kernel is to be taken for ``spec``."""
    core = spec.core
    if not isinstance(core, Conv2d) or not has_planes(spec):
        return False
    if core.kernel == (1, 1):
        return pick("image", {"planes": True, "pixels": False})
    # No choice to be measured: all taps of a channel are added up before the next, so sums are rounded otherwise.
    return product(core.kernel) * core.in_channels <= COPIED * core.out_channels


@dataclass(frozen=True)
class _Plan:
    """A task makes ``rows`` output channels of ``panels`` tiles' width of pixels, of ``channels`` input channels at a
    time."""

    core: Conv2d
    tile: Tile
    rows: int
    panels: int
    channels: int

    @property
    def dtype(self) -> DType:
        return self.core.x.dtype

    @property
    def pixels(self) -> int:
        return self.panels * self.tile.columns

    @property
    def copy(self) -> Copy:
        return Copy(self.core, self.dtype, self.tile.lanes, self.pixels)

    @property
    def apart(self) -> bool:
        """Whether a task stays in one image, whose pixels fill whole tiles, the last of which may be narrow."""
        rest = typical(product(self.core.out_size)) % self.tile.columns
        return rest == 0 or fitting(self.tile, rest).columns == rest

    @property
    def in_place(self) -> bool:
        """Whether planes are read where they lie."""
        plane = self.core.x.strides[3] * self.dtype.itemsize
        spread = self.core.in_channels <= FEW_PLANES or (isinstance(plane, int) and plane % FALLING != 0)
        return self.apart and self.copy.as_they_are and spread

    @property
    def weights_pitch(self) -> int:
        """Elements from the weights of one input channel to those of the next, where a task copies its own."""
        return self.rows + LINE // self.dtype.itemsize

    @property
    def whole(self) -> bool:
        """Whether all input channels are met at once."""
        return self.channels >= self.core.in_channels

    @property
    def strip(self) -> int:
        """Rows that are computed before the body runs on them."""
        return min(self.rows, -(-STRIP // self.tile.rows) * self.tile.rows) if self.whole else self.rows

    def parts(self) -> dict[str, int]:
        """Scratch memory, in bytes."""
        parts = {
            "block": self.strip * self.pixels * self.dtype.itemsize,
            "table": (self.rows + self.tile.rows) * 8,
        }  # fmt: skip
        if _by_input(self.core):
            parts["near_weights"] = self.channels * self.weights_pitch * self.dtype.itemsize
        return parts if self.in_place else parts | self.copy.parts(self.channels)

    def time(self, images: int) -> float:
        """What the tasks take of two threads and of eight, of what the products alone would take."""
        core, lanes = self.core, self.tile.lanes
        depth = core.in_channels * self.copy.taps
        plane = typical(product(core.out_size))
        runs, pixels = (images, plane) if self.apart else (1, images * plane)
        blocks = -(-pixels // self.pixels)
        width = pixels / blocks
        tasks = -(-core.out_channels // self.rows) * runs * blocks
        copying = 0.0 if self.in_place else self.copy.time(width)
        if _by_input(core) and not self.whole:
            copying += VECTOR_COST * self.rows / lanes
        task = depth * (self.rows * (width / lanes + WEIGHT_COST) + copying) + TASK_OVERHEAD
        ideal = depth * core.out_channels * runs * pixels / lanes
        return sum(-(-tasks // threads) * task * threads / ideal for threads in THREADS)


def _plan(spec: KernelSpec, core: Conv2d) -> _Plan:
    """The task with which two threads and eight are expected to be done soonest, whose data stays near."""
    tile = host_tile(core.x.dtype)
    taps = typical(product(core.kernel))
    chunks = min(-(-core.in_channels * taps // DEPTH), core.in_channels)
    images = typical(spec.axes[0])

    def near(plan: _Plan) -> bool:
        weights = plan.rows * plan.channels * taps * plan.dtype.itemsize
        return sum(plan.parts().values()) + weights <= NEAR_BYTES

    most = -(-core.out_channels // tile.rows)
    heights = [h for h in sorted({-(-most // n) for n in range(1, most + 1)}) if h * tile.rows <= MOST_ROWS]
    plans = [
        _Plan(core, tile, height * tile.rows, panels, -(-core.in_channels // chunks))
        for height, panels in itertools.product(heights, range(1, MOST_PANELS + 1))
    ]
    plans = [plan for plan in plans if near(plan)] or plans[:1]
    plans.sort(key=lambda plan: plan.time(images))
    return pick("block", {f"{plan.rows} x {plan.pixels}": plan for plan in plans[:8]})


def lower_planes(spec: KernelSpec) -> Lowered:
    """The call for ``spec``, which :func:`has_planes`."""
    core = spec.core
    assert isinstance(core, Conv2d)
    plan, flat = _plan(spec, core), regroup(spec, [(0,), (1, 2), (3,)])
    dtype, size, copy = plan.dtype, plan.dtype.itemsize, plan.copy
    plane, tile = product(core.out_size), plan.tile
    pixels = plane if plan.apart else spec.axes[0] * plane
    table = ArgTable()
    space: dict[str, Size] = {"m_block": ceil_div(core.out_channels, plan.rows)}
    space |= {"n": spec.axes[0]} if plan.apart else {}
    space |= {"p_block": ceil_div(pixels, plan.pixels)}
    table.declare(
        x=Pointer(core.x.buffer, core.x.offset * size), weights=Pointer(core.w.buffer, core.w.offset * size),
        x_n=core.x.strides[0], x_c=core.x.strides[3], w_o=core.w.strides[0], m=core.out_channels, p=pixels,
        m_blocks=space["m_block"], m_tiles=ceil_div(core.out_channels, tile.rows), p_blocks=space["p_block"],
        p_panels=ceil_div(pixels, tile.columns), channels=core.in_channels, slice=plan.channels, taps=copy.taps,
        strip=plan.strip, block_pixels=plan.pixels, plane_pixels=plane,
    )  # fmt: skip
    parts = plan.parts()
    lines = scratch_lines(offsets := scratch_parts(parts), table)
    before, meet, fill = ([], [], []) if plan.in_place else copy.lines(table)
    address = f"weights + ((m0 + minimum(r, rows - 1)) * w_o + c0 * taps) * {size}"
    held, hold = [], []
    if _by_input(core):
        address = f"near_weights + minimum(r, rows - 1) * {size}"
        held, hold = ["held = -1"], _hold_lines(plan, table)
    compute, names = _strip_lines(plan, flat, table, pixels)
    start, finish = ([], []) if _only_stores(plan, flat) else _body_lines(plan, flat, table)
    lines += [*start, *before, *held]
    lines += loop("task", "lo", "hi", [
        *coordinates(table, "task", space),
        *share_lines("m", "m_tiles", tile.rows, "rows"),
        *share_lines("p", "p_panels", tile.columns, "columns"),
        *(["p0 += n * plane_pixels"] if plan.apart else []),
        "stop_pixel = p0 + columns",
        *meet,
        *loop("part", "0", "quotient(channels + slice - 1, slice)", [
            "c0 = part * slice",
            "here = minimum(slice, channels - c0)",
            "deep = here * taps",
            *fill,
            *hold,
            *loop("r", "0", f"rows + {tile.rows - 1}", [
                note("table", "r", address, table.scope(SCRATCH)),
            ]),
            *loop("s", "0", "quotient(rows + strip - 1, strip)", [
                "r0 = s * strip",
                "high = minimum(strip, rows - r0)",
                *compute,
                *finish,
            ]),
        ]),
    ])  # fmt: skip
    code = kernel(f"conv2d_planes_{dtype}", lines, table, modules={"runtime.cpu.microkernel": names})
    reads = dict.fromkeys([core.x.buffer, core.w.buffer, *(access.buffer for access in spec.reads)])
    writes = dict.fromkeys(access.buffer for access in spec.writes)
    main = Call(code.key, spec.name, table.args, product(space.values()), tuple(reads), tuple(writes), offsets["end"],
                spec.nodes)  # fmt: skip
    return Lowered((main,), (code,))


def _hold_lines(plan: _Plan, table: ArgTable) -> list[str]:
    """Lines that copy the weights of a task's rows and of ``here`` input channels, unless they are there already."""
    core, size = plan.core, plan.dtype.itemsize
    table.declare(w_c=core.w.strides[1])
    value = load(plan.dtype, "source", "r", table.scope(core.w.buffer))
    return [
        "wanted = m_block * channels + c0",
        "if held != wanted:",
        "    held = wanted",
        *indent(loop("c", "0", "here", [
            f"source = weights + ((c0 + c) * w_c + m0) * {size}",
            f"line = near_weights + c * {plan.weights_pitch * size}",
            *loop("r", "0", "rows", [store(plan.dtype, "line", "r", value, table.scope(SCRATCH))]),
        ])),
    ]  # fmt: skip


def _only_stores(plan: _Plan, flat: KernelSpec) -> bool:
    """Whether tiles are written where the results belong: the body does nothing else, and they are whole ones."""
    whole = plan.apart and plan.core.out_channels % plan.tile.rows in (0, *plan.tile.heights)
    return whole and [s.op for s in flat.body] == ["core", "store"] and flat.writes[0].dtype == plan.dtype


def _strip_lines(plan: _Plan, flat: KernelSpec, table: ArgTable, pixels: Size) -> tuple[list[str], list[str]]:
    """Lines that multiply ``high`` rows from ``r0`` on by all pixels of the task, and the names of the microkernels."""
    tile, dtype, size = plan.tile, plan.dtype, plan.dtype.itemsize
    corner: list[str] = []
    if plan.apart:
        corner.append("first = p0 + c - n * plane_pixels")
    right, step = f"near + c * {size}", "pitch"
    if plan.in_place:
        corner.append(f"right = x + (n * x_n + c0 * x_c + first) * {size}")
        right, step = "right", "x_c"
    target, down = f"block + (r * block_pixels + c) * {size}", "block_pixels"
    claim: list[str] = []
    if _only_stores(plan, flat):
        (out,) = flat.writes
        table.declare(out=Pointer(out.buffer, out.offset * size), out_n=out.strides[0], out_c=out.strides[2])
        corner.append(f"corner = out + (n * out_n + (m0 + r0) * out_c + first) * {size}")
        target, down = f"corner + r * out_c * {size}", "out_c"
        claim = loop("i", "r", f"minimum(r + {tile.rows}, high)", [
            f"claim(corner + (i * out_c + {at}) * {size})" for at in range(0, tile.columns, LINE // size)
        ])  # fmt: skip
    unit_k = not _by_input(plan.core)
    step_k = 1 if unit_k else plan.weights_pitch
    call = (
        f"{{tile}}(1, deep, {step_k * size}, table + (r0 + r) * 8, {right}, {step} * {size}, "
        f"{target}, {down} * {size}, c0)"
    )

    def blocks(tile: Tile) -> tuple[list[str], list[str]]:
        names = [tile.name(dtype, height, unit_k, False) for height in tile.heights]
        first, *rest = row_blocks(names, tile.heights, call, "0", "high")
        return [first, *indent(claim), *rest], names

    multiply, names = blocks(tile)
    rest = pixels % tile.columns if isinstance(pixels, int) else 0
    last = fitting(tile, rest) if rest else tile
    if last != tile:
        narrow, more = blocks(last)
        multiply = [f"if columns - c > {last.columns}:", *indent(multiply), "else:", *indent(narrow)]
        names += more
    return [f"for c in range(0, columns, {tile.columns}):", *indent([*corner, *_fetch_lines(plan), *multiply])], names


def _fetch_lines(plan: _Plan) -> list[str]:
    """Lines that ask for a part of what comes next, so that it is near when its turn comes: of the pixels of the panel
    at ``c`` what the next input channels hold or, after the last ones, of the pixels of the next task the first. Every
    strip of rows asks for its share of the channels."""
    if not plan.in_place:
        return []
    size = plan.dtype.itemsize
    return [
        "strips = quotient(rows + strip - 1, strip)",
        f"ahead = x + (n * x_n + first + c0 * x_c) * {size}",
        f"ahead += slice * x_c * {size} if c0 + slice < channels else (columns - c0 * x_c) * {size}",
        *loop("i", "quotient(here * s, strips)", "quotient(here * (s + 1), strips)", [
            f"fetch(ahead + (i * x_c + {at}) * {size})" for at in range(0, plan.tile.columns, LINE // size)
        ]),
    ]  # fmt: skip


def _body_lines(plan: _Plan, flat: KernelSpec, table: ArgTable) -> tuple[list[str], list[str]]:
    """Lines before all tasks, and those that run the body on ``high`` rows from ``r0`` on once they are summed up."""
    values = load(plan.dtype, "values", "j", table.scope(SCRATCH))
    emitter = BodyEmitter(flat.body, flat.reads, flat.writes, 3, table, core={0: values})
    start = emitter.start()
    image, channel = emitter.enter(0, "n"), emitter.enter(2, "m0 + r0 + r")
    inside = emitter.enter(1, "j", inline=True)
    walk = by_image([
        *image,
        *loop("r", "0", "high", [
            *channel,
            f"values = block + (r * block_pixels + at - p0 - first) * {plan.dtype.itemsize}",
            *loop("j", "first", "stop", inside),
        ]),
    ])  # fmt: skip
    return start, ["if c0 + slice >= channels:", *indent(walk)]
