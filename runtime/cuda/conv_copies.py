"""Copying what a convolution multiplies from an image to shared memory: no matrix of patches is built.

A convolution is a product of matrices whose left one is read out of the image: a row of it is what one output meets,
in the order of taps and then channels. Where a row's patch begins is written down in a table in shared memory, once a
pixel; where an element of k lies behind that is worked out once a thread and tile, since all copies of a thread are of
the same k. What a tap meets outside of the image arrives as zeros.
"""

from __future__ import annotations

from engine.records import dataclass
from runtime.cuda.tiles import CHUNK, SharedTile
from runtime.emit import indent, loop

ENTRY = 16
"""Bytes of a pixel in the table: the address of its patch, and the row and column of the image at which that begins."""
_NOWHERE = 1 << 30
"""A row that is outside of every image, whatever tap is added to it."""
_WORD = 0xFFFFFFFF

IMAGE_NAMES = ("x", "x_n", "x_h", "x_w", "x_c", "in_h", "in_w", "out_h", "out_w", "stride_h", "stride_w", "pad_h",
               "pad_w", "dilation_h", "dilation_w", "kernel_w", "inputs")  # fmt: skip
"""What the lines below expect in scope besides the names of the main loop: x is the address of the first channel of the
group in the first image, strides are in elements, ``inputs`` are the channels of a group."""


