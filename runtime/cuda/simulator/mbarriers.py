"""mbarriers, and the copies that they wait for: TMA's, which arrive when no thread can go on without."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.errors import BoundsError
from runtime.cuda.simulator.thread import Thread, current, kernel_line, until


class MBarrier:
    """A phase is over when ``count`` threads have arrived and all bytes announced are there; then the next begins."""

    def __init__(self, count: int, maker: Thread):
        threads = maker.block.size
        self.maker, self.made = maker.number, maker.block.clocks.now(maker.number)
        self.count = self.missing = count
        self.bytes = 0
        self.phase = 0
        self._gathered = np.zeros(threads, np.int32)
        self.known = np.zeros(threads, np.int32)  # what those have done who arrived in the phases that are over

    def tell(self, known: np.ndarray) -> None:
        np.maximum(self._gathered, known, out=self._gathered)

    def arrive(self, known: np.ndarray) -> None:
        self.tell(known)
        self.missing -= 1
        self.turn()

    def turn(self) -> None:
        """Begin the next phase if this one is over."""
        if self.missing == 0 and self.bytes == 0:
            self.missing = self.count
            self.phase ^= 1
            self.known = self._gathered.copy()


def _at(address: int) -> MBarrier:
    thread = current()
    found = thread.block.mbarriers.get(int(address))
    if found is None or thread.block.clocks.seen[thread.number, found.maker] < found.made:
        why = "was not initialised" if found is None else f"thread {found.maker} makes, with no barrier between"
        raise BoundsError(f"an mbarrier at {address} that {why}: line {kernel_line()} of the kernel")
    return found


def init(address: int, count: int) -> None:
    thread = current()
    shared = thread.block.shared
    shared.expect(thread.number, shared.place(address, 8, "makes an mbarrier of"))  # from now on nobody's memory
    thread.block.mbarriers[int(address)] = MBarrier(int(count), thread)


def arrive(address: int, nbytes: int = 0) -> None:
    """Be one of those whom the barrier waits for, and announce ``nbytes`` bytes of copies."""
    thread = current()
    barrier = _at(address)
    barrier.bytes += int(nbytes)
    barrier.arrive(thread.block.clocks.release(thread.number))


def wait(address: int, parity: int) -> None:
    """Wait until the phase of this parity is over."""
    barrier, thread = _at(address), current()
    until(lambda: barrier.phase != int(parity), f"phase {int(parity)} of the mbarrier at {int(address)}")
    thread.block.clocks.acquire(thread.number, barrier.known)


def begin(address: int, pieces: list[tuple[slice, Callable[[], np.ndarray]]]) -> None:
    """Begin a copy into pieces of shared memory, of which the mbarrier at ``address`` is told when it is there."""
    barrier, thread = _at(address), current()
    shared = thread.block.shared
    for at, _ in pieces:
        shared.expect(thread.number, at)
    clock, known = thread.block.clocks.now(thread.number), thread.block.clocks.release(thread.number)

    def land() -> None:
        for at, data in pieces:
            shared.arrive(thread.number, at, data(), clock)
            barrier.bytes -= at.stop - at.start
        barrier.tell(known)
        barrier.turn()

    thread.block.flying.append(land)
