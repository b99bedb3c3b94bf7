"""Who touched which byte of global memory in a launch, and what is known to have happened before what: within a block
where threads have met, between blocks that run together where one has told another by an atomic operation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from runtime.cuda.simulator.clocks import Known, merged
from runtime.cuda.simulator.shared import RaceError
from runtime.cuda.simulator.thread import Thread, kernel_line


class _Touch(NamedTuple):
    """When a thread of a block was there: how often all threads of the block had met, and at which time of its own."""

    block: int
    thread: int
    epoch: int
    clock: int


_Readers = dict[tuple[int, int], _Touch]
"""By block and thread. One that has read again is here once: what races with the earlier time does with the later."""


class GlobalRaces:
    """By the address of each byte, who wrote it last, and who has read it since: one, or all of them.

    Atomic operations themselves do not come here as touches. By them blocks of a ``cooperative`` launch tell one
    another: what a thread knew at its last fence, all know who wait for the number that it has changed since. Blocks of
    any other launch never wait, and so none is before another."""

    def __init__(self, cooperative: bool):
        self.cooperative = cooperative
        self._writes: dict[int, _Touch] = {}
        self._reads: dict[int, _Touch | _Readers] = {}
        self._told: dict[int, list[tuple[int, Known]]] = {}  # by address: each number made, and all told until then

    def read(self, thread: Thread, address: int, nbytes: int) -> None:
        """Raises RaceError unless what ``thread`` reads now was written before, or in an earlier launch."""
        mine = _touch(thread)
        writes, reads = self._writes, self._reads
        for byte in range(address, address + nbytes):
            if writes and (found := writes.get(byte)) is not None and self._at_once(found, mine, thread):
                raise _race(thread, mine, found, "reads", byte, "writes")
            known = reads.get(byte)
            if known is None:
                reads[byte] = mine
            elif isinstance(known, dict):
                known[mine[:2]] = mine
            elif known[:2] == mine[:2]:
                reads[byte] = mine
            else:
                reads[byte] = {known[:2]: known, mine[:2]: mine}

    def write(self, thread: Thread, address: int, nbytes: int) -> None:
        """Raises RaceError unless all that read or wrote these bytes in this launch did so before. Then who touches
        them next need be compared with this write alone."""
        mine = _touch(thread)
        writes, reads = self._writes, self._reads
        for byte in range(address, address + nbytes):
            found = writes.get(byte)
            if found is not None and self._at_once(found, mine, thread):
                raise _race(thread, mine, found, "writes", byte, "writes")
            known = reads.pop(byte, None)
            for touch in _all(known):
                if self._at_once(touch, mine, thread):
                    raise _race(thread, mine, touch, "writes", byte, "reads")
            writes[byte] = mine

    def tell(self, thread: Thread, address: int, value: int) -> None:
        """``thread`` has made ``value`` of a number that others may wait for."""
        if self.cooperative:
            told = self._told.setdefault(address, [])
            known = [told[-1][1]] if told else []
            told.append((value, merged([*known, thread.block.clocks.published.get(thread.number, {})])))

    def hear(self, thread: Thread, address: int, value: int) -> None:
        """``thread`` has waited until others have made ``value`` of a number: it knows what was told by then, even if
        it comes late and finds more."""
        for made, known in self._told.get(address, ()):
            if made >= value:
                thread.block.clocks.hear(thread.number, known)
                return

    def _at_once(self, found: _Touch, mine: _Touch, thread: Thread) -> bool:
        """Whether nothing says that ``found`` is before what ``thread`` does now."""
        if found.block != mine.block:
            known = thread.block.clocks.abroad[mine.thread].get(found.block)
            return known is None or bool(known[found.thread] < found.clock)
        if found.thread == mine.thread or found.epoch < mine.epoch:
            return False
        return bool(thread.block.clocks.seen[mine.thread, found.thread] < found.clock)


def _touch(thread: Thread) -> _Touch:
    clocks = thread.block.clocks
    return _Touch(thread.block.number, thread.number, clocks.epoch, clocks.now(thread.number))


def _all(known: _Touch | _Readers | None) -> Iterable[_Touch]:
    if known is None:
        return ()
    return known.values() if isinstance(known, dict) else (known,)


def _race(thread: Thread, mine: _Touch, found: _Touch, does: str, byte: int, did: str) -> RaceError:
    region, start = thread.block.memory.place(byte, 1, does)
    same = found.block == mine.block
    other = f"thread {found.thread}" if same else f"block {found.block}"
    between = "barrier" if same else "meeting of the blocks" if thread.block.races.cooperative else "launch"
    return RaceError(
        f"thread {mine.thread} of block {mine.block} {does} byte {start} of {region.name}, which {other} {did}, with "
        f"no {between} between: line {kernel_line()} of the kernel"
    )
