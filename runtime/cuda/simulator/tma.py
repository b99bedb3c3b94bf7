"""The copy engine: boxes of matrices between global and shared memory, swizzled, and plain runs of bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.errors import BoundsError
from runtime.cuda.simulator import mbarriers
from runtime.cuda.simulator.memory import global_bytes
from runtime.cuda.simulator.shared import BASE
from runtime.cuda.simulator.swizzle import swizzled
from runtime.cuda.simulator.thread import current, kernel_line
from runtime.cuda.tensor_map import BYTES, TensorMap, from_simulator

_CHUNK = 16


def load_2d(destination: int, tensor_map: int, column: int, row: int, mbarrier: int) -> None:
    """Begin to copy a box of a matrix to shared memory."""
    address, box = _map(tensor_map, destination)
    pieces = []
    for r, start, at in _chunks(box, destination):
        inside = _inside(box, row + r, column, start)
        source = address + (row + r) * box.stride + column * box.itemsize + start
        pieces.append((at, _reader(source, inside)))
    mbarriers.begin(mbarrier, pieces)


def store_2d(tensor_map: int, column: int, row: int, source: int) -> None:
    """Begin to copy a box from shared memory to a matrix."""
    address, box = _map(tensor_map, source)
    thread = current()
    shared = thread.block.shared
    for r, start, at in _chunks(box, source):
        inside = _inside(box, row + r, column, start)
        shared.lend(thread.number, at)
        target = address + (row + r) * box.stride + column * box.itemsize + start
        thread.stores.append(_writer(at, target, inside))


def load_bytes(destination: int, source: int, nbytes: int, mbarrier: int) -> None:
    """Begin to copy bytes, a multiple of 16, to shared memory."""
    if nbytes % _CHUNK:
        raise BoundsError(f"a bulk copy of {nbytes} bytes, no multiple of 16: line {kernel_line()} of the kernel")
    shared = current().block.shared
    offsets = range(0, nbytes, _CHUNK)
    places = [shared.place(destination + i, _CHUNK, "copies") for i in offsets]
    mbarriers.begin(mbarrier, [(at, _reader(source + i, _CHUNK)) for i, at in zip(offsets, places, strict=True)])


def _map(tensor_map: int, place: int) -> tuple[int, TensorMap]:
    if int(tensor_map) % 64:
        raise BoundsError(f"a tensor map at {tensor_map}, no multiple of 64: line {kernel_line()} of the kernel")
    address, box = from_simulator(np.array(global_bytes(tensor_map, BYTES, "reads", 64)))
    row = box.box_columns * box.itemsize
    if address % 16 or box.stride % 16 or row % _CHUNK or (box.swizzle and row > box.swizzle):
        raise BoundsError(f"TMA does not take {box} at {address}: line {kernel_line()} of the kernel")
    if (int(place) - BASE) % max(128, 8 * box.swizzle):
        raise BoundsError(f"TMA's box at byte {int(place) - BASE} of shared memory is misaligned: line {kernel_line()}")
    return address, box


def _chunks(box: TensorMap, place: int) -> list[tuple[int, int, slice]]:
    """The chunks of a box in shared memory at ``place``: row, byte of the row, and where they lie."""
    shared = current().block.shared
    row = box.box_columns * box.itemsize
    return [
        (r, start, shared.place(swizzled(int(place) + r * row + start, box.swizzle), _CHUNK, "copies"))
        for r in range(box.box_rows)
        for start in range(0, row, _CHUNK)
    ]


def _inside(box: TensorMap, row: int, column: int, start: int) -> int:
    """How many bytes of a chunk belong to the matrix."""
    if not 0 <= row < box.rows:
        return 0
    if column < 0:
        raise BoundsError("boxes that begin left of the matrix are not simulated")
    return max(0, min(_CHUNK, (box.columns - column) * box.itemsize - start))


def _reader(source: int, inside: int) -> Callable[[], np.ndarray]:
    memory = current().block.memory

    def data() -> np.ndarray:
        found = np.zeros(_CHUNK, np.uint8)
        if inside:
            region, start = memory.place(int(source), inside, "copies")
            found[:inside] = region.bytes[start : start + inside]
        return found

    return data


def _writer(at: slice, target: int, inside: int) -> Callable[[], None]:
    thread = current()

    def finish() -> None:
        if inside:
            region, start = thread.block.memory.place(int(target), inside, "writes")
            region.bytes[start : start + inside] = thread.block.shared.bytes[at][:inside]
        thread.block.shared.give_back(thread.number, at)

    return finish
