"""wgmma: products that four warps execute together, of matrices in shared memory, into registers that are not theirs
until they have waited.

A descriptor says where a matrix lies: how far apart groups of rows are, and how chunks are exchanged. The layouts are
those of the PTX ISA, section "Asynchronous warpgroup-level matrix shared memory layout".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engine.errors import BoundsError
from runtime.cuda.simulator.shared import BASE, RaceError
from runtime.cuda.simulator.swizzle import swizzled
from runtime.cuda.simulator.thread import Thread, kernel_line
from runtime.cuda.simulator.warp import A16, A32, elements

WARPS = 4
_ROWS = 64
_SPANS = {0: 0, 1: 128, 2: 64, 3: 32}


class Sum:
    """Registers of a warpgroup that products add to: NaN, until all of these have been waited for."""

    def __init__(self, registers: list[np.ndarray], columns: int):
        self.registers = registers
        self.values = _gathered(np.array([r[: columns // 2] for r in registers], np.float64))
        self.pending = 0
        for r in registers:
            r[: columns // 2] = np.nan


class Warpgroup:
    """What four warps have begun and not waited for: the products since the last commit, and groups of them."""

    def __init__(self) -> None:
        self.fenced = False
        self.groups: list[list[Callable[[], None]]] = [[]]
        self.sums: dict[int, Sum] = {}


def fence(lanes: Sequence[Thread], given: object) -> None:
    _group(lanes).fenced = True


def commit(lanes: Sequence[Thread], given: object) -> None:
    group = _group(lanes)
    group.groups.append([])
    group.fenced = False


def wait(lanes: Sequence[Thread], given: object, pending: int) -> None:
    """All but the last ``pending`` groups of products are done."""
    groups = _group(lanes).groups
    while len(groups) - 1 > pending:
        for finish in groups.pop(0):
            finish()
    lanes[0].block.clocks.meet([t.number for t in lanes])


def product(
    lanes: Sequence[Thread], given: list[tuple[Any, ...]], kind: str, columns: int, turned: tuple[bool, bool]
) -> None:
    """Begin ``D = A B (+ D)``: A is 64 x k, B k x ``columns``, k elements are 32 bytes. Each lane gives its registers
    of D, A (a descriptor, or a tuple of four words), B (a descriptor), and whether to add. ``turned`` says of A and of
    B whether k runs across their rows in shared memory."""
    group, shared, lead = _group(lanes), lanes[0].block.shared, lanes[0].number
    if not group.fenced:
        raise RaceError(f"wgmma with no wgmma_fence since the last commit: line {kernel_line()} of the kernel")
    if len({(g[2], bool(g[3]), None if isinstance(g[1], tuple) else g[1]) for g in given}) > 1:
        raise BoundsError(f"wgmma with different descriptors in one warpgroup: line {kernel_line()} of the kernel")
    b_at = _places(int(given[0][2]), columns, kind, turned[1], shared.size)
    shared.lend(lead, b_at)
    a_words, a_at = None, None
    if isinstance(given[0][1], tuple):
        a_words = np.array([[int(w) & 0xFFFFFFFF for w in g[1]] for g in given], np.uint32)
    else:
        a_at = _places(int(given[0][1]), _ROWS, kind, turned[0], shared.size)
        shared.lend(lead, a_at)
    registers, adds = [g[0] for g in given], bool(given[0][3])
    key = id(registers[0])
    if key not in group.sums:
        group.sums[key] = Sum(registers, columns)
    total = group.sums[key]
    total.pending += 1

    def finish() -> None:
        a = _from_registers(a_words, kind) if a_words is not None else _from_shared(shared.bytes, a_at, kind)
        made = a @ _from_shared(shared.bytes, b_at, kind).T
        total.values = (total.values + made if adds else made).astype(np.float32).astype(np.float64)
        for at in (b_at, a_at):
            if at is not None:
                shared.give_back(lead, at)
        total.pending -= 1
        if total.pending == 0:
            for r, values in zip(total.registers, _scattered(total.values), strict=True):
                r[: columns // 2] = values
            del group.sums[key]

    group.groups[-1].append(finish)


def _group(lanes: Sequence[Thread]) -> Warpgroup:
    found: Warpgroup = lanes[0].block.warpgroups.setdefault(lanes[0].warp // WARPS, Warpgroup())
    return found


def _places(descriptor: int, rows: int, kind: str, turned: bool, size: int) -> np.ndarray:
    """(rows, 32) numbers: the bytes of shared memory with 32 bytes of k, for each row of A or column of B. Raises
    BoundsError where they are not all below ``size``."""
    start = (descriptor & 0x3FFF) << 4
    leading, stride = (descriptor >> 16 & 0x3FFF) << 4, (descriptor >> 32 & 0x3FFF) << 4
    span = _SPANS[descriptor >> 62 & 3]
    row, byte = np.arange(rows)[:, None], np.arange(32)[None, :]
    if not turned:
        if span:
            address = start + row // 8 * stride + row % 8 * span + byte
        else:
            address = start + row // 8 * stride + row % 8 * 16 + byte // 16 * leading + byte % 16
    else:
        if kind == "tf32":
            raise BoundsError(f"wgmma takes tf32 with k along rows only: line {kernel_line()} of the kernel")
        k, low = byte // 2, byte % 2
        wide = (span or 16) // 2  # elements side by side
        along, across = (leading, stride) if span else (stride, leading)
        address = start + row // wide * along + k // 8 * across + k % 8 * (span or 16) + row % wide * 2 + low
    places: np.ndarray = swizzled(address, span) - BASE
    if places.min() < 0 or places.max() >= size:
        where = f"bytes {places.min()} to {places.max()} of shared memory, which has {size}"
        raise BoundsError(f"wgmma reads {where}: line {kernel_line()} of the kernel")
    return places


def _from_shared(memory: np.ndarray, at: np.ndarray | None, kind: str) -> np.ndarray:
    assert at is not None
    return elements(np.ascontiguousarray(memory[at]).view(np.uint32), kind)


def _from_registers(words: np.ndarray, kind: str) -> np.ndarray:
    """(64, k) elements of A from the four words of each lane: 16 rows a warp, as mma has them."""
    values = elements(words, kind)
    at_row, at_column = A32 if kind == "tf32" else A16
    a = np.zeros((_ROWS, 8 if kind == "tf32" else 16))
    for warp in range(WARPS):
        a[16 * warp + at_row, at_column] = values[32 * warp : 32 * warp + 32]
    return a


def _rows_and_columns(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the ``count`` registers of D lie, for each of the 128 lanes."""
    lane, i = np.arange(32 * WARPS)[:, None], np.arange(count)[None, :]
    row = lane // 32 * 16 + lane % 32 // 4 + i % 4 // 2 * 8
    return row, i // 4 * 8 + lane % 4 * 2 + i % 2


def _gathered(registers: np.ndarray) -> np.ndarray:
    values = np.zeros((_ROWS, registers.shape[1] * 2))
    values[_rows_and_columns(registers.shape[1])] = registers
    return values


def _scattered(values: np.ndarray) -> np.ndarray:
    return values[_rows_and_columns(values.shape[1] // 2)]
