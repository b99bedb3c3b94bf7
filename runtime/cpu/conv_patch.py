"""The part of an image that one tile of a convolution reads, copied into scratch with its padding.

In the copy, ``[row][column][channel]`` without gaps, every tap of every output point is at a fixed distance from the
point's own address: padding, dilated inputs, groups and whatever strides the image has are dealt with once, while
copying, and channels of neighbouring columns lie side by side, so that a row of taps is one run.
"""

from __future__ import annotations

from engine.dtypes import DType
from engine.records import dataclass
from engine.schedule import Conv2d, ConvWeightGrad
from runtime.cpu.tiles import host_tile
from runtime.cpu.turned import square_lines, turning
from runtime.emit import ArgTable, cast, constant, indent, load, loop, store, times, total

FEW_CHANNELS = 4
"""So few are copied together: stores to neighbours are vectors then."""


@dataclass(frozen=True)
class Patch:
    """The input of a tile of at most ``tile[0]`` x ``tile[1]`` output points of ``core``, for one group's channels.

    ``dtype`` is that of the copy; ``channels`` are copied from each pixel.
    """

    core: Conv2d | ConvWeightGrad
    tile: tuple[int, int]
    channels: int
    dtype: DType

    def extent(self, axis: int) -> int:
        """Input positions that the tile spans along ``axis`` (0 rows, 1 columns)."""
        return (self.tile[axis] - 1) * self.core.stride[axis] + self.reach(axis)

    def reach(self, axis: int) -> int:
        """Input positions that one output point spans."""
        return (self.core.kernel[axis] - 1) * self.core.dilation[axis] + 1

    @property
    def pitch(self) -> int:
        """Elements from one row to the next."""
        return self.extent(1) * self.channels

    @property
    def bytes(self) -> int:
        return self.extent(0) * self.pitch * self.dtype.itemsize

    def step(self, axis: int) -> int:
        """Bytes from one output point's first input to that of the next."""
        return (self.pitch, self.channels)[axis] * self.core.stride[axis] * self.dtype.itemsize

    def tap(self, axis: int, window: Conv2d | ConvWeightGrad | None = None) -> int:
        """Bytes from one tap to the next, of ``core`` or of another ``window`` over this patch."""
        return (self.pitch, self.channels)[axis] * (window or self.core).dilation[axis] * self.dtype.itemsize

    def runs(self, window: Conv2d | ConvWeightGrad | None = None) -> tuple[int, int]:
        """(taps across, elements) of ``core`` or ``window``: with columns not dilated, a row of taps is one run of
        elements."""
        window = window or self.core
        width = window.kernel[1]
        return (1, width * self.channels) if window.dilation[1] == 1 else (width, self.channels)

    @property
    def _x_dilation(self) -> tuple[int, int]:
        return self.core.x_dilation if isinstance(self.core, Conv2d) else (1, 1)

    @property
    def turns(self) -> bool:
        """Whether columns lie side by side in the image, as rows of one channel: they are turned over in squares."""
        x = self.core.x
        return (
            x.strides[2] == 1 and x.strides[3] != 1 and x.dtype == self.dtype and self._x_dilation == (1, 1)
            and self.channels >= host_tile(self.dtype).lanes
        )  # fmt: skip

    @property
    def modules(self) -> dict[str, list[str]]:
        """What :meth:`copy_lines` import."""
        return turning(self.dtype, host_tile(self.dtype).lanes) if self.turns else {}

    @property
    def keeps(self) -> bool:
        """Whether rows that the next tile reads too are kept: where copying them once more costs more than moving."""
        return self.turns and self.reach(0) > self.core.stride[0]

    @property
    def start_lines(self) -> list[str]:
        """What :meth:`copy_lines` need before the first tile."""
        return ["kept_from = 0", "kept_w = 0", "kept_h = 0", "kept_rows = 0"] if self.keeps else []

    def copy_lines(self, table: ArgTable, scope: int, keep: bool = False) -> list[str]:
        """Lines that fill ``patch`` for the tile at output row ``oh0`` and column ``ow0``, ``tile_h`` rows high; with
        ``keep`` those that are in it already are not copied again, for which :attr:`start_lines` come first.

        ``image`` is the address of the first channel of the image's first pixel. Positions count in the dilated
        input; the tile's first is (``start_h``, ``start_w``). Columns ``first .. last`` of the input are in it.
        """
        x, size = self.core.x, self.dtype.itemsize
        dilated = self._x_dilation != (1, 1)
        self.declare(table)
        table.declare(x_h=x.strides[1])

        def clear(first: str, last: str) -> list[str]:
            return self.clear_lines(first, last, scope)

        if dilated:
            table.declare(x_dilation_h=self._x_dilation[0], x_dilation_w=self._x_dilation[1])
            head = [
                "first = quotient(maximum(start_w, 0) + x_dilation_w - 1, x_dilation_w)",
                "last = minimum(in_w, quotient(maximum(start_w + patch_w, 0) + x_dilation_w - 1, x_dilation_w))",
            ]
            row = ["ih = quotient(position, x_dilation_h)", "inside = position >= 0 and ih * x_dilation_h == position"]
            copied = [*clear("0", "pitch"), *self.copy_line(table, scope, "(iw * x_dilation_w - start_w)")]
        else:
            head = [
                "first = maximum(start_w, 0)",
                "last = maximum(first, minimum(in_w, start_w + patch_w))",
                "left = minimum(first - start_w, patch_w) * channels",
                "right = minimum(last - start_w, patch_w) * channels",
            ]
            row = ["ih = position", "inside = ih >= 0"]
            copied = [*clear("0", "left"), *self.copy_line(table, scope, "(iw - start_w)"), *clear("right", "pitch")]
        return [
            "start_h = oh0 * stride_h - pad_h",
            "start_w = ow0 * stride_w - pad_w",
            "patch_rows = (tile_h - 1) * stride_h + reach_h",
            *head,
            *(self._keep_lines(scope) if keep and self.keeps else []),
            *loop("row", "fresh" if keep and self.keeps else "0", "patch_rows", [
                f"line = patch + row * pitch * {size}",
                "position = start_h + row",
                *row,
                "if inside and ih < in_h:",
                *indent([f"source = image + ih * x_h * {x.dtype.itemsize}", *copied]),
                "else:",
                *indent(clear("0", "pitch")),
            ]),
        ]  # fmt: skip

    def _keep_lines(self, scope: int) -> list[str]:
        """Lines that move up the rows of the last tile which this one, below it, reads too; ``fresh`` is the first row
        that has to be copied."""
        size = self.dtype.itemsize
        moved = store(self.dtype, "line", "v", load(self.dtype, "below", "v", scope), scope)
        return [
            "down = start_h - kept_h",
            "same = image == kept_from and start_w == kept_w and down >= 0",
            "fresh = minimum(maximum(kept_rows - down, 0), patch_rows) if same else 0",
            "if down > 0:",
            *indent(loop("row", "0", "fresh", [
                f"line = patch + row * pitch * {size}",
                f"below = line + down * pitch * {size}",
                *loop("v", "0", "pitch", [moved]),
            ])),
            "kept_from = image",
            "kept_w = start_w",
            "kept_h = start_h",
            "kept_rows = patch_rows",
        ]  # fmt: skip

    def declare(self, table: ArgTable) -> None:
        """Name the sizes that lines about the patch go by."""
        core = self.core
        table.declare(
            in_h=core.in_size[0], in_w=core.in_size[1], stride_h=core.stride[0], stride_w=core.stride[1],
            pad_h=core.padding[0], pad_w=core.padding[1], reach_h=self.reach(0), patch_w=self.extent(1),
            pitch=self.pitch, channels=self.channels,
        )  # fmt: skip

    def clear_lines(self, first: str, last: str, scope: int) -> list[str]:
        """Lines that set the elements ``first .. last`` of ``line`` to zero."""
        return loop("v", first, last, [store(self.dtype, "line", "v", constant(0, self.dtype), scope)])

    def copy_line(self, table: ArgTable, scope: int, column: str) -> list[str]:
        """Lines that copy columns ``first .. last`` of the input row at address ``source`` into ``line``."""
        x = self.core.x
        stored = x.dtype.computed

        def copy(target: str, index: str) -> list[str]:
            value = cast(load(x.dtype, "source", index, table.scope(x.buffer)), stored, self.dtype)
            return [store(self.dtype, "line", target, value, scope)]

        if self._x_dilation == (1, 1) and x.strides[2] == self.channels and 1 in (x.strides[3], self.channels):
            return loop("v", "0", "right - left", copy("left + v", "first * channels + v"))
        table.declare(x_w=x.strides[2], x_c=x.strides[3])
        across = "1" if x.strides[2] == 1 else "x_w"
        along = "1" if x.strides[3] == 1 else "x_c"
        element = copy(f"{column} * channels + c", total(times("iw", across), times("c", along)))
        if along == "1":
            return loop("iw", "first", "last", loop("c", "0", "channels", element))
        if across == "1" and self.channels <= FEW_CHANNELS:
            pixel = [
                copy(f"{column} * {self.channels} + {c}", total("iw", times(str(c), along)))
                for c in range(self.channels)
            ]
            return loop("iw", "first", "last", [line for lines in pixel for line in lines])
        by_channel = loop("c", "0", "channels", loop("iw", "first", "last", element))
        if not self.turns:
            return by_channel
        size, lanes = self.dtype.itemsize, host_tile(self.dtype).lanes
        start, out = f"source + first * {size}", f"line + (first - start_w) * channels * {size}"
        return [
            "span = last - first",
            f"if span >= {lanes}:",
            *indent(square_lines(self.dtype, lanes, start, "x_c", out, "channels", "span", "channels")),
            "else:",
            *indent(by_channel),
        ]