@dataclass(frozen=True)
class _Units:
    """How threads share the copies of a stage: each takes ``width`` bytes at one place of every so many rows."""

    shared: SharedTile
    threads: int
    width: int

    @property
    def in_row(self) -> int:
        return self.shared.row // self.width

    @property
    def elements(self) -> int:
        return self.width // self.shared.itemsize

    @property
    def at_once(self) -> int:
        return self.threads // self.in_row

    @property
    def passes(self) -> int:
        return -(-self.shared.rows // self.at_once)

    def setup(self) -> list[str]:
        """Lines that set this thread's first row, its element in a row, and the chunk that this is in."""
        return [
            f"a_copy_row = thread // {self.in_row}",
            f"a_copy_element = thread % {self.in_row} * {self.elements}",
            f"a_copy_chunk = a_copy_element // {self.shared.elements}",
            f"a_copy_within = a_copy_element % {self.shared.elements} * {self.shared.itemsize}",
        ]

    def copy(self, stage: str, table: str) -> list[str]:
        """Lines that copy this thread's part of a stage, for the tap that ``tap_h`` and ``tap_w`` name, whose elements
        lie ``further`` bytes behind the address in the ``table``."""
        shared = self.shared
        each = [
            f"row = a_copy_row + i * {self.at_once}",
            f"low, high, top, left = ld_shared_v4_u32({table} + row * {ENTRY})",
            f"met = ((top + tap_h) & {_WORD}) < in_h and ((left + tap_w) & {_WORD}) < in_w",
            f"to = {stage} + row * {shared.row} + (a_copy_chunk ^ ({shared.turn('row')})) * {CHUNK} + a_copy_within",
        ]
        source = "(low | high << 32) + further"
        if self.width >= 4:
            each.append(f"cp_async_{self.width}_zero(to, {source}, {self.width} if met else 0)")
        else:
            each += ["element = 0", "if met:", f"    element = ld_global_u16({source})",
                     "st_shared_u16(to, element)"]  # fmt: skip
        if shared.rows % self.at_once:
            each = [each[0], f"if row < {shared.rows}:", *indent(each[1:])]
        return loop("i", "0", str(self.passes), each)


def _tap_lines(element: str, limit: str, itemsize: int) -> list[str]:
    """Lines that set ``tap_h``, ``tap_w`` and ``further`` for an element of a patch, which must be below ``limit``."""
    return [
        f"tap = quotient({element}, inputs)",
        "tap_row = quotient(tap, kernel_w)",
        f"tap_h = tap_row * dilation_h if {element} < {limit} else {_NOWHERE}",
        "tap_w = (tap - tap_row * kernel_w) * dilation_w",
        f"further = (tap_row * dilation_h * x_h + tap_w * x_w + ({element} - tap * inputs) * x_c) * {itemsize}",
    ]


def _entry_lines(pixel: str, limit: str, at: str, itemsize: int) -> list[str]:
    """Lines that write down at shared address ``at`` where the patch of output ``pixel`` begins."""
    return [
        f"line = quotient({pixel}, out_w)",
        "image = quotient(line, out_h)",
        "top = (line - image * out_h) * stride_h - pad_h",
        f"left = ({pixel} - line * out_w) * stride_w - pad_w",
        f"source = x + (image * x_n + top * x_h + left * x_w) * {itemsize}",
        f"top = top if {pixel} < {limit} else {_NOWHERE}",
        f"st_shared_v4_u32({at}, source, source >> 32, top, left)",
    ]


@dataclass(frozen=True)
class PatchLoader:
    """The tiles of patches as the rows of a product (see ``mainloop.Loader``): row ``tile_row + r`` is an output's.

    ``table`` is where in shared memory the table begins; ``pixels``, the number of outputs, and ``depth``, the elements
    of a patch, must be in scope. ``width`` bytes of a patch lie side by side, aligned.
    """

    shared: SharedTile
    threads: int
    width: int
    table: int

    @property
    def table_bytes(self) -> int:
        return self.shared.rows * ENTRY

    @property
    def _units(self) -> _Units:
        return _Units(self.shared, self.threads, self.width)

    def setup(self) -> list[str]:
        entry = ["pixel = tile_row + row"]
        entry += _entry_lines("pixel", "pixels", f"shared + {self.table} + row * {ENTRY}", self.shared.itemsize)
        return [
            *self._units.setup(),
            f"for row in range(thread, {self.shared.rows}, {self.threads}):",
            *indent(entry),
        ]

    def copy(self, stage: str) -> list[str]:
        in_stage = self.shared.chunks * self.shared.elements
        return [
            f"k = k_tile * {in_stage} + a_copy_element",
            *_tap_lines("k", "depth", self.shared.itemsize),
            *self._units.copy(stage, f"shared + {self.table}"),
        ]


@dataclass(frozen=True)
class PixelLoader:
    """The tiles of patches as the columns of a product of their transpose, for weight gradients: k runs over outputs.

    Row ``tile_row + r`` of the result is an element of the patch. ``first_pixel`` and ``last_pixel``, the outputs that
    are summed up, and ``depth``, the elements of a patch, must be in scope. The table holds the outputs of two stages:
    those of the next are written down while one is copied.
    """

    shared: SharedTile
    threads: int
    width: int
    table: int

    @property
    def table_bytes(self) -> int:
        return 2 * self.shared.rows * ENTRY

    @property
    def _units(self) -> _Units:
        return _Units(self.shared, self.threads, self.width)

    def _slot(self, k_tile: str) -> str:
        return f"shared + {self.table} + ({k_tile} & 1) * {self.shared.rows * ENTRY}"

    def _write_down(self, k_tile: str) -> list[str]:
        """Lines that write down the outputs of stage ``k_tile``."""
        entry = [f"pixel = first_pixel + ({k_tile}) * {self.shared.rows} + entry"]
        at = f"{self._slot(f'({k_tile})')} + entry * {ENTRY}"
        entry += _entry_lines("pixel", "last_pixel", at, self.shared.itemsize)
        return [f"for entry in range(thread, {self.shared.rows}, {self.threads}):", *indent(entry)]

    def setup(self) -> list[str]:
        return [
            *self._units.setup(),
            "patch_element = tile_row + a_copy_element",
            *_tap_lines("patch_element", "depth", self.shared.itemsize),
            *self._write_down("0"),
        ]

    def copy(self, stage: str) -> list[str]:
        return [*self._units.copy(stage, self._slot("k_tile")), *self._write_down("k_tile + 1")]
