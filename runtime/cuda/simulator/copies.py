"""cp.async: copies from global to shared memory that arrive as late as they may, when their thread waits for them."""

from __future__ import annotations

import numpy as np

from runtime.cuda.simulator.memory import global_bytes
from runtime.cuda.simulator.thread import current, kernel_line


def begin(destination: int, source: int, nbytes: int, given: int) -> None:
    """Copy ``given`` bytes, and zeros up to ``nbytes``, in the group that the next commit closes."""
    thread = current()
    shared = thread.block.shared
    at = shared.place(destination, nbytes, "copies")
    if shared.conflicts:
        shared.conflicts.note(thread, at.start, nbytes, kernel_line())
    data = global_bytes(source, nbytes, "copies") if given == nbytes else _some(source, given)
    shared.expect(thread.number, at)

    def arrive() -> None:
        whole = np.zeros(nbytes, np.uint8)
        whole[:given] = data[:given]
        shared.arrive(thread.number, at, whole)

    thread.copies[-1].append(arrive)


def _some(source: int, given: int) -> np.ndarray:
    """The first bytes of a copy that is filled up with zeros: only they need be there."""
    if given == 0:
        return np.zeros(0, np.uint8)
    return global_bytes(source, given, "copies", 1)


def commit() -> None:
    """What the thread has begun since the last commit is a group."""
    current().copies.append([])


def wait(pending: int) -> None:
    """All but the last ``pending`` groups of this thread arrive."""
    groups = current().copies
    while len(groups) - 1 > pending:
        for arrive in groups.pop(0):
            arrive()
