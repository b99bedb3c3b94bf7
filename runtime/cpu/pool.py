"""Max pooling, its gradient, and the gradient of that, vectorised over the channels.

A task is some rows of the output. Where every window lies inside the input, its taps are unrolled and the maximum
stays in registers; elsewhere the taps are walked with clipped ranges, and the maxima of a strip of channels live in
scratch memory. The gradient gathers: each input point asks the windows it lies in whether they chose it, so nothing
is cleared or added to twice. Where windows do not overlap there is one to ask, and every point is written straight.
"""

from __future__ import annotations

from dataclasses import replace

from engine import dims
from engine.dims import Size
from engine.dtypes import DType, i32
from engine.program import Lowered
from engine.schedule import KernelSpec, MaxPool2d, MaxPool2dGather, MaxPool2dGrad, Stmt
from runtime.cpu.emit import kernel
from runtime.cpu.loops import TASK_POINTS
from runtime.cpu.scratch import ScratchLayout
from runtime.emit import SCRATCH, ArgTable, BodyEmitter, call, constant, indent, load, loop, store, times, total
from runtime.reductions import extreme
from runtime.tasks import typical
from runtime.windows import always_inside, better, may_unroll, reach

_STRIP = 512
"""Channels whose maxima or sums are held in scratch at a time."""
_MOST_LITERAL_CHANNELS = 128
_CHANNEL = 3
_POSITION = "$position"


def lower_pool(spec: KernelSpec) -> Lowered:
    """A kernel for ``spec`` with a pooling core that is not fused into a convolution."""
    match spec.core:
        case MaxPool2d():
            return _MaxPool(spec, spec.core).lowered()
        case MaxPool2dGrad():
            tiled = _windows_tile(spec, spec.core)
            return (_TiledMaxPoolGrad if tiled else _MaxPoolGrad)(spec, spec.core).lowered()
        case MaxPool2dGather():
            return _MaxPoolGather(spec, spec.core).lowered()
    raise AssertionError(spec.core)


