"""The targets that a graph can be built for: what joins the passes with a runtime."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from engine import canonical, settings
from engine.errors import UnsupportedError
from engine.graph import Graph
from engine.options import Options
from engine.program import Kernel, Lowered, Program
from engine.records import dataclass
from engine.state import Cell
from engine.tuning import Tuning
from tenon.text_format import plural

if TYPE_CHECKING:
    from engine.schedule import Bundle, KernelSpec, Target
    from passes.assemble import Lower
    from runtime.code_report import Report
    from runtime.cuda.device import Properties
    from tenon.tuning import Bench

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
    runtime has counted, ``memory`` the bytes by kind of buffer for given sizes of the dims. An executor that
    ``looks_ahead`` takes a third argument in ``run``: a function that gives the inputs of the next call."""

    executor: Executor
    origin: Origin
    program: Program | None
    counters: Callable[[], dict[str, int]]
    memory: Callable[[Mapping[str, int]], dict[str, int]]
    looks_ahead: bool = False


class Backend(Protocol):
    """One target; ``place`` is where its programs run, for people. ``in_place`` says that they read state where its
    cells have it, in their order; others have copies of their own."""

    @property
    def place(self) -> str: ...

    @property
    def in_place(self) -> bool: ...

    def build(self, graph: Graph, cells: Cells, options: Options) -> Built:
        """Make the graph run over the state in ``cells``."""

    def rebuild(self, built: Built, cells: Cells) -> Built:
        """The same program and code with a new executor; where it came from stays what it was."""

    def observe(self, graph: Graph, options: Options, observe: Observe) -> None:
        """Run the passes again, and show what each one made."""

    def untunable(self) -> str:
        """Why its kernels cannot be tuned, or an empty text."""

    def tune(self, graph: Graph, options: Options, values: Mapping[str, int]) -> Tuning:
        """What is fastest at these values of the dims."""


class _Stopwatch:
    """Sees the stages of a compilation: the seconds of each, since the one before."""

    def __init__(self) -> None:
        self.laps: list[tuple[str, float]] = []
        self._since = time.perf_counter()

    def __call__(self, name: str, stage: Any) -> None:
        now = time.perf_counter()
        self.laps.append((name, now - self._since))
        self._since = now


