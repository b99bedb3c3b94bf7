"""A block's shared memory: every access is checked for its place, for races with other threads, and for copies that
are still on their way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.errors import BoundsError
from runtime.cuda.simulator.clocks import Clocks
from runtime.cuda.simulator.conflicts import Conflicts
from runtime.cuda.simulator.thread import LANES, Thread, kernel_line

BASE = 1024
"""The address of the first byte. Addresses of shared memory have 32 bits and are not those of global memory."""

Place = slice | np.ndarray
"""Which bytes: a range, or their numbers."""

_GARBAGE = 0xFF  # a NaN in every float
_LATER = np.iinfo(np.int32).max
"""The epoch of what is not over yet."""


class RaceError(BoundsError):
    """Threads that touch the same bytes, one of them writing, with nothing between to order them."""


class SharedMemory:
    """``size`` bytes, and for each who touched it last: who wrote it, and when each warp last read it.

    Most accesses find bytes that were touched before the last barrier of all threads: that is seen by its number. Only
    for the others threads' clocks are compared."""

    def __init__(self, size: int, threads: int, clocks: Clocks, conflicts: Conflicts | None = None):
        self.size = size
        self.clocks = clocks
        self.conflicts = conflicts
        self.bytes = np.full(size, _GARBAGE, np.uint8)
        warps = -(-threads // LANES)
        self._writer = np.zeros(size, np.int32)
        self._written = np.zeros(size, np.int32)
        self._write_epoch = np.zeros(size, np.int32)
        self._reader = np.zeros((size, warps), np.int32)  # a thread of each warp
        self._reader[:] = np.arange(warps) * LANES
        self._read = np.zeros((size, warps), np.int32)
        self._read_epoch = np.zeros(size, np.int32)
        self._awaited = np.full(size, -1, np.int32)  # the thread whose copy will arrive here
        self._lent = np.zeros(size, np.int16)  # how many products are reading this
        self._unfenced = np.zeros(size, bool)

    def place(self, address: int, nbytes: int, what: str) -> slice:
        """The bytes at ``address``, which is a multiple of their number. Raises BoundsError."""
        start = int(address) - BASE
        if start < 0 or start + nbytes > self.size:
            raise BoundsError(
                f"{what} {nbytes} bytes at byte {start} of shared memory, which has {self.size}: {_line()}"
            )
        if start % nbytes:
            raise BoundsError(f"{what} {nbytes} bytes at byte {start} of shared memory, which is misaligned: {_line()}")
        return slice(start, start + nbytes)

    def load(self, thread: Thread, address: int, nbytes: int) -> np.ndarray:
        """A copy of the bytes at ``address``."""
        at = self.place(address, nbytes, "reads")
        if self.conflicts:
            self.conflicts.note(thread, at.start, nbytes, kernel_line())
        self.check_read(thread.number, at)
        return self.bytes[at].copy()

    def store(self, thread: Thread, address: int, data: np.ndarray) -> None:
        at = self.place(address, data.size, "writes")
        if self.conflicts:
            self.conflicts.note(thread, at.start, data.size, kernel_line())
        self.check_write(thread.number, at)
        self.arrive(thread.number, at, data)

    def load_rows(self, threads: Sequence[Thread], addresses: Sequence[int]) -> np.ndarray:
        """(rows, 16) bytes: the rows of matrices, each at the address that a thread of the same warp gives."""
        if self.conflicts:
            self.conflicts.rows([int(a) - BASE for a in addresses], kernel_line())
        starts = np.array([self.place(a, 16, "reads").start for a in addresses])
        at = starts[:, None] + np.arange(16)
        if self._write_epoch[at].max() >= self.clocks.epoch:
            for thread, row in zip(threads, at, strict=True):
                self._compare_with_writes(thread.number, row, "reads")
        numbers = np.array([t.number for t in threads])
        self._reader[at, threads[0].warp] = numbers[:, None]
        self._read[at, threads[0].warp] = self.clocks.seen[numbers, numbers][:, None]
        self._read_epoch[at] = np.maximum(self._read_epoch[at], self.clocks.epoch)
        return self.bytes[at]

    def check_read(self, thread: int, at: Place) -> None:
        """Raises RaceError unless what ``thread`` reads now was written before; records that it was read."""
        if self._write_epoch[at].max() >= self.clocks.epoch:
            self._compare_with_writes(thread, at, "reads")
        self._record_read(thread, at)

    def check_write(self, thread: int, at: slice) -> None:
        """Raises RaceError unless all that read or wrote these bytes did so before what ``thread`` does now."""
        if self._write_epoch[at].max() >= self.clocks.epoch:
            self._compare_with_writes(thread, at, "writes")
        if self._read_epoch[at].max() >= self.clocks.epoch:
            self._compare_with_reads(thread, at)

    def _compare_with_writes(self, thread: int, at: Place, what: str) -> None:
        awaited = self._awaited[at] >= 0
        if awaited.any():
            byte = _first(at, awaited)
            raise RaceError(
                f"{what} byte {byte} of shared memory, where a copy that thread {self._awaited[byte]} began "
                f"has not been waited for: {_line()}"
            )
        late = self.clocks.seen[thread][self._writer[at]] < self._written[at]
        if late.any():
            byte = _first(at, late)
            raise _race(f"{what} byte {byte} of shared memory, which thread {self._writer[byte]} writes", thread)

    def _compare_with_reads(self, thread: int, at: slice) -> None:
        lent = self._lent[at] > 0
        if lent.any():
            raise _race(f"writes byte {_first(at, lent)} of shared memory, which wgmma still reads", thread)
        unread = self.clocks.seen[thread][self._reader[at]] < self._read[at]
        if unread.any():
            byte, warp = _first(at, unread.any(1)), int(unread.any(0).argmax())
            raise _race(f"writes byte {byte} of shared memory, which thread {self._reader[byte, warp]} reads", thread)

    def expect(self, thread: int, at: slice) -> None:
        """A copy into these bytes begins: until it has arrived, nobody may touch them."""
        self.check_write(thread, at)
        self._awaited[at] = thread
        self._write_epoch[at] = _LATER

    def arrive(self, thread: int, at: slice, data: np.ndarray, clock: int | None = None) -> None:
        """The copy that ``expect`` announced is there, as a write of ``thread`` (at an earlier time ``clock``). Without
        one it was the thread itself that wrote, by the way that wgmma and TMA do not see before a fence."""
        self._awaited[at] = -1
        self._writer[at] = thread
        self._written[at] = self.clocks.now(thread) if clock is None else clock
        self._write_epoch[at] = self.clocks.epoch
        self._unfenced[at] = clock is None
        self.bytes[at] = data

    def fence(self, thread: int) -> None:
        """What ``thread`` has written, and what it knows that others have, wgmma and TMA see from here on."""
        self._unfenced &= self.clocks.seen[thread][self._writer] < self._written

    def lend(self, thread: int, at: Place) -> None:
        """wgmma begins to read these bytes: until ``give_back`` nobody may write them."""
        if self._unfenced[at].any():
            byte = _first(at, self._unfenced[at])
            raise _race(f"has wgmma read byte {byte} of shared memory, with no fence_proxy_async since", thread)
        self.check_read(thread, at)
        self._lent[at] += 1
        self._read_epoch[at] = _LATER

    def give_back(self, thread: int, at: Place) -> None:
        self._lent[at] -= 1
        self._record_read(thread, at)
        self._read_epoch[at] = np.where(self._lent[at] > 0, _LATER, self.clocks.epoch)

    def _record_read(self, thread: int, at: Place) -> None:
        self._reader[at, thread // LANES] = thread
        self._read[at, thread // LANES] = self.clocks.now(thread)
        self._read_epoch[at] = np.maximum(self._read_epoch[at], self.clocks.epoch)


def _first(at: Place, where: np.ndarray) -> int:
    """The first of the bytes ``at`` for which ``where`` holds."""
    place = int(where.argmax())
    return at.start + place if isinstance(at, slice) else int(at.reshape(-1)[place])


def _race(what: str, thread: int) -> RaceError:
    return RaceError(f"thread {thread} {what}, with no barrier between: {_line()}")


def _line() -> str:
    return f"line {kernel_line()} of the kernel"