class _PoolKernel:
    """What the three have in common: a body over the kernel's axes, an inner body, and rows as tasks.

    Generated names: ``n``, ``y``, ``x``, ``c`` count the kernel's axes.
    """

    def __init__(self, spec: KernelSpec, core: MaxPool2d | MaxPool2dGrad | MaxPool2dGather):
        self.spec = spec
        channels = spec.axes[_CHANNEL]
        self.literal = isinstance(channels, int) and channels <= _MOST_LITERAL_CHANNELS
        self.table = ArgTable()
        self.scratch = ScratchLayout()
        self.value = core.inner[-1].name
        self.dtype = core.inner[-1].dtype.computed
        inner, reads = core.inner, spec.reads
        if not isinstance(core, MaxPool2d):
            self.spec = replace(spec, reads=(*spec.reads, core.position))
        if isinstance(core, MaxPool2dGrad):  # whose positions are read at the same points as its inner body
            inner, reads = (*inner, Stmt(_POSITION, "load", (len(reads),), core.position.dtype)), self.spec.reads
        self.inner = BodyEmitter(inner, reads, (), 4, self.table, tag="u")
        outputs = {0: "best", 1: "uint8(position)"} if isinstance(core, MaxPool2d) else {0: "gathered"}
        self.outer = BodyEmitter(spec.body, spec.reads, spec.writes, 4, self.table, core=outputs)

    @property
    def rows(self) -> tuple[Size, Size]:
        """The rows of an image that tasks count, and the points in one."""
        return self.spec.axes[1], self.spec.axes[2] * self.spec.axes[3]

    def lowered(self) -> Lowered:
        spec, table = self.spec, self.table
        in_image, points = self.rows
        rows = spec.axes[0] * in_image
        per_task = max(1, TASK_POINTS // max(1, typical(points)))
        start = self.inner.start() + self.outer.start()
        height = table.size(in_image)
        head = [f"n = quotient(row, {height})", f"y = row - n * {height}"]
        head += self.inner.enter(0, "n") + self.outer.enter(0, "n")
        row = head + self.row()
        step = table.size(per_task)
        lines = [*start, *loop("row", times("lo", step), f"min({times('hi', step)}, {table.size(rows)})", row)]
        code = kernel(spec.name, lines, table)
        tasks = dims.ceil_div(rows, per_task)
        return Lowered((call(spec, code, table, tasks, self.scratch.size),), (code,))

    def row(self) -> list[str]:
        """The lines that make row ``y`` of image ``n``."""
        raise NotImplementedError

    def channels(self, body: list[str], strip: bool = False) -> list[str]:
        """A loop over all channels, or over those of a strip."""
        size = self.spec.axes[_CHANNEL]
        bounds = ("0", str(size) if self.literal else self.table.size(size))
        if strip and not self.literal:
            bounds = ("left", "right")
        return loop("c", *bounds, body)

    def strips(self, body: list[str]) -> list[str]:
        """A loop over strips of channels around ``body``."""
        if self.literal:
            return body
        count = self.table.size(self.spec.axes[_CHANNEL])
        return [f"for left in range(0, {count}, {_STRIP}):", *indent([f"right = min(left + {_STRIP}, {count})", *body])]

    def place(self) -> str:
        """Where channel ``c`` is held."""
        return "c" if self.literal else "c - left"

    def held(self, dtype: DType) -> tuple[str, int]:
        """Address and alias scope of one value of ``dtype`` for each channel of a strip."""
        place = self.scratch.take(_STRIP, max(4, dtype.itemsize))
        return total("scratch", str(place)), self.table.scope(f"{SCRATCH}{place}")


class _MaxPool(_PoolKernel):
    def __init__(self, spec: KernelSpec, core: MaxPool2d):
        super().__init__(spec, core)
        self.core = core
        self.wants_position = any(s.op == "core" and s.args[0] == 1 for s in spec.body)

    def row(self) -> list[str]:
        core = self.core
        inside = always_inside(core.in_size, self.spec.axes[1:3], core.kernel, core.stride, core.padding, core.dilation)
        unrolled = inside and may_unroll(core.kernel)
        entered = self.outer.enter(1, "y")
        head = self.outer.enter(2, "x")
        body = self._unrolled() if unrolled else self._clipped()
        return entered + loop("x", "0", self.table.size(self.spec.axes[2]), head + body)

    def _unrolled(self) -> list[str]:
        core = self.core
        lines, body = [], []
        for tap in range(core.kernel[0] * core.kernel[1]):
            at = [divmod(tap, core.kernel[1])[a] * core.dilation[a] for a in (0, 1)]
            here = self.inner.fork(tag=f"u{tap}_")
            lines += here.enter(1, total(times("y", str(core.stride[0])), str(at[0])))
            lines += here.enter(2, total(times("x", str(core.stride[1])), str(at[1])))
            body += here.enter(_CHANNEL, "c", inline=True)
            value = here.value(self.value)
            if tap == 0:
                body += [f"best = {value}"] + (["position = int32(0)"] if self.wants_position else [])
            elif self.wants_position:
                body += [f"better = {better(value, 'best', self.dtype)}", f"best = select(better, {value}, best)",
                         f"position = select(better, int32({tap}), position)"]  # fmt: skip
            else:
                body.append(f"best = maximum(best, {value})")
        return lines + self.channels(body + self.outer.enter(_CHANNEL, "c", inline=True))

    def _clipped(self) -> list[str]:
        core, table = self.core, self.table
        best, best_scope = self.held(self.dtype)
        position, position_scope = self.held(i32)
        lines = []
        windows = zip("yx", core.in_size, core.kernel, core.stride, core.padding, core.dilation, strict=True)
        for axis, extent, count, stride, padding, dilation in windows:
            size = table.size(extent)
            lines += [
                f"origin_{axis} = {times(axis, str(stride))} - {padding}",
                f"first_{axis} = quotient(max(-origin_{axis}, 0) + {dilation - 1}, {dilation})",
                f"last_{axis} = min(quotient(max({size} - origin_{axis}, 0) + {dilation - 1}, {dilation}), {count})",
            ]
        place = self.place()
        lowest = constant(extreme(self.dtype, largest=False), self.dtype)
        clear = [store(self.dtype, best, place, lowest, best_scope),
                 store(i32, position, place, "int32(-1)", position_scope)]  # fmt: skip
        update = self.inner.enter(1, f"origin_y + ky * {core.dilation[0]}")
        column = self.inner.enter(2, f"origin_x + kx * {core.dilation[1]}")
        body = self.inner.enter(_CHANNEL, "c", inline=True)
        value = self.inner.value(self.value)
        # The position -1 marks a window with no value yet: its first value is taken even where it is the lowest.
        body += [
            f"best = {load(self.dtype, best, place, best_scope)}",
            f"position = {load(i32, position, place, position_scope)}",
            f"better = ({better(value, 'best', self.dtype)}) | (position < int32(0))",
            store(self.dtype, best, place, f"select(better, {value}, best)", best_scope),
            store(i32, position, place, f"select(better, int32(ky * {core.kernel[1]} + kx), position)", position_scope),
        ]
        across = loop("kx", "first_x", "last_x", column + self.channels(body, True))
        taps = loop("ky", "first_y", "last_y", update + across)
        finish = [f"best = {load(self.dtype, best, place, best_scope)}",
                  f"position = {load(i32, position, place, position_scope)}"]  # fmt: skip
        finish += self.outer.enter(_CHANNEL, "c", inline=True)
        return lines + self.strips([*self.channels(clear, True), *taps, *self.channels(finish, True)])


class _MaxPoolGrad(_PoolKernel):
    def __init__(self, spec: KernelSpec, core: MaxPool2dGrad):
        super().__init__(spec, core)
        self.core = core

    def row(self) -> list[str]:
        core = self.core
        entered = self.outer.enter(1, "y")
        apart = all(s >= reach(k, d) for k, s, d in zip(core.kernel, core.stride, core.dilation, strict=True))
        return entered + (self._straight() if apart else self._summed())

    def _chosen(self) -> str:
        """The gradient of the window where it chose position ``tap``, else 0."""
        stored, value = self.inner.value(_POSITION), self.inner.value(self.value)
        return f"select(int32({stored}) == tap, {value}, {constant(0, self.dtype)})"

    def _tap(self, axis: int, inside: str) -> list[str]:
        """Lines for the tap that lies ``inside`` a window's stride, and whether there is one."""
        name, dilation = "yx"[axis], self.core.dilation[axis]
        lines = [f"tap_{name} = {inside if dilation == 1 else f'quotient({inside}, {dilation})'}"]
        found = f"(tap_{name} < {self.core.kernel[axis]})"
        if dilation > 1:
            found += f" & (tap_{name} * {dilation} == {inside})"
        return [*lines, f"found_{name} = (window_{name} < {self.table.size(self.core.out_size[axis])}) & {found}"]

    def _straight(self) -> list[str]:
        """Every point is in one window at most. Columns go window by window, which saves a division a point."""
        core, table = self.core, self.table
        (sy, sx), (py, px) = core.stride, core.padding
        rows, columns = (table.size(size - 1) for size in core.out_size)
        width = self.spec.axes[2]
        head = [f"window_y = quotient(y + {py}, {sy})", *self._tap(0, f"(y + {py} - window_y * {sy})"),
                f"at_y = min(window_y, {rows})", *self.inner.enter(1, "at_y")]  # fmt: skip
        window = [f"at_x = min(window_x, {columns})", *self.inner.enter(2, "at_x")]
        point = self._tap(1, "inside")
        point.append(f"tap = int32(select(found_y & found_x, tap_y * {core.kernel[1]} + tap_x, -1))")
        point += self.outer.enter(2, "x")
        body = self.inner.enter(_CHANNEL, "c", inline=True)
        body += [f"gathered = {self._chosen()}", *self.outer.enter(_CHANNEL, "c", inline=True)]
        inside = [f"x = window_x * {sx} + inside - {px}", f"if (x >= 0) & (x < {table.size(width)}):",
                  *indent(point + self.channels(body))]  # fmt: skip
        windows = table.size(dims.ceil_div(width + px, sx))
        return head + loop("window_x", "0", windows, window + loop("inside", "0", str(sx), inside))

    def _summed(self) -> list[str]:
        """Windows overlap: the sum over those that hold a point, for a strip of channels in scratch."""
        core, table = self.core, self.table
        pointer, scope = self.held(self.dtype)
        place = self.place()
        read = load(self.dtype, pointer, place, scope)
        clear = self.channels([store(self.dtype, pointer, place, constant(0, self.dtype), scope)], True)
        parts = []
        for axis, name in enumerate("yx"):
            stride, count = core.stride[axis], table.size(core.out_size[axis])
            parts.append([
                f"start_{name} = {name} + {core.padding[axis]} - k{name} * {core.dilation[axis]}",
                f"window_{name} = quotient(max(start_{name}, 0), {stride})",
                f"if (window_{name} * {stride} == start_{name}) & (window_{name} < {count}):",
            ])  # fmt: skip
        row, column = self.inner.enter(1, "window_y"), self.inner.enter(2, "window_x")
        column.append(f"tap = int32(ky * {core.kernel[1]} + kx)")
        body = self.inner.enter(_CHANNEL, "c", inline=True)
        body.append(store(self.dtype, pointer, place, f"{read} + {self._chosen()}", scope))
        across = loop("kx", "0", str(core.kernel[1]), parts[1] + indent(column + self.channels(body, True)))
        down = loop("ky", "0", str(core.kernel[0]), parts[0] + indent(row + across))
        head = self.outer.enter(2, "x")
        finish = [f"gathered = {read}", *self.outer.enter(_CHANNEL, "c", inline=True)]
        return loop("x", "0", table.size(self.spec.axes[2]),
                    head + self.strips(clear + down + self.channels(finish, True)))  # fmt: skip


def _windows_tile(spec: KernelSpec, core: MaxPool2dGrad) -> bool:
    """Whether every input point lies in exactly one window."""
    return (
        core.kernel == core.stride
        and core.padding == (0, 0)
        and core.dilation == (1, 1)
        and may_unroll(core.kernel)
        and all(size * k == whole for size, k, whole in zip(core.out_size, core.kernel, spec.axes[1:3], strict=True))
    )


class _TiledMaxPoolGrad(_PoolKernel):
    """Windows tile the input: each is read once, and all its points are written. A row is a row of windows."""

    def __init__(self, spec: KernelSpec, core: MaxPool2dGrad):
        super().__init__(spec, core)
        self.core = core

    @property
    def rows(self) -> tuple[Size, Size]:
        height, width = self.core.out_size
        return height, width * dims.product(self.core.kernel) * self.spec.axes[_CHANNEL]

    def row(self) -> list[str]:
        kernel = self.core.kernel
        lines = self.inner.enter(1, "y")
        window = self.inner.enter(2, "x")
        body = self.inner.enter(_CHANNEL, "c", inline=True)
        value, position = self.inner.value(self.value), f"int32({self.inner.value(_POSITION)})"
        for ky in range(kernel[0]):
            band = self.outer.fork(tag=f"y{ky}_")
            lines += [f"y_{ky} = y * {kernel[0]} + {ky}", *band.enter(1, f"y_{ky}")]
            for kx in range(kernel[1]):
                chosen = f"select({position} == {ky * kernel[1] + kx}, {value}, {constant(0, self.dtype)})"
                point = band.fork(core={0: chosen}, tag=f"y{ky}x{kx}_")
                window += [f"x_{ky}_{kx} = x * {kernel[1]} + {kx}", *point.enter(2, f"x_{ky}_{kx}")]
                body += point.enter(_CHANNEL, "c", inline=True)
        return lines + loop("x", "0", self.table.size(self.core.out_size[1]), window + self.channels(body))


class _MaxPoolGather(_PoolKernel):
    def __init__(self, spec: KernelSpec, core: MaxPool2dGather):
        super().__init__(spec, core)
        self.core = core
        body = (Stmt(_POSITION, "load", (0,), core.position.dtype),)
        self.position = BodyEmitter(body, (core.position,), (), 4, self.table, tag="k")

    def row(self) -> list[str]:
        core = self.core
        start = self.position.start() + self.position.enter(0, "n") + self.position.enter(1, "y")
        start += self.outer.enter(1, "y")
        head = self.position.enter(2, "x") + self.outer.enter(2, "x")
        body = self.position.enter(_CHANNEL, "c", inline=True)
        body += [
            f"tap = int64({self.position.value(_POSITION)})",
            f"tap_y = quotient(tap, {core.kernel[1]})",
            f"at_y = y * {core.stride[0]} - {core.padding[0]} + tap_y * {core.dilation[0]}",
            f"at_x = x * {core.stride[1]} - {core.padding[1]} + (tap - tap_y * {core.kernel[1]}) * {core.dilation[1]}",
        ]
        body += self.inner.enter(1, "at_y") + self.inner.enter(2, "at_x") + self.inner.enter(_CHANNEL, "c", inline=True)
        body += [f"gathered = {self.inner.value(self.value)}", *self.outer.enter(_CHANNEL, "c", inline=True)]
        return start + loop("x", "0", self.table.size(self.spec.axes[2]), head + self.channels(body))
