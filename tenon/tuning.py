"""Autotuning: the choices of lowerings, measured on the machine instead of estimated.

A lowering asks (runtime/choices.py): which block, which tile, which algorithm. For each kernel that asks, one question
after the other, every candidate is run by itself on made-up memory of the call's sizes, all in turn, and the fastest is
taken where it beats the default by more than the measurements vary. What is found is kept in the cache.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Protocol

import numpy as np

from engine.errors import DeviceMemoryError, UnsupportedError
from engine.graph import Graph
from engine.memory import Sizes
from engine.options import Options
from engine.program import Arg, Block, BoxMap, Kernel, Lowered, Pointer, Program
from engine.schedule import Bundle, KernelSpec, Schedule
from engine.tuning import Finding, Tuned, Tuning
from runtime import cache
from runtime.choices import Questions, answered
from tenon.progress import Progress
from tenon.trials import TURNS, Ground

if TYPE_CHECKING:
    from passes.assemble import Lower
    from tenon.backends import Compiling

ROUNDS = 5
"""How often every candidate is timed, all in turn."""
PAIRS = 11
"""How often the fastest is then timed beside the default alone."""
FAR = 1.3
"""How many times longer than the fastest a candidate may take in the first round without being given up."""
GAIN = 0.97
"""The part of the default's time that a winner takes at most, in three of four pairs and at their best."""
TARGET = 2e-3
"""Seconds that a measurement should take, in turns of a kernel; a longer kernel gets one."""
MOST_TURNS = 4096

Run = Callable[[], float]
"""Runs a candidate once, and gives its seconds."""


class Bench(Protocol):
    """Where candidates run: loads the code of many kernels at once, and gives a function of a number of turns, the
    seconds of so many in a row of a program made by :class:`tenon.trials.Ground`."""

    def load(self, kernels: Collection[Kernel]) -> None: ...

    def ready(self, program: Program, ground: Ground) -> Callable[[int], float]: ...


# --- the search --------------------------------------------------------------------------------------------


def fastest(runs: Sequence[Run]) -> tuple[tuple[float, ...], int]:
    """The median seconds of each candidate, and the number of the one to take: the first unless another is faster by
    more than chance."""
    rounds = [[run() for run in runs]]
    near = FAR * min(rounds[0])
    kept = [i for i, seconds in enumerate(rounds[0]) if i == 0 or seconds <= near]
    times = {i: [rounds[0][i]] for i in range(len(runs))}
    for _ in range(ROUNDS - 1):
        for i in kept:
            times[i].append(runs[i]())
    medians = tuple(median(times[i]) for i in range(len(runs)))
    best = min(kept, key=lambda i: medians[i])
    return medians, best if best and _wins(runs[best], runs[0]) else 0


