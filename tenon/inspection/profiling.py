"""Profiling an executable: calls by the timed driver, and what becomes of what it wrote down."""

from __future__ import annotations

import atexit
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import TenonError, UnsupportedError
from engine.state import Cell
from tenon import executable as executables
from tenon.inspection.costs import step_costs
from tenon.inspection.profile import Machine, Profile, Step

if TYPE_CHECKING:
    from runtime.timeline import Timeline
    from tenon.executable import Executable

_SECONDS = 1.0
_FEWEST, _MOST = 5, 200
"""How long a profile takes, and how many calls that may be, where the user does not say."""

Call = tuple[float, "Timeline"]
"""The seconds of a call as seen from outside, and what ran in it."""


def profile(executable: Executable, args: Sequence[Any], kwargs: Mapping[str, Any], repeats: int | None) -> Profile:
    """See Executable.profile."""
    if repeats is not None and repeats < 1:
        raise TenonError(f"repeats is {repeats!r}; the number of calls, at least 1, was expected")
    driver = _timed_driver(executable)
    executor: Any = executable.executor
    calls: list[Call] = []
    with unchanged(executable.cells):
        executable(*args, **kwargs)  # what is made at the first call only
        with executor.logged(driver, executable.by_name(args, kwargs)) as log:
            start = time.perf_counter()
            executable(*args, **kwargs)
            log.take()
            if repeats is None:
                repeats = min(max(int(_SECONDS / (time.perf_counter() - start)), _FEWEST), _MOST)
            for _ in range(repeats):
                start = time.perf_counter()
                executable(*args, **kwargs)
                calls.append((time.perf_counter() - start, log.take()))
    return summed_up(executable, calls, log.sizes, log.threads)


def _timed_driver(executable: Executable) -> Any:
    """The code of the timed driver. Raises UnsupportedError where ``executable`` does not run by the native one."""
    if not is_native(executable):
        device = getattr(executable.executor, "device", None)
        how = "in Python (TENON_JIT=0)" if device is None else "in the simulator, and a GPU's profile needs a GPU"
        raise UnsupportedError(f"{executable.name} runs {how}: its times would say nothing of the program's speed")
    if hasattr(executable.executor, "device"):
        return None  # a GPU times itself
    from runtime.cache import default
    from runtime.cpu.loading import timed_driver

    return timed_driver(default())


def is_native(executable: Executable) -> bool:
    """Whether it is machine code that runs, and can be timed: not the reference, nor kernels as Python."""
    executor = executable.executor
    return hasattr(executor, "logged") and getattr(executor, "is_timed", True)


class Recording:
    """Profiles the calls of an executable as they come, save the very first, until ``most`` are known for some sizes of
    its dims. :meth:`profile` is then that of the sizes which took longest."""

    def __init__(self, executable: Executable, most: int = _MOST):
        self.executable = executable
        self._most = most
        self._driver = _timed_driver(executable)
        self._calls: dict[tuple[tuple[str, int], ...], list[Call]] = {}
        self._threads = 1
        self._first = True
        self._before = executable._run  # which may tune the program, and put another executor in its place
        executable._run = self._run

    def _run(self, inputs: Any, out: Any = None) -> Any:
        if self._first:
            self._first = False
            results = self._before(inputs, out)
            self.executable._run = self._run
            return results
        executor: Any = self.executable.executor
        with executor.logged(self._driver, inputs) as log:
            start = time.perf_counter()
            results = executor.run(inputs, out)
            calls = self._calls.setdefault(tuple(log.sizes.items()), [])
            calls.append((time.perf_counter() - start, log.take()))
        self._threads = log.threads
        if len(calls) >= self._most:
            self.executable._run = executor.run
        return results

    def profile(self) -> Profile | None:
        """What was recorded, or None where the program was called once at most."""
        if not self._calls:
            return None
        sizes, calls = max(self._calls.items(), key=lambda item: sum(seconds for seconds, _ in item[1]))
        return summed_up(self.executable, calls, dict(sizes), self._threads)

    def text(self, found: Profile | None) -> str:
        """The tables of :meth:`profile`, and of what building the program took."""
        name = self.executable.name
        head = f"{name}: called once at most, which says little of its speed" if found is None else str(found)
        return f"{head}\n\n{name} was built in {self.executable.report.seconds:.2f} s\n\n{self.executable.report.times}"


@contextmanager
def recorded() -> Iterator[list[Recording]]:
    """The recordings of all programs that are compiled inside."""
    found: list[Recording] = []

    def watch(executable: Executable) -> None:
        if is_native(executable):
            found.append(Recording(executable))

    executables.on_created.append(watch)
    try:
        yield found
    finally:
        executables.on_created.remove(watch)


