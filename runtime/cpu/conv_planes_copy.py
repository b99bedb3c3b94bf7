"""What the pixels of a task meet of some planes, as rows that lie near the processor: one for each channel and tap.

Where a window has one pixel, the pixels that are met are copied as they come. Otherwise a plane is copied with its
padding first, columns that are a stride apart side by side; of that, a tap meets one run for each row of outputs. Of
these whole vectors are copied: what they hold beyond the end of a run is written over by the next one.
"""

from __future__ import annotations

from engine import dtypes
from engine.dims import product
from engine.dtypes import DType
from engine.records import dataclass
from engine.schedule import Conv2d
from runtime.cpu.tiles import LINE
from runtime.emit import SCRATCH, ArgTable, constant, indent, load, loop, note, store, times
from runtime.tasks import typical
from runtime.windows import always_inside, reach

VECTOR_COST = 10.0
"""What copying a vector takes, in vector multiply-adds, and beginning a run."""
PLANE = "$plane"
"""The name under which the copy of a plane has its alias scope: it is read while rows are written."""


def by_image(lines: list[str]) -> list[str]:
    """``lines`` for the pixels ``first .. stop`` of each image ``n`` that the task's ``p0 .. stop_pixel`` are in;
    ``at`` is the number in all images of the first of these."""
    return [
        "at = p0",
        "while at < stop_pixel:",
        *indent([
            "n = quotient(at, plane_pixels)",
            "first = at - n * plane_pixels",
            "stop = minimum(plane_pixels, first + stop_pixel - at)",
            *lines,
            "at += stop - first",
        ]),
    ]  # fmt: skip


