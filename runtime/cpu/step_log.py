"""When each thread ran which step of a call, as the timed driver writes it down."""

from __future__ import annotations

import time
from functools import cache

import numpy as np

from engine import dtypes
from engine.errors import UnsupportedError
from engine.state import address, aligned_empty
from runtime.cpu.binding import Binding
from runtime.cpu.driver import CONTROL_SLOTS, ENTERED, ENTRY, LEFT, LOG, LOG_HEAD, RECORD_WORDS, RECORDS
from runtime.timeline import Timeline

_MOST_RECORDS = 1 << 22
"""Of a thread: about 100 MB."""
_CALIBRATION = 0.02
"""Seconds between two looks at both clocks, each of which is off by a microsecond at most."""


class StepLog:
    """Memory for the logs of ``threads`` threads that walk the tables of ``binding``. ``sizes`` are those of the dims.

    Raises UnsupportedError where a call runs too many steps to keep.
    """

    def __init__(self, binding: Binding, threads: int, tick: float):
        self._tick = tick
        self.threads = threads
        self.sizes = dict(binding.sizes.values)
        self.calls = np.array(binding.main.calls, np.int64)
        most = max(binding.runs(), binding.prepare.count)
        if most > _MOST_RECORDS:
            raise UnsupportedError(f"a call runs {most:,} steps; a profile keeps {_MOST_RECORDS:,} at most")
        words = -(-(LOG_HEAD + RECORD_WORDS * most) // 8) * 8 + 8  # no line of the cache is two threads'
        self._words = aligned_empty((threads, words), dtypes.i64)
        self.address = address(self._words)
        self.stride = 8 * words
        self._clear()

    def _clear(self) -> None:
        """A thread that stays away from the next call writes nothing."""
        self._words[:, :LOG_HEAD] = 0

    def take(self) -> Timeline:
        """The latest call."""
        words = self._words
        came = words[words[:, ENTERED] != 0]
        zero, left = int(came[:, ENTERED].min()), int(came[:, LEFT].max())
        records = [row[LOG_HEAD : LOG_HEAD + RECORD_WORDS * row[RECORDS]].reshape(-1, RECORD_WORDS) for row in words]
        thread = np.repeat(np.arange(len(records)), [len(r) for r in records])
        row, start, end = np.concatenate(records).T
        self._clear()
        tick = self._tick
        return Timeline(self.calls[row], thread, (start - zero) * tick, (end - zero) * tick, (left - zero) * tick)


@cache
def tick(driver: int) -> float:
    """The seconds of one count of the processor's clock, which the timed driver at address ``driver`` reads."""
    log = np.zeros(LOG_HEAD, np.int64)
    control = np.zeros(CONTROL_SLOTS, np.int64)
    control[LOG] = address(log)
    enter = ENTRY(driver)

    def both() -> tuple[int, int]:
        start = time.perf_counter_ns()
        enter(address(control), 0, 1, 0)  # through no steps
        return int(log[ENTERED]), (start + time.perf_counter_ns()) // 2

    both()
    count, nanoseconds = both()
    time.sleep(_CALIBRATION)
    later, end = both()
    return (end - nanoseconds) * 1e-9 / (later - count)
