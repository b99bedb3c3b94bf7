"""Which cluster reads from which, while clusters merge."""

from __future__ import annotations


class Precedence:
    """A graph of numbers without cycles, of which pairs are contracted."""

    def __init__(self) -> None:
        self._after: dict[int, set[int]] = {}
        self._before: dict[int, set[int]] = {}

    def add(self, number: int) -> None:
        self._after[number], self._before[number] = set(), set()

    def connect(self, first: int, second: int) -> None:
        self._after[first].add(second)
        self._before[second].add(first)

    def detour(self, first: int, second: int) -> bool:
        """Whether a path leads from ``first`` to ``second`` beside an edge: one may not be merged with the other.

        The search goes from both ends at once, always where fewer are waiting, so that it stays where one end is
        near, whatever the size of the graph.
        """
        forwards = self._after[first] - {second}
        backwards = self._before[second] - {first}
        reached, reaching = set(forwards), set(backwards)
        while forwards and backwards:
            if not reached.isdisjoint(backwards) or not reaching.isdisjoint(forwards):
                return True
            if len(forwards) <= len(backwards):
                forwards = {n for f in forwards for n in self._after[f]} - reached
                reached |= forwards
            else:
                backwards = {n for b in backwards for n in self._before[b]} - reaching
                reaching |= backwards
        return False

    def contract(self, first: int, second: int) -> None:
        """Let ``first`` stand for both."""
        after, before = self._after.pop(second), self._before.pop(second)
        for n in after:
            self._before[n].discard(second)
            self.connect(first, n)
        for n in before:
            self._after[n].discard(second)
            if n != first:
                self.connect(n, first)