_recordings: list[Recording] = []


def print_at_exit(executable: Executable) -> None:
    """Record the calls of ``executable``, and print their profile to stderr when the process ends."""
    if not is_native(executable):
        return
    if not _recordings:
        atexit.register(_print_all)
    _recordings.append(Recording(executable))


def _print_all() -> None:
    for recording in _recordings:
        print(f"\n{recording.text(recording.profile())}", file=sys.stderr)


@contextmanager
def unchanged(cells: Mapping[str, Cell]) -> Iterator[None]:
    """What happens meanwhile leaves no trace in the state."""
    kept = {name: cell.array.copy() for name, cell in cells.items()}
    try:
        yield
    finally:
        for name, cell in cells.items():
            cell.array[...] = kept[name]
            cell.version += 1


def summed_up(executable: Executable, calls: Sequence[Call], sizes: Mapping[str, int], threads: int) -> Profile:
    """The profile of calls of ``executable`` with the dims of these ``sizes``."""
    costs = step_costs(executable, sizes)
    calls = sorted(calls, key=lambda call: call[0])
    middle = calls[len(calls) // 4 : max(len(calls) - len(calls) // 4, 1)]
    wall, busy, runs = np.zeros(len(costs)), np.zeros(len(costs)), np.zeros((threads, len(costs)), np.int64)
    inside = 0.0
    for _, timeline in middle:
        wall += running(timeline, len(costs))
        busy += np.bincount(timeline.step, timeline.end - timeline.start, len(costs))
        inside += np.ptp([*timeline.start, *timeline.end]) if len(timeline.step) else 0.0
        np.add.at(runs, (timeline.thread, timeline.step), 1)
    count = len(middle)
    turns = runs.max(axis=0) // count
    device = getattr(executable.executor, "device", None)
    machine = measured(threads) if device is None else measured_gpu(device)
    seconds = sum(outside for outside, _ in middle) / count
    steps = [
        Step(c.name, w / count, b / w if w else 0.0, c.flops * r, c.bytes * r, r, machine, c.kernel, c.nodes)
        for c, w, b, r in zip(costs, wall.tolist(), busy.tolist(), turns.tolist(), strict=True)
    ]
    barriers = (inside - float(wall.sum())) / count
    return Profile(
        executable.name, len(calls), dict(sizes), machine, seconds, tuple(steps), barriers,
        seconds - inside / count, calls[len(calls) // 2][1], executable.report,
    )  # fmt: skip


_measured: dict[int, list[Machine]] = {}
_MEASUREMENTS = 2


def measured(threads: int) -> Machine:
    """This machine's ceilings for that many threads: the best of what the first few profiles of this process measured,
    a fraction of a second each. What else runs can only lower them."""
    from runtime import ceilings

    known = _measured.setdefault(threads, [])
    if len(known) < _MEASUREMENTS:
        known.append(Machine(threads, ceilings.peak_flops(threads), ceilings.copy_bandwidth(threads)))
    return Machine(threads, max(m.flops for m in known), max(m.bandwidth for m in known))


_gpus: dict[str, Machine] = {}


def measured_gpu(device: Any) -> Machine:
    """The ceilings of a GPU: its copies, measured once in a process, and multiply-adds by the data sheet's formula."""
    from runtime.cuda.ceilings import copy_bandwidth, peak_flops

    target = device.properties.target
    if target not in _gpus:
        _gpus[target] = Machine(1, peak_flops(device), copy_bandwidth(device))
    return _gpus[target]


def running(timeline: Timeline, steps: int) -> np.ndarray:
    """The seconds in which each of ``steps`` steps ran on any thread; a moment in which several did is shared."""
    edges = np.unique(np.concatenate([timeline.start, timeline.end]))
    lengths = np.diff(edges)
    found = []
    for thread in np.unique(timeline.thread):
        own = timeline.thread == thread
        start, end, step = timeline.start[own], timeline.end[own], timeline.step[own]
        latest = np.searchsorted(start, edges[:-1], "right") - 1
        runs = (latest >= 0) & (edges[:-1] < end[latest])
        found.append((runs, step[latest]))
    threads = sum((runs.astype(np.int64) for runs, _ in found), np.zeros(len(lengths), np.int64))
    result = np.zeros(steps)
    for runs, step in found:
        result += np.bincount(step[runs], lengths[runs] / threads[runs], steps)
    return result
