"""What has happened before what: a vector clock for each thread of a block, moved on where threads wait for others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Known = Mapping[int, np.ndarray]
"""By the number of a block, how far each of its threads had come. Nobody changes it."""


def merged(several: Sequence[Known]) -> Known:
    """All that any of these tells of."""
    found: dict[int, np.ndarray] = {}
    for known in several:
        for block, clocks in known.items():
            found[block] = np.maximum(found[block], clocks) if block in found else clocks
    return found


class Clocks:
    """``seen[t, u]``: how far thread ``u`` had come when thread ``t`` last heard of it. What ``u`` did at its time
    ``c`` has happened before what ``t`` does now if ``seen[t, u] >= c``. ``abroad[t]`` is what it has heard of other
    blocks, which it passes on where threads meet; ``published[t]`` what it knew at its last fence for the whole GPU."""

    def __init__(self, threads: int, block: int = 0):
        self.block = block
        self.epoch = 1  # how often all threads have met: what was done in an earlier one is before all that is done now
        self.seen = np.zeros((threads, threads), np.int32)
        self.seen[np.arange(threads), np.arange(threads)] = 1
        self.abroad: list[Known] = [{}] * threads
        self.published: dict[int, Known] = {}
        self._hears = False

    def now(self, thread: int) -> int:
        return int(self.seen[thread, thread])

    def meet(self, threads: Sequence[int]) -> None:
        """All of these wait for one another: what any has done is before what any does next."""
        members = np.asarray(threads)
        self.epoch += len(members) == len(self.seen)
        self.seen[members] = self.seen[members].max(0)
        self.seen[members, members] += 1
        if self._hears:
            several = {id(self.abroad[t]): self.abroad[t] for t in threads}
            if len(several) > 1:
                known = merged(list(several.values()))
                for t in threads:
                    self.abroad[t] = known

    def release(self, thread: int) -> np.ndarray:
        """What ``thread`` has done and heard of up to now, for others to acquire."""
        known = self.seen[thread].copy()
        self.seen[thread, thread] += 1
        return known

    def acquire(self, thread: int, known: np.ndarray) -> None:
        """What a release has told of is before what ``thread`` does next."""
        np.maximum(self.seen[thread], known, out=self.seen[thread])

    def publish(self, thread: int) -> None:
        """Others may learn of what ``thread`` knows now, by what it does next."""
        self.published[thread] = {**self.abroad[thread], self.block: self.release(thread)}

    def hear(self, thread: int, known: Known) -> None:
        """What threads of other blocks have published is before what ``thread`` does next."""
        self._hears = True
        self.abroad[thread] = merged([self.abroad[thread], known])