@dataclass(frozen=True)
class Copy:
    """The rows that at most ``pixels`` outputs of ``core`` meet, in vectors of ``lanes``."""

    core: Conv2d
    dtype: DType
    lanes: int
    pixels: int

    @property
    def taps(self) -> int:
        return product(self.core.kernel)  # type: ignore[return-value]

    @property
    def pitch(self) -> int:
        """Elements from one row to the next: an odd number of cache lines where a vector is a line."""
        return self.pixels + LINE // self.dtype.itemsize

    @property
    def single(self) -> bool:
        """Whether every output meets one pixel."""
        core = self.core
        return self.taps == 1 and always_inside(
            core.in_size, core.out_size, core.kernel, core.stride, core.padding, core.dilation
        )

    @property
    def as_they_are(self) -> bool:
        """Whether outputs meet the pixels of a plane one after the other."""
        core = self.core
        return self.single and core.stride == (1, 1) and core.x.strides[1] == core.in_size[1]

    @property
    def _reach(self) -> int:
        """Rows of a plane that one output meets."""
        return reach(self.core.kernel[0], self.core.dilation[0])

    @property
    def _tall(self) -> int:
        """Rows of a plane with its padding, as far as outputs meet them."""
        return (typical(self.core.out_size[0]) - 1) * self.core.stride[0] + self._reach

    @property
    def _phase(self) -> int:
        """Columns of a plane with its padding that are a stride apart, as far as outputs meet them."""
        core = self.core
        across = (typical(core.out_size[1]) - 1) * core.stride[1] + reach(core.kernel[1], core.dilation[1])
        return -(-across // core.stride[1])

    @property
    def _runs(self) -> int:
        """The most output rows of a task."""
        return (self.pixels - 2) // typical(self.core.out_size[1]) + 2

    @property
    def _height(self) -> int:
        """The most rows of a plane's copy, which may begin in one image and end in another."""
        down = self.core.stride[0]
        images = (self._runs - 2) // typical(self.core.out_size[0]) + 1
        return (self._runs - 1) * down + images * max(self._reach - down, 0) + self._reach

    def time(self, width: float) -> float:
        """What copying one row of ``width`` pixels takes, in vector multiply-adds."""
        runs = 1 if self.as_they_are else width / typical(self.core.out_size[1])
        return VECTOR_COST * (width / self.lanes + runs)

    def parts(self, channels: int) -> dict[str, int]:
        """Scratch memory in bytes, for so many channels at a time."""
        size = self.dtype.itemsize
        parts = {"near": channels * self.taps * self.pitch * size}
        if not self.single:
            plane = self._height * self.core.stride[1] * self._phase * size
            parts |= {"plane": plane + LINE, "tap_at": self.taps * 8, "runs": 3 * self._runs * 8}
        return parts

    def lines(self, table: ArgTable) -> tuple[list[str], list[str], list[str]]:
        """Lines before all tasks, lines before the products of one, and lines that fill the rows at ``near`` with what
        the task's pixels meet of ``here`` channels from ``c0`` on."""
        core = self.core
        table.declare(pitch=self.pitch)
        if not self.as_they_are:
            table.declare(x_h=core.x.strides[1], out_h=core.out_size[0], out_w=core.out_size[1],
                          stride_h=core.stride[0])  # fmt: skip
        if self.single:
            return [], [], self._single_lines(table)
        return self._tap_lines(table), self._run_lines(table), self._plane_lines(table)

    def _single_lines(self, table: ArgTable) -> list[str]:
        image, near = table.scope(self.core.x.buffer), table.scope(SCRATCH)
        size = self.dtype.itemsize

        def copied(source: str, index: str) -> list[str]:
            return loop("c", "0", "here", [
                f"source = x + (n * x_n + (c0 + c) * x_c{source}) * {size}",
                f"line = near + (c * pitch + at - p0 - first) * {size}",
                *loop("j", "first", "stop", [
                    store(self.dtype, "line", "j", load(self.dtype, "source", index, image), near),
                ]),
            ])  # fmt: skip

        if self.as_they_are:
            return by_image(copied("", "j"))
        step = self.core.stride[1]
        return [
            "at = p0",
            "while at < stop_pixel:",
            *indent([
                "row = quotient(at, out_w)",
                "n = quotient(row, out_h)",
                "first = at - row * out_w",
                "stop = minimum(out_w, first + stop_pixel - at)",
                *copied(" + (row - n * out_h) * stride_h * x_h", times("j", str(step))),
                "at += stop - first",
            ]),
        ]  # fmt: skip

    def _tap_lines(self, table: ArgTable) -> list[str]:
        """Lines that clear the copy of a plane, whose padding stays so, and write down where in it taps begin."""
        core, size, step = self.core, self.dtype.itemsize, self.core.stride[1]
        table.declare(
            plane_size=self._height * step * self._phase, kernel_h=core.kernel[0], kernel_w=core.kernel[1],
            dilation_h=core.dilation[0], dilation_w=core.dilation[1], across=step * self._phase, phase=self._phase,
        )  # fmt: skip
        return [
            *loop("v", "0", "plane_size", [
                store(self.dtype, "plane", "v", constant(0, self.dtype), table.scope(PLANE)),
            ]),
            *loop("kh", "0", "kernel_h", loop("kw", "0", "kernel_w", [
                f"column = quotient(kw * dilation_w, {step})",
                f"offset = kh * dilation_h * across + (kw * dilation_w - column * {step}) * phase + column",
                note("tap_at", "kh * kernel_w + kw", f"offset * {size}", table.scope(SCRATCH)),
            ])),
        ]  # fmt: skip

    def _run_lines(self, table: ArgTable) -> list[str]:
        """Lines that write down, for each row of outputs, where its first tap meets the copy of a plane, where in a row
        its pixels are, and how many; ``y0`` and ``high`` are the first row of the copy, counted in all images, and the
        number of rows."""
        size, scope = self.dtype.itemsize, table.scope(SCRATCH)
        table.declare(tall=self._tall, reach_h=self._reach)
        return [
            "runs_met = 0",
            "y0 = 0",
            "y = 0",
            "at = p0",
            "while at < stop_pixel:",
            *indent([
                "row = quotient(at, out_w)",
                "first = at - row * out_w",
                "n = quotient(row, out_h)",
                "y = n * tall + (row - n * out_h) * stride_h",
                "y0 = y if at == p0 else y0",
                "length = minimum(out_w - first, stop_pixel - at)",
                note("runs", "3 * runs_met", f"plane + ((y - y0) * across + first) * {size}", scope),
                note("runs", "3 * runs_met + 1", f"near + (at - p0) * {size}", scope),
                note("runs", "3 * runs_met + 2", "length", scope),
                "runs_met += 1",
                "at += length",
            ]),
            "plane_rows = y - y0 + reach_h",
        ]  # fmt: skip

    def _plane_lines(self, table: ArgTable) -> list[str]:
        core, dtype, size, lanes = self.core, self.dtype, self.dtype.itemsize, self.lanes
        near, plane, image = (table.scope(name) for name in (SCRATCH, PLANE, core.x.buffer))
        step = core.stride[1]
        table.declare(in_h=core.in_size[0], in_w=core.in_size[1], pad_h=core.padding[0], pad_w=core.padding[1])
        value = load(dtype, "source", times("v", str(step)), image)

        def columns(line: str) -> list[str]:
            return loop("v", "first", "last", [line])

        vector = store(dtype, "line", "v + j", load(dtype, "begin", "v + j", plane), near)
        return loop("c", "0", "here", [
            *loop("y", "0", "plane_rows", [
                "n = quotient(y0 + y, tall)",
                "ih = y0 + y - n * tall - pad_h",
                "inside = ih >= 0 and ih < in_h",
                f"for number in range({step}):",
                *indent([
                    f"first = quotient(maximum(pad_w - number, 0) + {step - 1}, {step})",
                    f"last = minimum(phase, quotient(in_w + pad_w - number + {step - 1}, {step}))",
                    f"line = plane + (y * across + number * phase) * {size}",
                    "if inside:",
                    f"    source = x + (n * x_n + (c0 + c) * x_c + ih * x_h + number - pad_w) * {size}",
                    *indent(columns(store(dtype, "line", "v", value, plane))),
                    "else:",
                    *indent(columns(store(dtype, "line", "v", constant(0, dtype), plane))),
                ]),
            ]),
            *loop("i", "0", "runs_met", [
                f"start = {load(dtypes.i64, 'runs', '3 * i', near)}",
                f"line = {load(dtypes.i64, 'runs', '3 * i + 1', near)} + c * taps * pitch * {size}",
                f"length = {load(dtypes.i64, 'runs', '3 * i + 2', near)}",
                *loop("t", "0", "taps", [
                    f"begin = start + {load(dtypes.i64, 'tap_at', 't', near)}",
                    f"for v in range(0, length, {lanes}):",
                    *indent(loop("j", "0", str(lanes), [vector])),
                    f"line += pitch * {size}",
                ]),
            ]),
        ])  # fmt: skip
