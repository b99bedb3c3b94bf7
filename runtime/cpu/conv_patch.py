"""The part of an image that one tile of a convolution reads, copied into scratch with its padding.

In the copy, ``[row][column][channel]`` without gaps, every tap of every output point is at a fixed distance from the
point's own address: padding, dilated inputs, groups and whatever strides the image has are dealt with once, while
copying, and channels of neighbouring columns lie side by side, so that a row of taps is one run.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine import dtypes
from engine.dtypes import DType
from engine.schedule import Access, Conv2d, ConvWeightGrad
from runtime.cpu.emit import ArgTable, cast, constant, indent, load, loop, store, times, total


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
        core = self.core
        return (self.tile[axis] - 1) * core.stride[axis] + self.reach(axis)

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

    @property
    def x_dilation(self) -> tuple[int, int]:
        return self.core.x_dilation if isinstance(self.core, Conv2d) else (1, 1)

    def runs(self) -> tuple[int, int]:
        """(outer, inner) of the taps: with columns not dilated, a row of taps is one run of ``inner`` elements."""
        kernel_height, kernel_width = self.core.kernel
        if self.core.dilation[1] == 1:
            return kernel_height, kernel_width * self.channels
        return kernel_height * kernel_width, self.channels

    def copy_lines(self, table: ArgTable, scope: int) -> list[str]:
        """Lines that fill ``patch`` for the tile at output row ``oh0`` and column ``ow0``, ``tile_h`` rows high.

        ``image`` is the address of the first channel of the image's first pixel. Positions count in the dilated
        input; the tile's first is (``start_h``, ``start_w``). Columns ``first .. last`` of the input are in it.
        """
        core, x, size = self.core, self.core.x, self.dtype.itemsize
        in_h, in_w = (table.size(s) for s in core.in_size)
        stride_h, stride_w = (table.size(s) for s in core.stride)
        dilation_h, dilation_w = (table.size(d) for d in self.x_dilation)
        pad_h, pad_w = (table.size(p) for p in core.padding)
        width, channels, pitch = (table.size(v) for v in (self.extent(1), self.channels, self.pitch))

        def clear(first: str, last: str) -> list[str]:
            return loop("v", first, last, [store(self.dtype, "line", "v", constant(0, self.dtype), scope)])

        if self.x_dilation[1] == 1:
            left, right = f"minimum(first - start_w, {width})", f"minimum(last - start_w, {width})"
            around = [*clear("0", times(left, channels))], [*clear(times(right, channels), pitch)]
        else:
            around = clear("0", pitch), []
        row = [
            f"line = patch + row * {times(pitch, str(size))}",
            "dilated_h = start_h + row",
            f"source_h = {divided('dilated_h', dilation_h)}",
            f"if dilated_h >= 0 and source_h < {in_h} and {times('source_h', dilation_h)} == dilated_h:",
            *indent([
                f"source = {times('source_h', table.size(x.strides[1]))}",
                *around[0],
                *self._copy_columns(table, x, scope),
                *around[1],
            ]),
            "else:",
            *indent(clear("0", pitch)),
        ]  # fmt: skip
        return [
            f"start_h = {times('oh0', stride_h)} - {pad_h}",
            f"start_w = {times('ow0', stride_w)} - {pad_w}",
            f"first = {divided_up('maximum(start_w, 0)', dilation_w)}",
            f"last = maximum(first, minimum({in_w}, {divided_up(f'maximum(start_w + {width}, 0)', dilation_w)}))",
            *loop("row", "0", f"{times('(tile_h - 1)', stride_h)} + {table.size(self.reach(0))}", row),
        ]

    def _copy_columns(self, table: ArgTable, x: Access, scope: int) -> list[str]:
        """Copy columns ``first .. last`` of the input row at element ``source`` into ``line``."""
        w_stride, c_stride = (table.size(s) for s in x.strides[2:])
        channels, read = table.size(self.channels), table.scope(x.buffer)
        if self.x_dilation[1] == 1 and x.strides[3] == 1 and x.strides[2] == self.channels:
            value = self._value(load(x.dtype, "image", total("source", times("first", channels), "v"), read))
            copied = store(self.dtype, "line", total(times("(first - start_w)", channels), "v"), value, scope)
            return loop("v", "0", times("(last - first)", channels), [copied])
        value = self._value(load(x.dtype, "image", total("source", times("iw", w_stride), times("c", c_stride)), read))
        column = f"({times('iw', table.size(self.x_dilation[1]))} - start_w)"
        copied = store(self.dtype, "line", total(times(column, channels), "c"), value, scope)
        if x.strides[3] != 1:
            return loop("c", "0", channels, loop("iw", "first", "last", [copied]))
        return loop("iw", "first", "last", loop("c", "0", channels, [copied]))

    def _value(self, loaded: str) -> str:
        """A loaded element in the dtype of the copy; the storage types load as f32."""
        source = self.core.x.dtype
        return cast(loaded, dtypes.f32 if source.storage_only else source, self.dtype)


def divided(value: str, divisor: str) -> str:
    """``value // divisor`` of indices."""
    return value if divisor == "1" else f"quotient({value}, {divisor})"


def divided_up(value: str, divisor: str) -> str:
    """``value / divisor`` rounded up."""
    return value if divisor == "1" else f"quotient({value} + {divisor} - 1, {divisor})"
