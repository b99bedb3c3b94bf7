"""What has happened before what: a vector clock for each thread of a block, moved on where threads wait for others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Clocks:
    """``seen[t, u]``: how far thread ``u`` had come when thread ``t`` last heard of it. What ``u`` did at its time
    ``c`` has happened before what ``t`` does now if ``seen[t, u] >= c``."""

    def __init__(self, threads: int):
        self.epoch = 1  # how often all threads have met: what was done in an earlier one is before all that is done now
        self.seen = np.zeros((threads, threads), np.int32)
        self.seen[np.arange(threads), np.arange(threads)] = 1

    def now(self, thread: int) -> int:
        return int(self.seen[thread, thread])

    def meet(self, threads: Sequence[int]) -> None:
        """All of these wait for one another: what any has done is before what any does next."""
        members = np.asarray(threads)
        self.epoch += len(members) == len(self.seen)
        self.seen[members] = self.seen[members].max(0)
        self.seen[members, members] += 1

    def release(self, thread: int) -> np.ndarray:
        """What ``thread`` has done and heard of up to now, for others to acquire."""
        known = self.seen[thread].copy()
        self.seen[thread, thread] += 1
        return known

    def acquire(self, thread: int, known: np.ndarray) -> None:
        """What a release has told of is before what ``thread`` does next."""
        np.maximum(self.seen[thread], known, out=self.seen[thread])
