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

_GARBAGE = 0xFF  # a NaN in every float


class RaceError(BoundsError):
    """Threads that touch the same bytes of shared memory, one of them writing, with nothing between to order them."""


class SharedMemory:
    """``size`` bytes, and for each who touched it last: who wrote it, and when each warp last read it."""

    def __init__(self, size: int, threads: int, clocks: Clocks, conflicts: Conflicts | None = None):
        self.size = size
        self.clocks = clocks
        self.conflicts = conflicts
        self.bytes = np.full(size, _GARBAGE, np.uint8)
        warps = -(-threads // LANES)
        self._writer = np.zeros(size, np.int32)
        self._written = np.zeros(size, np.int32)
        self._reader = np.zeros((size, warps), np.int32)  # a thread of each warp
        self._reader[:] = np.arange(warps) * LANES
        self._read = np.zeros((size, warps), np.int32)
        self._awaited = np.full(size, -1, np.int32)  # the thread whose copy will arrive here

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
        self.record_write(thread.number, at)
        self.bytes[at] = data

    def load_rows(self, threads: Sequence[Thread], addresses: Sequence[int]) -> np.ndarray:
        """(rows, 16) bytes: the rows of matrices, each at the address that a thread of the same warp gives."""
        if self.conflicts:
            self.conflicts.rows([int(a) - BASE for a in addresses], kernel_line())
        places = [self.place(a, 16, "reads") for a in addresses]
        for thread, at in zip(threads, places, strict=True):
            self.check_read(thread.number, at)
        return np.stack([self.bytes[at] for at in places])

    def check_read(self, thread: int, at: slice) -> None:
        """Raises RaceError unless what ``thread`` reads now was written before; records that it was read."""
        self._check_awaited(at, "reads")
        seen = self.clocks.seen[thread]
        late = seen[self._writer[at]] < self._written[at]
        if late.any():
            byte = at.start + int(late.argmax())
            raise race(f"reads byte {byte} of shared memory, which thread {self._writer[byte]} writes", thread)
        self._reader[at, thread // LANES] = thread
        self._read[at, thread // LANES] = seen[thread]

    def check_write(self, thread: int, at: slice) -> None:
        """Raises RaceError unless all that read or wrote these bytes did so before what ``thread`` does now."""
        self._check_awaited(at, "writes")
        seen = self.clocks.seen[thread]
        late = seen[self._writer[at]] < self._written[at]
        if late.any():
            byte = at.start + int(late.argmax())
            raise race(f"writes byte {byte} of shared memory, which thread {self._writer[byte]} writes too", thread)
        unread = seen[self._reader[at]] < self._read[at]
        if unread.any():
            byte, warp = at.start + int(unread.any(1).argmax()), int(unread.any(0).argmax())
            raise race(f"writes byte {byte} of shared memory, which thread {self._reader[byte, warp]} reads", thread)

    def record_write(self, thread: int, at: slice) -> None:
        self._writer[at] = thread
        self._written[at] = self.clocks.now(thread)

    def expect(self, thread: int, at: slice) -> None:
        """A copy into these bytes begins: until it has arrived, nobody may touch them."""
        self.check_write(thread, at)
        self._awaited[at] = thread

    def arrive(self, thread: int, at: slice, data: np.ndarray) -> None:
        """The copy that ``expect`` announced is there, for ``thread`` and those that it tells."""
        self._awaited[at] = -1
        self.record_write(thread, at)
        self.bytes[at] = data

    def _check_awaited(self, at: slice, what: str) -> None:
        awaited = self._awaited[at]
        if (awaited >= 0).any():
            byte = at.start + int((awaited >= 0).argmax())
            raise RaceError(
                f"{what} byte {byte} of shared memory, where a copy that thread {self._awaited[byte]} began "
                f"has not been waited for: {_line()}"
            )


def race(what: str, thread: int) -> RaceError:
    return RaceError(f"thread {thread} {what}, with no barrier between: {_line()}")


def _line() -> str:
    return f"line {kernel_line()} of the kernel"