class Compiling:
    """Passes, kernels and a program, which a runtime runs; programs and the code of kernels are cached on disk."""

    looks_ahead = False
    in_place = False
    place = "cpu"

    def build(self, graph: Graph, cells: Cells, options: Options) -> Built:
        from runtime import cache

        store = cache.default()
        key = f"{_identity(graph)} {self._key(options)}"
        program = store.load_program(key, graph.name)
        found = program is not None
        watch = _Stopwatch()
        if program is None:
            self.expect(graph)
            program = self._compile(graph, options, watch)
            store.store_program(key, program)
        built = self._load(_located(program, graph), cells, found)
        return replace(built, origin=replace(built.origin, passes=tuple(watch.laps)))

    def rebuild(self, built: Built, cells: Cells) -> Built:
        assert built.program is not None
        return replace(self._load(built.program, cells, built.origin.from_cache), origin=built.origin)

    def _load(self, program: Program, cells: Cells, from_cache: bool) -> Built:
        executor, report = self.executor(program, cells)
        origin = Origin(
            from_cache, (), report.compiled, report.loaded, report.shared, report.seconds, report.took, report.known
        )
        return Built(
            executor, origin, program, lambda: dict(vars(executor.counters)), executor.memory, self.looks_ahead
        )

    def observe(self, graph: Graph, options: Options, observe: Observe) -> None:
        self._compile(graph, options, observe)

    def _compile(self, graph: Graph, options: Options, observe: Observe) -> Program:
        from passes.pipeline import compile_graph

        return compile_graph(graph, self.target(options), self.lowering(options), options, observe)

    def lowering(self, options: Options) -> Lower:
        """How kernels are lowered under ``options``."""
        if options.tuning is None:
            return self.lower
        from tenon.tuning import tuned_lowering

        return tuned_lowering(self.lower, options.tuning)

    def untunable(self) -> str:
        return ""

    def tune(self, graph: Graph, options: Options, values: Mapping[str, int]) -> Tuning:
        from tenon.tuning import tune

        return tune(graph, f"{_identity(graph)} {self._key(options)}", options, self, values)

    @property
    def bench_name(self) -> str:
        """The machine that kernels are measured on, and what of it they use."""
        raise NotImplementedError

    def bench(self) -> Bench:
        """Where kernels are measured."""
        from tenon.tuning import ProgramBench

        return ProgramBench(self, self._seconds)

    def _seconds(self, executor: Any, inputs: Mapping[str, np.ndarray]) -> float:
        """What a call takes."""
        raise NotImplementedError

    def load(self, kernels: Collection[Kernel]) -> None:
        """Have the code of ``kernels`` in this process."""
        raise NotImplementedError

    def expect(self, graph: Graph) -> None:
        """``graph`` is about to be compiled: what takes time to start may start."""

    def target(self, options: Options) -> Target:
        """What passes may know of it."""
        raise NotImplementedError

    def lower(self, item: KernelSpec | Bundle, lasting: Collection[str] = ()) -> Lowered:
        """The calls, kernels and buffers for one item of a schedule."""
        raise NotImplementedError

    def _key(self, options: Options) -> str:
        """What tells its programs apart from other backends', and from those with other options."""
        raise NotImplementedError

    def executor(self, program: Program, cells: Cells) -> tuple[Any, Report]:
        """What runs ``program`` over the state in ``cells``, and where the code of its kernels came from."""
        raise NotImplementedError

    def inspect(self, kernel: Kernel) -> dict[str, str]:
        """What ``kernel`` is compiled from and to, as texts by the suffix of the file that each belongs in."""
        raise NotImplementedError

    def why_compiled(self, kernel: Kernel) -> str:
        """Why the cache did not have the code of ``kernel``, or an empty text."""
        raise NotImplementedError


class CPU(Compiling):
    """Numba kernels and the native driver."""

    in_place = True

    def target(self, options: Options) -> Target:
        from runtime.cpu.target import target

        return target()

    def lower(self, item: KernelSpec | Bundle, lasting: Collection[str] = ()) -> Lowered:
        from runtime.cpu.lower import lower

        return lower(item, lasting)

    def _key(self, options: Options) -> str:
        return f"cpu {options.key}"

    def untunable(self) -> str:
        return "" if settings.get("jit") else "kernels run in Python (TENON_JIT=0)"

    @property
    def bench_name(self) -> str:
        from runtime.cpu.threads import thread_count
        from runtime.fingerprint import cpu_environment

        return f"{cpu_environment()['CPU']}, {plural(thread_count(), 'thread')}"

    def _seconds(self, executor: Any, inputs: Mapping[str, np.ndarray]) -> float:
        start = time.perf_counter()
        executor.run(inputs)
        return time.perf_counter() - start

    def expect(self, graph: Graph) -> None:
        if settings.get("jit"):
            from runtime.cpu.compile import expect

            expect(len(graph.nodes))

    def load(self, kernels: Collection[Kernel]) -> None:
        from runtime import cache
        from runtime.cpu.loading import load_code

        load_code(kernels, cache.default())

    def executor(self, program: Program, cells: Cells) -> tuple[Any, Report]:
        from runtime import cache
        from runtime.cpu.loading import build

        return build(program, cells, cache.default())

    def inspect(self, kernel: Kernel) -> dict[str, str]:
        from runtime.cpu.compile import inspect_kernel

        llvm, assembly = inspect_kernel(kernel)
        return {".py": kernel.source, ".ll": llvm, ".s": assembly}

    def why_compiled(self, kernel: Kernel) -> str:
        from runtime import cache
        from runtime.cpu.loading import identity_of

        return cache.default().why(cache.OBJECT, identity_of(kernel))


