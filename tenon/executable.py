"""A compiled program that Python can call, look into and dump."""

from __future__ import annotations

import itertools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine import binding, settings
from engine.errors import TenonError, UnsupportedError
from engine.graph import Graph, Value
from engine.options import DEFAULT, Options
from engine.program import Program
from engine.state import Cell
from engine.tuning import Tuning
from frontend.nest import flatten, unflatten
from tenon import backends
from tenon.backends import Built
from tenon.inspection.report import Report
from tenon.memory import MemoryUse, check_sizes
from tenon.tracing import Traced

if TYPE_CHECKING:
    from engine.schedule import Schedule
    from tenon.inspection.profile import Profile

alive: weakref.WeakSet[Executable] = weakref.WeakSet()
"""Every executable of this process that has not been collected."""

on_created: list[Callable[[Executable], None]] = []
"""Called with each executable once it can run: how ``tenon run`` and ``TENON_DUMP`` see those of any script."""


class Executable:
    """A traced function as one program: NumPy arrays in, NumPy arrays out, in the nest that the function returned.

    One program serves every size of the specs' dims. Its state (parameters, moments, running statistics) is shared
    with every other program of the same model, and is updated in place.
    """

    def __init__(self, traced: Traced, target: str = "cpu", options: Options = DEFAULT):
        start = time.perf_counter()
        self.name = traced.graph.name
        self.options = options
        self.target = target
        self._rebuild = traced.rebuild
        self._backend = backends.get(target)
        self._traced = _as_stored(traced) if self._backend.in_place else traced
        self._compile_count = 0
        self._stages: dict[str, Graph | Schedule | Program] | None = None
        self._inputs = [v.node.attrs["name"] for v in traced.graph.inputs]
        self._waits_for_sizes = False
        self._lock = threading.Lock()
        if options.autotune and not self._backend.untunable():
            self._waits_for_sizes = bool(traced.graph.dims())
            if not self._waits_for_sizes:
                self._tune({})
        self._built = self._build()
        self._run = self._tune_first if self._waits_for_sizes else self._built.executor.run
        self._seconds = time.perf_counter() - start
        alive.add(self)
        for watcher in (*on_created, _dump_if_asked, _profile_if_asked):
            watcher(self)

    def _build(self) -> Built:
        self._compile_count += 1
        for cell in self._traced.cells.values():
            cell.in_use = True
        return self._backend.build(self._traced.graph, self._traced.cells, self.options)

    def _tune(self, sizes: Mapping[str, int]) -> None:
        self.options = replace(self.options, tuning=self._backend.tune(self.graph, self.options, sizes))

    def _tune_first(self, inputs: Any, out: Any = None) -> tuple[np.ndarray, ...]:
        """The first call of a program that waits for sizes."""
        self._tune_for(inputs)
        return self._built.executor.run(inputs, out)

    def _tune_for(self, inputs: Any) -> None:
        """Tune the program for the sizes of ``inputs``, where it waits for some."""
        with self._lock:
            if not self._waits_for_sizes:
                return
            ports = self.program.inputs
            sizes = binding.solve(ports, [a.shape for a in binding.arrange(ports, inputs)], known=self._state_sizes())
            binding.check_assumptions(self.program.assumptions, sizes)
            self._tune(sizes)
            self._waits_for_sizes = False
            if self.options.tuning and self.options.tuning.answers:
                self._built, self._stages = self._build(), None
            self._run = self._built.executor.run

    def _state_sizes(self) -> dict[str, int]:
        state = self.program.state
        return binding.solve(state, [self.cells[port.name].shape for port in state], "state")

    def reload(self) -> None:
        """Bind the same code to memory and threads anew; nothing is compiled."""
        self._built = self._backend.rebuild(self._built, self._traced.cells)
        if not self._waits_for_sizes:
            self._run = self._built.executor.run

    # --- running -------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        """Run on arrays in the order of the specs, or by name. ``out``: arrays, nested as the result, to write into.

        Raises ShapeError and DTypeError for arrays that do not fit, IndexRangeError for a bad index (state is then as
        it was), TenonError for a wrong number of arguments.
        """
        results = self._run(self.by_name(args, kwargs) if kwargs else args, None if out is None else _arrays_of(out))
        return self._rebuild(iter(results))

    def over(self, batches: Iterable[Sequence[Any]]) -> Iterator[tuple[Sequence[Any], Any]]:
        """Each of ``batches``, the inputs of a call, with its result, one after the other. On a GPU the next batch is
        made and brought there while the one before is computed with."""
        batches = iter(batches)
        if self._waits_for_sizes:
            yield from ((batch, self(*batch)) for batch in itertools.islice(batches, 1))
        if not self._built.looks_ahead or self._run != self._built.executor.run:
            for batch in batches:
                yield batch, self(*batch)
            return
        ahead = _Ahead(batches)
        run: Any = self._run
        while (taken := ahead.take()) is not None:
            yield taken, unflatten(self._traced.rebuild, run(taken, None, ahead.look))

    def join(self, results: Sequence[Any]) -> Any:
        """The results of several calls joined along axis 0, nested as one of them."""
        leaves = [_arrays_of(result) for result in results]
        return unflatten(self._traced.rebuild, [np.concatenate(parts) for parts in zip(*leaves, strict=True)])

    def by_name(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call as inputs by name. Raises TenonError for too many, and for one given twice."""
        if len(args) > len(self._inputs):
            names = ", ".join(self._inputs)
            raise TenonError(f"{self.name} takes {len(self._inputs)} inputs ({names}), not {len(args)}")
        given = dict(zip(self._inputs, args, strict=False))
        twice = sorted(given.keys() & kwargs.keys())
        if twice:
            raise TenonError(f"the input {twice[0]!r} of {self.name} was given both by place and by name")
        return {**given, **kwargs}

    @property
    def tuning(self) -> Tuning | None:
        """What autotuning has found; None where the program is not tuned, or not yet."""
        return self.options.tuning

    @property
    def level(self) -> int:
        """The level of optimisation."""
        return self.options.level

    # --- looking into it -----------------------------------------------------------------------------------

    @property
    def graph(self) -> Graph:
        """What was traced, before any pass. It prints as a Python program."""
        return self._traced.graph

    @property
    def stages(self) -> Mapping[str, Graph | Schedule | Program]:
        """What each pass made, by its name, from the trace to the program; a pass that runs again is ``simplify-2``.

        Runs the passes again at first use.
        """
        if self._stages is None:
            found: dict[str, Graph | Schedule | Program] = {"trace": self.graph}

            def keep(name: str, stage: Any) -> None:
                found[_unused(name, found.__contains__)] = stage

            self._backend.observe(self.graph, self.options, keep)
            self._stages = found
        return self._stages

    @property
    def program(self) -> Program:
        """The table of kernel calls that runs. Raises UnsupportedError on the reference, which has none."""
        if self._built.program is None:
            raise UnsupportedError(f"target={self.target!r} interprets the graph: it has no program; see exe.graph")
        return self._built.program

    @property
    def has_program(self) -> bool:
        """Whether it was compiled to a program; the reference interprets the graph."""
        return self._built.program is not None

    @property
    def origin(self) -> backends.Origin:
        """Where its program and its code came from."""
        return self._built.origin

    @property
    def executor(self) -> backends.Executor:
        """What runs it, below this class."""
        return self._built.executor

    @property
    def cells(self) -> Mapping[str, Cell]:
        """The state that the program reads and updates, by name."""
        return self._traced.cells

    @property
    def compile_count(self) -> int:
        """How often a program was made for this executable; sizes do not count, only bindings follow them. Where
        tuning at the first call changes something it is made again."""
        return self._compile_count

    @property
    def counters(self) -> dict[str, int]:
        """What has happened while running, counted by the runtime: calls, bindings, steps, barriers ..."""
        return self._built.counters()

    @property
    def report(self) -> Report:
        """How it was built: nodes, fused kernels, kernels compiled and loaded from the cache, arena and seconds."""
        return Report.of(self.target, self._backend.place, self.graph, self._built, self._seconds)

    def memory(self, **sizes: int) -> MemoryUse:
        """Bytes by class for these values of the dims, ``exe.memory(B=64)``, before anything runs.

        Raises ShapeError for a dim that is missing, unknown or negative, UnsupportedError on the reference.
        """
        check_sizes(self.program, sizes)
        return MemoryUse.of(self._built.memory(sizes))

    def profile(self, *args: Any, repeats: int | None = None, **kwargs: Any) -> Profile:
        """Where the time of a call on these inputs goes, from ``repeats`` calls (by default as many as take a second,
        at least 5). State is afterwards as it was before: profiling a training step trains nothing.

        Printing the result shows tables by kernel, op, module and source line. Raises TenonError for ``repeats`` below
        1, UnsupportedError where Python runs the program (the reference, ``TENON_JIT=0``), and whatever a call raises.
        """
        from tenon.inspection.profiling import profile

        self._tune_for(self.by_name(args, kwargs) if kwargs else args)
        return profile(self, args, kwargs, repeats)

    def dump(self, folder: str | os.PathLike[str], *inputs: Any) -> Path:
        """Write everything that can be read into ``folder``, which is new or an older dump. Returns it.

        The graph after every pass as a runnable Python file, the schedule, each kernel's source, LLVM IR and assembly,
        the program, memory over time, and ``index.html``, a page to look through all of it in a browser. Where there
        are ``inputs`` those files run with them, and the page has the times of a call on them.
        """
        from tenon.inspection.dump import dump

        return dump(self, Path(folder), inputs)

    def __repr__(self) -> str:
        inputs = ", ".join(map(_port_text, self.graph.inputs))
        return f"<Executable {self.name}({inputs}) on {self._backend.place}, level {self.level}>"


