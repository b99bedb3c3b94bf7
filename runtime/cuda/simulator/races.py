"""Who touched which byte of global memory in a launch: nothing orders its blocks, and within one only where threads
have met."""

from __future__ import annotations

from typing import NamedTuple

from runtime.cuda.simulator.shared import RaceError
from runtime.cuda.simulator.thread import Thread, kernel_line


class _Touch(NamedTuple):
    """When a thread of a block was there: how often all threads of the block had met, and at which time of its own."""

    block: int
    thread: int
    epoch: int
    clock: int


class GlobalRaces:
    """By the address of each byte, who wrote it last, and the last two threads that read it: of these at least one is
    not the one that writes. Blocks of a ``cooperative`` launch wait for one another by atomic operations, so that only
    threads of the same block are compared. Atomic operations themselves do not come here."""

    def __init__(self, cooperative: bool):
        self.cooperative = cooperative
        self._writes: dict[int, _Touch] = {}
        self._reads: dict[int, tuple[_Touch, _Touch | None]] = {}

    def read(self, thread: Thread, address: int, nbytes: int) -> None:
        """Raises RaceError unless what ``thread`` reads now was written before, or in an earlier launch."""
        mine = _touch(thread)
        alone = mine, None
        writes, reads = self._writes, self._reads
        for byte in range(address, address + nbytes):
            if writes and (found := writes.get(byte)) is not None and self._at_once(found, mine, thread):
                raise _race(thread, mine, found, "reads", byte, "writes")
            known = reads.get(byte)
            if known is None:
                reads[byte] = alone
            elif known[0] is not mine:
                last, other = known
                same = last.thread == mine.thread and last.block == mine.block
                reads[byte] = mine, other if same else last

    def write(self, thread: Thread, address: int, nbytes: int) -> None:
        """Raises RaceError unless all that read or wrote these bytes in this launch did so before."""
        mine = _touch(thread)
        writes, reads = self._writes, self._reads
        for byte in range(address, address + nbytes):
            found = writes.get(byte)
            if found is not None and self._at_once(found, mine, thread):
                raise _race(thread, mine, found, "writes", byte, "writes")
            for touch in reads.get(byte, ()):
                if touch is not None and self._at_once(touch, mine, thread):
                    raise _race(thread, mine, touch, "writes", byte, "reads")
            writes[byte] = mine

    def _at_once(self, found: _Touch, mine: _Touch, thread: Thread) -> bool:
        """Whether nothing says that ``found`` is before what ``thread`` does now."""
        if found.block != mine.block:
            return not self.cooperative
        if found.thread == mine.thread or found.epoch < mine.epoch:
            return False
        return bool(thread.block.clocks.seen[mine.thread, found.thread] < found.clock)


def _touch(thread: Thread) -> _Touch:
    clocks = thread.block.clocks
    return _Touch(thread.block.number, thread.number, clocks.epoch, clocks.now(thread.number))


def _race(thread: Thread, mine: _Touch, found: _Touch, does: str, byte: int, did: str) -> RaceError:
    region, start = thread.block.memory.place(byte, 1, does)
    same = found.block == mine.block
    other = f"thread {found.thread}" if same else f"block {found.block}"
    between = "no barrier" if same else "no launch"
    return RaceError(
        f"thread {mine.thread} of block {mine.block} {does} byte {start} of {region.name}, which {other} {did}, with "
        f"{between} between: line {kernel_line()} of the kernel"
    )
