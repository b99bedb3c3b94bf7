"""The targets that a graph can be built for: what joins the passes with a runtime."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from engine import canonical
from engine.errors import UnsupportedError
from engine.graph import Graph
from engine.options import Options
from engine.program import Program
from engine.state import Cell

Cells = Mapping[str, Cell]
Observe = Callable[[str, Any], None]


class Executor(Protocol):
    """Something that runs: arrays in, fresh arrays (or ``out``) back, state updated in place."""

    def run(
        self, inputs: Mapping[str, object] | Sequence[object], out: Sequence[np.ndarray] | None = None
    ) -> tuple[np.ndarray, ...]: ...


@dataclass(frozen=True)
class Origin:
    """Where code came from: the program from the cache (``from_cache``) or from the ``passes``, each with its seconds;
    kernels ``compiled`` now, ``loaded`` from the cache, or ``shared`` with other programs of this process. By the keys
    of kernels, ``took`` holds the seconds of each that was compiled, ``known`` those that are shared. ``code_seconds``
    is what getting their code took: many are compiled side by side."""

    from_cache: bool = False
    passes: tuple[tuple[str, float], ...] = ()
    compiled: int = 0
    loaded: int = 0
    shared: int = 0
    code_seconds: float = 0.0
    took: Mapping[str, float] = field(default_factory=dict)
    known: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Built:
    """A graph that can run. ``program`` is None where the graph itself is interpreted. ``counters`` tells what the
    runtime has counted, ``memory`` the bytes by kind of buffer for given sizes of the dims."""

    executor: Executor
    origin: Origin
    program: Program | None
    counters: Callable[[], dict[str, int]]
    memory: Callable[[Mapping[str, int]], dict[str, int]]


class Backend(Protocol):
    """One target."""

    def build(self, graph: Graph, cells: Cells, options: Options) -> Built:
        """Make the graph run over the state in ``cells``."""

    def rebuild(self, built: Built, cells: Cells) -> Built:
        """The same program and code with a new executor; where it came from stays what it was."""

    def observe(self, graph: Graph, options: Options, observe: Observe) -> None:
        """Run the passes again, and show what each one made."""


class _Stopwatch:
    """Sees the stages of a compilation: the seconds of each, since the one before."""

    def __init__(self) -> None:
        self.laps: list[tuple[str, float]] = []
        self._since = time.perf_counter()

    def __call__(self, name: str, stage: Any) -> None:
        now = time.perf_counter()
        self.laps.append((name, now - self._since))
        self._since = now


class CPU:
    """Passes, Numba kernels and the native program; programs and object code are cached on disk."""

    def build(self, graph: Graph, cells: Cells, options: Options) -> Built:
        from runtime import cache

        store = cache.default()
        key = f"{_identity(graph)} cpu {options.key}"
        program = store.load_program(key, graph.name)
        found = program is not None
        watch = _Stopwatch()
        if program is None:
            program = _compile(graph, options, watch)
            store.store_program(key, program)
        built = self._load(_located(program, graph), cells, found)
        return replace(built, origin=replace(built.origin, passes=tuple(watch.laps)))

    def rebuild(self, built: Built, cells: Cells) -> Built:
        assert built.program is not None
        return replace(self._load(built.program, cells, built.origin.from_cache), origin=built.origin)

    def _load(self, program: Program, cells: Cells, from_cache: bool) -> Built:
        from runtime import cache
        from runtime.cpu.loading import build

        executor, report = build(program, cells, cache.default())
        origin = Origin(
            from_cache, (), report.compiled, report.loaded, report.shared, report.seconds, report.took, report.known
        )
        return Built(executor, origin, program, lambda: dict(vars(executor.counters)), executor.memory)

    def observe(self, graph: Graph, options: Options, observe: Observe) -> None:
        _compile(graph, options, observe)


class Reference:
    """The ops' NumPy references, one node at a time: slow, and what every other target is held to."""

    def build(self, graph: Graph, cells: Cells, options: Options) -> Built:
        from runtime.reference import ReferenceExecutor

        for _, run in _defining(options):
            graph = run(graph)
        return Built(ReferenceExecutor(graph, cells), Origin(), None, dict, _no_plan)

    def rebuild(self, built: Built, cells: Cells) -> Built:
        return built

    def observe(self, graph: Graph, options: Options, observe: Observe) -> None:
        for name, run in _defining(options):
            graph = run(graph)
            observe(name, graph)


def _defining(options: Options) -> list[tuple[str, Callable[[Graph], Graph]]]:
    """The passes that say what is computed, not how."""
    from passes.autodiff import expand_gradients
    from passes.pipeline import precision_passes

    return [*precision_passes(options), ("autodiff", expand_gradients)]


def _identity(graph: Graph) -> str:
    """What the graph computes, as a hash. What a user's gradient computes shows once it has made its nodes."""
    if any(n.op.version for n in graph.nodes):
        from passes.autodiff import expand_gradients

        graph = expand_gradients(graph)
    return canonical.digest(graph)


def _located(program: Program, graph: Graph) -> Program:
    """``program`` with the lines of ``graph`` in its messages: one from the cache was made of an older source."""
    lines = {n.name: str(n.location) for n in graph.nodes if n.location is not None}
    facts = {(a.expr, a.relation, a.reason): a for a in graph.assumptions}
    return replace(
        program,
        checks=tuple(replace(c, location=lines.get(c.node, c.location)) for c in program.checks),
        assumptions=tuple(facts.get((a.expr, a.relation, a.reason), a) for a in program.assumptions),
    )


def _no_plan(sizes: Mapping[str, int]) -> dict[str, int]:
    raise UnsupportedError("the reference interprets the graph: its memory is NumPy's, and is not planned")


def _compile(graph: Graph, options: Options, observe: Observe | None = None) -> Program:
    from passes.pipeline import compile_graph
    from runtime.cpu.lower import lower
    from runtime.cpu.target import target

    return compile_graph(graph, target(), lower, options, observe)


_BACKENDS: dict[str, Backend] = {"cpu": CPU(), "reference": Reference()}


def get(name: str) -> Backend:
    """The backend called ``name``. Raises UnsupportedError."""
    if name not in _BACKENDS:
        raise UnsupportedError(f"there is no target {name!r}; expected one of {', '.join(map(repr, _BACKENDS))}")
    return _BACKENDS[name]
