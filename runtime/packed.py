"""Packed buffers: forms of the state that kernels prefer, kept in step with it by version numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Generic, TypeVar

from engine.buffers import Buffer
from engine.memory import Plan
from engine.program import Program
from engine.state import Cell

Memory = TypeVar("Memory")
Binding = Any
"""A program bound to sizes, by a backend: it has a ``plan``, a :class:`Plan`."""

_VERSION = attrgetter("version")
_Memory = tuple[int, tuple[int, ...]]
"""A prepare call, by position, and the bytes of the buffers that it fills: these tell bindings apart."""


class PackedState(Generic[Memory]):
    """The packed buffers of one executor, shared by its bindings, and which versions of the state they hold.
    ``allocate`` gives the memory of one that has so many bytes."""

    def __init__(self, program: Program, cells: Mapping[str, Cell], allocate: Callable[[Buffer, int], Memory]):
        self.calls = program.prepare
        self._sources = _sources(program, cells)
        self._cells = list({id(cell): cell for found in self._sources for cell in found}.values())
        self._allocate = allocate
        self._memory: dict[tuple[str, int], Memory] = {}
        self._seen: dict[_Memory, tuple[int, ...]] = {}
        self._latest: tuple[Binding | None, list[int]] = (None, [])
        written = {name for call in program.main for name in call.writes}
        self._by_main = [i for i, call in enumerate(program.prepare) if written.issuperset(call.writes)]

    def memory(self, buffer: Buffer, nbytes: int) -> Memory:
        """The memory of a packed buffer of that many bytes."""
        key = buffer.name, nbytes
        if key not in self._memory:
            self._memory[key] = self._allocate(buffer, nbytes)
        return self._memory[key]

    def refresh(self, binding: Binding, run: Callable[[Binding, set[int]], None]) -> None:
        """Have those of the prepare calls ``run`` whose state has changed since they last ran."""
        versions = list(map(_VERSION, self._cells))
        latest, seen = self._latest
        if latest is binding and seen == versions:
            return
        due = {i for i in range(len(self.calls)) if self._seen.get(self._key(i, binding)) != self._versions(i)}
        if due:
            run(binding, due)
            self._mark(due, binding)
        self._latest = binding, versions

    def refreshed_by_main(self, binding: Binding) -> None:
        """The program has just updated state; what its own kernels keep packed is up to date."""
        self._mark(self._by_main, binding)
        if len(self._by_main) == len(self.calls):
            self._latest = binding, list(map(_VERSION, self._cells))

    def _mark(self, calls: set[int] | list[int], binding: Binding) -> None:
        for i in calls:
            self._seen[self._key(i, binding)] = self._versions(i)

    def _key(self, call: int, binding: Binding) -> _Memory:
        plan: Plan = binding.plan
        return call, tuple([plan.nbytes[name] for name in self.calls[call].writes])

    def _versions(self, call: int) -> tuple[int, ...]:
        return tuple([cell.version for cell in self._sources[call]])


def _sources(program: Program, cells: Mapping[str, Cell]) -> list[list[Cell]]:
    """The state that each prepare call depends on, directly or through what earlier ones packed."""
    through: dict[str, list[Cell]] = {}
    result = []
    for call in program.prepare:
        found: dict[int, Cell] = {}
        for name in call.reads:
            for cell in [cells[name]] if name in cells else through.get(name, []):
                found[id(cell)] = cell
        result.append(list(found.values()))
        for name in call.writes:
            known = {id(c): c for c in through.get(name, [])} | found
            through[name] = list(known.values())
    return result