class CUDA(Compiling):
    """numba.cuda kernels on the GPU number ``index``, or in the simulator where ``NUMBA_ENABLE_CUDASIM=1`` is set."""

    looks_ahead = True

    def __init__(self, index: int):
        self.index = index

    @property
    def place(self) -> str:  # type: ignore[override]
        found = self.properties
        return f"{found.target} (the simulator)" if found.simulated else found.target

    @property
    def properties(self) -> Properties:
        from runtime.cuda.devices import open_device

        return open_device(self.index).properties

    def target(self, options: Options) -> Target:
        from runtime.cuda.target import target

        return target()

    def lower(self, item: KernelSpec | Bundle, lasting: Collection[str] = ()) -> Lowered:
        from runtime.cuda.lower import lower

        return lower(item, lasting, self.properties.architecture)

    def _key(self, options: Options) -> str:
        return f"cuda {self.properties.architecture} {options.key} products={options.products}"

    def untunable(self) -> str:
        return "the simulator's times say nothing of a GPU's" if self.properties.simulated else ""

    @property
    def bench_name(self) -> str:
        return f"{self.properties.name} with {self.properties.multiprocessors} multiprocessors"

    def _seconds(self, executor: Any, inputs: Mapping[str, np.ndarray]) -> float:
        return executor.seconds(inputs, 1)[0]

    def load(self, kernels: Collection[Kernel]) -> None:
        from runtime import cache
        from runtime.cuda.devices import open_device
        from runtime.cuda.loading import load_functions

        load_functions(kernels, open_device(self.index), cache.default())

    def executor(self, program: Program, cells: Cells) -> tuple[Any, Report]:
        from runtime import cache
        from runtime.cuda.loading import build

        return build(program, cells, cache.default(), self.index)

    def inspect(self, kernel: Kernel) -> dict[str, str]:
        from runtime.cuda.inspecting import inspect_kernel

        found = inspect_kernel(kernel, self.properties.architecture, self.properties.processor)
        return {".py": kernel.source, ".ptx": found.ptx, ".sass": found.sass, ".txt": found.resources}

    def why_compiled(self, kernel: Kernel) -> str:
        from runtime import cache
        from runtime.cuda.compile import Processor
        from runtime.cuda.loading import identity_of

        processor = Processor(self.properties.architecture, self.properties.processor)
        return cache.default().why(cache.CUBIN, identity_of(kernel, processor))


class Reference:
    """The ops' NumPy references, one node at a time: slow, and what every other target is held to."""

    place = "reference"
    in_place = False

    def build(self, graph: Graph, cells: Cells, options: Options) -> Built:
        from runtime.reference import ReferenceExecutor

        for _, run in _defining(options):
            graph = run(graph)
        return Built(ReferenceExecutor(graph, cells), Origin(), None, dict, _no_plan)

    def rebuild(self, built: Built, cells: Cells) -> Built:
        return built

    def untunable(self) -> str:
        return "the reference interprets the graph"

    def tune(self, graph: Graph, options: Options, values: Mapping[str, int]) -> Tuning:
        raise UnsupportedError(f"nothing can be tuned: {self.untunable()}")

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


_BACKENDS: dict[str, Backend] = {"cpu": CPU(), "reference": Reference()}


def compiling(name: str) -> Compiling:
    """The backend called ``name``, which makes programs. Raises UnsupportedError for one that does not."""
    found = get(name)
    if not isinstance(found, Compiling):
        raise UnsupportedError(f"target={name!r} interprets the graph: it has no program")
    return found


def get(name: str) -> Backend:
    """The backend called ``name``; ``"cuda"`` is ``"cuda:0"``. Raises UnsupportedError, and for a GPU what
    :func:`runtime.cuda.devices.open_device` raises."""
    if name in _BACKENDS:
        return _BACKENDS[name]
    gpu = re.fullmatch(r"cuda(?::(\d+))?", name) if isinstance(name, str) else None
    if gpu is None:
        known = ", ".join(map(repr, [*_BACKENDS, "cuda"]))
        raise UnsupportedError(f"there is no target {name!r}; expected one of {known}, or a GPU by number: 'cuda:1'")
    backend = CUDA(int(gpu[1] or 0))
    backend.properties  # noqa: B018  (says what is missing before anything is traced or compiled)
    return backend