def _wins(challenger: Run, default: Run) -> bool:
    """Whether it does so again, in pairs that no candidate was chosen by. On a machine that does other things as well
    most times say little, but the least ones do."""
    pairs = [(challenger(), default()) for _ in range(PAIRS)]
    ratios = sorted(a / b for a, b in pairs)
    least, beside = (min(times) for times in zip(*pairs, strict=True))
    return ratios[3 * len(ratios) // 4] < GAIN and least < GAIN * beside


def _turn(run: Callable[[int], float], turns: int) -> float:
    """The seconds of one turn, of so many in a row."""
    return run(turns) / turns


class Search:
    """Answers the questions of kernels by measurements on ``bench``, on ``ground``; ``lower`` is a backend's."""

    def __init__(self, lower: Lower, ground: Ground, bench: Bench):
        self.lower, self.ground, self.bench = lower, ground, bench

    def findings(self, item: KernelSpec | Bundle) -> tuple[Finding, ...]:
        """Those of one kernel. A question is asked under the answers that were found to those before it."""
        found: list[Finding] = []
        answers: dict[str, int] = {}
        while True:
            asked = answered(answers, partial(self.lower, item, self.ground.lasting))[1]
            question = next((q for q in asked if q not in answers), None)
            if question is None:
                return tuple(found)
            lowered = [
                answered({**answers, question: i}, partial(self.lower, item, self.ground.lasting))[0]
                for i in range(len(asked[question]))
            ]
            self.bench.load({k.key: k for each in lowered for k in each.kernels}.values())
            runs = self._runs(lowered)
            if runs is None:
                return tuple(found)
            medians, answers[question] = fastest(runs)
            found.append(Finding(question, asked[question], medians, answers[question]))

    def _runs(self, lowered: Sequence[Lowered]) -> list[Run] | None:
        """Each candidate with the seconds of one turn, or None where one does nothing in a call, or the default does
        not fit in memory beside the model. All run as many turns as the first needs to take long enough."""
        programs = [p for p in map(self.ground.program, lowered) if p is not None]
        if len(programs) < len(lowered):
            return None
        ready = [self._ready(p) for p in programs]
        if ready[0] is _never:
            return None
        turns = min(max(round(TARGET / max(ready[0](1), 1e-9)), 1), MOST_TURNS)
        if turns > 1:  # a call costs more than a short kernel
            turns = min(max(round(TARGET / max(ready[0](turns) / turns, 1e-9)), 1), MOST_TURNS)
        return [partial(_turn, run, turns) for run in ready]

    def _ready(self, program: Program) -> Callable[[int], float]:
        """What runs ``program`` so many turns, bound and with its weights packed."""
        try:
            found = self.bench.ready(program, self.ground)
            found(1)
        except (DeviceMemoryError, UnsupportedError):  # it takes more than this GPU has
            return _never
        return found


def _never(turns: int) -> float:
    """The seconds of a candidate that cannot run here."""
    return math.inf


# --- what a kernel computes --------------------------------------------------------------------------------


def kernel_key(lowered: Lowered, asked: Questions, lasting: Collection[str], sizes: Sizes) -> str:
    """What tells the kernel apart from those that take other times: the code and the numbers that it runs with by
    default, which of its memory lasts, and what is asked. Names do not count."""
    numbers: dict[str, int] = {}

    def text(arg: Arg) -> str:
        if isinstance(arg, Block):
            return f"({' '.join(map(text, arg.args))})"
        if isinstance(arg, BoxMap):
            return f"{text(arg.at)} {list(map(sizes, arg.sizes))} {arg.box} {arg.window and arg.window.step}"
        if isinstance(arg, Pointer):
            number = numbers.setdefault(arg.buffer, len(numbers))
            return f"{'lasting' if arg.buffer in lasting else 'memory'} {number} {sizes(arg.offset)}"
        return str(sizes(arg))

    calls = [f"{c.kernel} {sizes(c.tasks)} {text(Block(c.args))}" for c in lowered.calls]
    return cache.digest(*calls, *(f"{question} {names}" for question, names in asked.items()))


def tuned_lowering(lower: Lower, tuning: Tuning) -> Lower:
    """``lower`` with the answers that ``tuning`` has found."""
    answers, sizes = tuning.answers, Sizes(dict(tuning.sizes))

    def tuned(item: KernelSpec | Bundle, lasting: Collection[str] = ()) -> Lowered:
        lowered, asked = answered({}, partial(lower, item, lasting))
        found = answers.get(kernel_key(lowered, asked, lasting, sizes)) if asked else None
        return answered(found, partial(lower, item, lasting))[0] if found else lowered

    return tuned


# --- a program ---------------------------------------------------------------------------------------------


def tune(graph: Graph, identity: str, options: Options, backend: Compiling, values: Mapping[str, int]) -> Tuning:
    """The choices for the program of ``graph`` at these values of its dims, from the cache or measured now.
    ``identity`` is what ``graph`` and ``options`` are known by."""
    start = time.perf_counter()
    store, place = cache.default(), backend.bench_name
    sizes = tuple(sorted(values.items()))
    key = f"{identity} at {sizes} on {place}"
    known = store.load_tuned(key, f"of {graph.name}")
    if known is not None:
        return Tuning(sizes, place, known, time.perf_counter() - start)
    open_kernels, buffers, lasting = _questions(graph, options, backend, Sizes(values))
    found, measured = [], 0
    with Progress(f"tuning {graph.name}", len(open_kernels), unit="kernels") as progress:
        for kernel, (names, item) in open_kernels.items():
            kept = store.load_tuned(f"{kernel} on {place}", names[0])
            if kept is None:  # on memory that is given back after each
                search = Search(backend.lower, Ground(buffers, Sizes(values), lasting), backend.bench())
                kept = (Tuned(kernel, names, search.findings(item)),)
                store.store_tuned(f"{kernel} on {place}", kept)
                measured += 1
            found.append(replace(kept[0], kernels=names))
            progress.advance(1, {})
    store.store_tuned(key, tuple(found))
    return Tuning(sizes, place, tuple(found), time.perf_counter() - start, measured)


def _questions(
    graph: Graph, options: Options, backend: Compiling, sizes: Sizes
) -> tuple[dict[str, tuple[tuple[str, ...], KernelSpec | Bundle]], dict, Collection[str]]:
    """The kernels that ask something, by key: the names of all that are alike, and one of them; the buffers that they
    touch, and which of these last."""
    from passes.pipeline import compile_graph

    found: dict[str, tuple[tuple[str, ...], KernelSpec | Bundle]] = {}
    plan: list[Schedule] = []
    kept: set[str] = set()

    def observe(name: str, stage: object) -> None:
        if isinstance(stage, Schedule):
            plan.append(stage)

    def lower(item: KernelSpec | Bundle, lasting: Collection[str]) -> Lowered:
        kept.update(lasting)
        lowered, asked = answered({}, partial(backend.lower, item, lasting))
        if asked:
            key = kernel_key(lowered, asked, lasting, sizes)
            names = found[key][0] if key in found else ()
            found[key] = tuple(dict.fromkeys((*names, item.name))), item
        return lowered

    compile_graph(graph, backend.target(options), lower, options, observe)
    return found, {b.name: b for b in plan[-1].buffers}, kept


class ProgramBench:
    """Candidates as programs of ``backend``; ``clock`` gives the seconds of a call of an executor on inputs."""

    def __init__(self, backend: Compiling, clock: Callable[..., float]):
        self.backend, self.clock = backend, clock

    def load(self, kernels: Collection[Kernel]) -> None:
        with contextlib.suppress(UnsupportedError):  # from one that takes more than this GPU has; all are compiled
            self.backend.load(kernels)

    def ready(self, program: Program, ground: Ground) -> Callable[[int], float]:
        executor, _ = self.backend.executor(program, ground.cells(program))
        return lambda turns: self.clock(executor, {TURNS: np.zeros(turns, np.uint8)})
