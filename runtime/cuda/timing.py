"""When each step of a call ran on a GPU: a graph of the step with an event before and behind every kernel.

In the graph nothing waits for the host between kernels, so the times are those of the kernels that a call replays.
Where the package nvtx is installed, calls are ranges that NVIDIA's tools show.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from runtime.cuda.binding import Launch, Step
from runtime.cuda.device import Device, Event, Graph
from runtime.timeline import Timeline


class EventLog:
    """The latest call of a program: ``sizes`` are those of its dims. A GPU counts as one thread."""

    threads = 1

    def __init__(self, device: Device, name: str, sizes: dict[str, int]):
        self._device, self._name = device, name
        self.sizes = sizes
        self._captured: dict[int, tuple[Graph, list[Event], list[int]]] = {}
        self._latest: tuple[list[Event], list[int]] = ([], [])

    def run(self, place: int, steps: Sequence[Step], finish: Any) -> None:
        """Ask for the steps of a call whose inputs are at ``place``, then for what ``finish`` asks for."""
        stream = self._device.compute
        if place not in self._captured:
            timed = [i for i, step in enumerate(steps) if isinstance(step, Launch) and step.call >= 0]
            calls = [step.call for step in steps if isinstance(step, Launch) and step.call >= 0]
            events = [self._device.event(timed=True) for _ in range(2 * len(timed))]
            around = dict(zip(timed, zip(events[::2], events[1::2], strict=True), strict=True))

            def work() -> None:
                for i, step in enumerate(steps):
                    if i in around:
                        stream.record(around[i][0])
                    step.issue(stream)
                    if i in around:
                        stream.record(around[i][1])
                finish()

            self._captured[place] = stream.capture(work), events, calls
        graph, events, calls = self._captured[place]
        self._latest = events, calls
        with _named(self._name):
            stream.replay(graph)

    def take(self) -> Timeline:
        """The latest call, which is over."""
        events, calls = self._latest
        at = np.array([event.seconds_since(events[0]) for event in events])
        return Timeline(np.array(calls, np.int64), np.zeros(len(calls), np.int64), at[::2], at[1::2],
                        float(at.max(initial=0.0)))  # fmt: skip


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """A range in the recordings of NVIDIA's tools, where nvtx is installed."""
    try:
        nvtx = importlib.import_module("nvtx")
    except ImportError:
        yield
        return
    with nvtx.annotate(name, domain="tenon"):
        yield


def seconds(device: Device, graph: Graph, repeats: int) -> list[float]:
    """What each of so many replays of ``graph`` takes."""
    stream = device.compute
    events = [device.event(timed=True) for _ in range(repeats + 1)]
    stream.record(events[0])
    for event in events[1:]:
        stream.replay(graph)
        stream.record(event)
    stream.synchronize()
    return [b.seconds_since(a) for a, b in zip(events, events[1:], strict=False)]
