"""Shared memory has 32 banks of 4 bytes: what a warp asks of one bank at a time is served word by word."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from runtime.cuda.simulator.thread import LANES, Thread

_BANKS = 32


class Conflicts:
    """How many times warps had to wait for a bank: ``accesses`` and ``extra`` cycles, each by the line of the kernel.

    Accesses of single threads are put together by line, and by how often the thread has been there: so do they run
    on a GPU, as long as all lanes take the same way.
    """

    def __init__(self) -> None:
        self.accesses: Counter[int] = Counter()
        self.extra: Counter[int] = Counter()
        self._visits: Counter[tuple[int, int]] = Counter()
        self._open: dict[tuple[int, int, int], list[tuple[int, int, int]]] = defaultdict(list)

    def note(self, thread: Thread, address: int, nbytes: int, line: int) -> None:
        """One thread's access of ``nbytes`` bytes."""
        self._visits[thread.number, line] += 1
        visit = self._visits[thread.number, line]
        self._open[thread.warp, line, visit].append((thread.lane, address, nbytes))

    def rows(self, addresses: Sequence[int], line: int) -> None:
        """ldmatrix: rows of 16 bytes, eight at a time."""
        for i in range(0, len(addresses), 8):
            self._count(line, [(a, 16) for a in addresses[i : i + 8]])

    def close(self) -> None:
        """A block has ended: count what its threads did."""
        for (_, line, _), accesses in self._open.items():
            lanes = LANES * 4 // max(4, *(n for _, _, n in accesses))  # 128 bytes are served at a time
            phases: dict[int, list[tuple[int, int]]] = defaultdict(list)
            for lane, address, nbytes in accesses:
                phases[lane // lanes].append((address, nbytes))
            for phase in phases.values():
                self._count(line, phase)
        self._open.clear()
        self._visits.clear()

    def _count(self, line: int, accesses: Sequence[tuple[int, int]]) -> None:
        words = {word for address, nbytes in accesses for word in range(address // 4, (address + nbytes + 3) // 4)}
        self.accesses[line] += 1
        self.extra[line] += max(Counter(word % _BANKS for word in words).values()) - 1
