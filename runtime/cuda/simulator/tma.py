"""The copy engine: boxes of arrays from global to shared memory, swizzled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from engine.errors import BoundsError
from runtime.cuda.simulator import mbarriers
from runtime.cuda.simulator.memory import global_bytes, touched
from runtime.cuda.simulator.shared import BASE
from runtime.cuda.simulator.swizzle import swizzled
from runtime.cuda.simulator.thread import current, kernel_line
from runtime.cuda.tensor_map import BYTES, TensorMap, from_simulator

_CHUNK = 16


def load(destination: int, tensor_map: int, corner: Sequence[int], mbarrier: int) -> None:
    """Begin to copy the box of an array to shared memory whose first element is at ``corner``, the last axis first."""
    pieces = [(at, _reader(source, inside)) for at, source, inside in _chunks(tensor_map, corner, destination)]
    mbarriers.begin(mbarrier, pieces)


def load_patches(
    destination: int, tensor_map: int, corner: Sequence[int], offset: Sequence[int], mbarrier: int
) -> None:
    """Begin to copy pixels by the im2col mode of the PTX ISA: from ``corner`` (channel, column, row, image) they follow
    one another within the map's window, column by column, row by row, image by image; each is read ``offset`` (columns,
    rows) from there, and those outside of the image are zeros."""
    address, box = _map(tensor_map, destination)
    window = box.window
    if window is None or len(box.shape) != 4:
        raise BoundsError(f"TMA is asked for patches by {box}: line {kernel_line()} of the kernel")
    channel, column, row, image = map(int, corner)
    top, left, bottom, right = map(int, window.sizes)
    down, across = window.step
    images, rows, columns, channels = box.shape
    ends = (rows - 1 + bottom, columns - 1 + right)
    whole = (row - top) % down == 0 and (column - left) % across == 0
    if channel < 0 or not (whole and top <= row <= ends[0] and left <= column <= ends[1]):
        raise BoundsError(f"TMA's patches begin at {tuple(corner)}, outside of {box}: line {kernel_line()}")
    if not all(0 <= n < 256 for n in offset):
        raise BoundsError(f"TMA's tap is {tuple(offset)} further on, not 0 to 255: line {kernel_line()} of the kernel")
    shared = current().block.shared
    pixels, width = box.box[0], box.box[1] * box.itemsize
    left_over = (channels - channel) * box.itemsize
    pieces = []
    for r in range(pixels):
        at_row, at_column = row + int(offset[1]), column + int(offset[0])
        is_inside = image < images and 0 <= at_row < rows and 0 <= at_column < columns
        places = zip((image, at_row, at_column), box.strides, strict=True)
        source = address + sum(i * s for i, s in places) + channel * box.itemsize
        for start in range(0, width, _CHUNK):
            at = shared.place(swizzled(int(destination) + r * width + start, box.swizzle), _CHUNK, "copies")
            inside = max(0, min(_CHUNK, left_over - start)) if is_inside else 0
            pieces.append((at, _reader(source + start, inside)))
        column += across
        if column > ends[1]:
            column, row = left, row + down
        if row > ends[0]:
            row, image = top, image + 1
    mbarriers.begin(mbarrier, pieces)


def _map(tensor_map: int, place: int) -> tuple[int, TensorMap]:
    if int(tensor_map) % 64:
        raise BoundsError(f"a tensor map at {tensor_map}, no multiple of 64: line {kernel_line()} of the kernel")
    address, box = from_simulator(np.array(global_bytes(tensor_map, BYTES, "reads", 64)))
    row = box.box[-1] * box.itemsize
    aligned = not any(n % 16 for n in (address, row, *box.strides))
    if not aligned or (box.swizzle and row > box.swizzle) or not all(0 < n <= 256 for n in box.box):
        raise BoundsError(f"TMA does not take {box} at {address}: line {kernel_line()} of the kernel")
    if (int(place) - BASE) % max(128, 8 * box.swizzle):
        raise BoundsError(f"TMA's box at byte {int(place) - BASE} of shared memory is misaligned: line {kernel_line()}")
    return address, box


def _chunks(tensor_map: int, corner: Sequence[int], place: int) -> Iterator[tuple[slice, int, int]]:
    """The chunks of a box in shared memory at ``place``: where they lie there and in global memory, and how many of
    their bytes belong to the array."""
    address, box = _map(tensor_map, place)
    if box.window is not None:
        raise BoundsError(f"TMA is asked for a box by {box}: line {kernel_line()} of the kernel")
    shared = current().block.shared
    *outer, column = (int(c) for c in reversed(corner))
    if len(outer) != len(box.strides):
        raise BoundsError(f"TMA is given {len(corner)} coordinates in {box}: line {kernel_line()} of the kernel")
    if column < 0:
        raise BoundsError("boxes that begin left of the array are not simulated")
    width = box.box[-1] * box.itemsize
    left = (box.shape[-1] - column) * box.itemsize
    for r, index in enumerate(np.ndindex(box.box[:-1])):
        row = [c + i for c, i in zip(outer, index, strict=True)]
        is_inside = all(0 <= i < n for i, n in zip(row, box.shape, strict=False))
        source = address + sum(i * s for i, s in zip(row, box.strides, strict=True)) + column * box.itemsize
        for start in range(0, width, _CHUNK):
            at = shared.place(swizzled(int(place) + r * width + start, box.swizzle), _CHUNK, "copies")
            yield at, source + start, max(0, min(_CHUNK, left - start)) if is_inside else 0


def _reader(source: int, inside: int) -> Callable[[], np.ndarray]:
    memory = current().block.memory
    if inside:
        memory.place(int(source), inside, "copies")
        touched(source, inside, written=False)

    def data() -> np.ndarray:
        found = np.zeros(_CHUNK, np.uint8)
        if inside:
            region, start = memory.place(int(source), inside, "copies")
            found[:inside] = region.bytes[start : start + inside]
        return found

    return data