class _Ahead:
    """Batches that are taken one by one, and may be looked at before."""

    def __init__(self, batches: Iterable[Sequence[Any]]):
        self._batches = iter(batches)
        self._next: tuple[Any, ...] | None = None
        self._error: Exception | None = None

    def look(self) -> tuple[Any, ...] | None:
        """The batch that will be taken next. What making it raises is raised when it is taken: a call runs now."""
        if self._next is None and self._error is None:
            try:
                found = next(self._batches, None)
                self._next = None if found is None else tuple(found)
            except Exception as error:
                self._error = error
        return self._next

    def take(self) -> tuple[Any, ...] | None:
        found = self.look()
        if self._error is not None:
            raise self._error
        self._next = None
        return found


def unused_folder(parent: Path, name: str) -> Path:
    """``parent/name``, or the first of ``name-2``, ``name-3`` ... that does not exist."""
    return parent / _unused(name, lambda candidate: (parent / candidate).exists())


def _unused(name: str, is_taken: Callable[[str], bool]) -> str:
    candidates = itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2)))
    return next(c for c in candidates if not is_taken(c))


def _port_text(value: Value) -> str:
    return f"{value.node.attrs['name']}: {value.type}"


def _arrays_of(nest: Any) -> list[np.ndarray]:
    return flatten(nest, lambda x: isinstance(x, np.ndarray), _not_an_array)[0]


def _not_an_array(found: object, where: str) -> TenonError:
    return TenonError(f"out{where} is {type(found).__name__} {found!r:.60}; an array was expected")


def _dump_if_asked(executable: Executable) -> None:
    folder = settings.get("dump")
    if folder:
        executable.dump(unused_folder(Path(folder), executable.name))


def _profile_if_asked(executable: Executable) -> None:
    if settings.get("profile"):
        from tenon.inspection.profiling import print_at_exit

        print_at_exit(executable)


def _as_stored(traced: Traced) -> Traced:
    """``traced`` with the order in which its state lies in memory."""
    orders = {v: traced.cells[v.node.attrs["name"]].order for v in traced.graph.state}
    layouts = {v: order for v, order in orders.items() if order is not None}
    return replace(traced, graph=traced.graph.with_(layouts=layouts)) if layouts else traced
