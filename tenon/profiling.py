"""Profiling an executable: calls by the timed driver, and what becomes of what it wrote down."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import TenonError
from engine.state import Cell
from tenon.costs import step_costs
from tenon.profile import Machine, Profile, Step

if TYPE_CHECKING:
    from runtime.cpu.step_log import Timeline
    from tenon.executable import Executable

_SECONDS = 1.0
_FEWEST, _MOST = 5, 200
"""How long a profile takes, and how many calls that may be, where the user does not say."""

Call = tuple[float, "Timeline"]
"""The seconds of a call as seen from outside, and what ran in it."""


def profile(executable: Executable, args: Sequence[Any], kwargs: Mapping[str, Any], repeats: int | None) -> Profile:
    """See Executable.profile."""
    from runtime.cache import default
    from runtime.cpu.loading import timed_driver

    if repeats is not None and repeats < 1:
        raise TenonError(f"repeats is {repeats!r}; the number of calls, at least 1, was expected")
    executable.program  # noqa: B018  (the reference has none)
    executor: Any = executable.executor
    calls: list[Call] = []
    with unchanged(executable.cells):
        executable(*args, **kwargs)  # what is made at the first call only
        with executor.logged(timed_driver(default()), executable.by_name(args, kwargs)) as log:
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
    machine = measured(threads)
    seconds = sum(outside for outside, _ in middle) / count
    steps = [
        Step(c.name, w / count, b / w if w else 0.0, c.flops * r, c.bytes * r, r, machine, c.kernel, c.nodes)
        for c, w, b, r in zip(costs, wall.tolist(), busy.tolist(), turns.tolist(), strict=True)
    ]
    barriers = (inside - float(wall.sum())) / count
    return Profile(
        executable.name, len(calls), dict(sizes), machine, seconds, tuple(steps), barriers,
        seconds - inside / count, calls[len(calls) // 2][1],
    )  # fmt: skip


@cache
def measured(threads: int) -> Machine:
    """This machine's ceilings for that many threads; it takes a fraction of a second, once in a process."""
    from runtime import ceilings

    return Machine(threads, ceilings.peak_flops(threads), ceilings.copy_bandwidth(threads))


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
