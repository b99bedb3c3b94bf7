"""Time engines against one another, each in a process of its own, in interleaved rounds.

A worker process builds its workload and answers with its first results; then, whenever told, it runs steps for some
seconds and answers with their median time. Thread pools of different libraries never share a process.
"""

from __future__ import annotations

import compileall
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

WARMUP = 3
REST = 0.1
"""Seconds before a worker is timed: the threads of the engine before it may spin on for a while, and take its cores."""


@dataclass
class Worker:
    """One engine in its own process, restricted to ``threads`` threads. ``first`` is what it answered first."""

    name: str
    process: subprocess.Popen[str]
    first: dict[str, Any]

    @classmethod
    def start(
        cls, module: str, name: str, threads: int, arguments: list[str], settings: Mapping[str, str] | None = None
    ) -> Worker:
        """Waits for the first answer. ``settings`` are added to the environment. Raises RuntimeError."""
        counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TENON_THREADS"), str(threads))
        process = subprocess.Popen(
            [sys.executable, "-m", module, "--worker", name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | counts | dict(settings or {}),
        )
        worker = cls(name, process, {})
        worker.first = worker._answer()
        return worker

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker {self.name} ended early; its errors are above")
        return json.loads(line)

    def ask(self, question: str) -> dict[str, Any]:
        """What the worker answers to a line. Raises RuntimeError where it ends instead."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{question}\n")
        self.process.stdin.flush()
        return self._answer()

    def run(self, seconds: float) -> float:
        """The median time of one step, in seconds, over as many as take ``seconds``, and at least one."""
        time.sleep(REST)
        return self.ask(f"{seconds}")["seconds"]

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)


def write_bytecode() -> None:
    """Write Python's bytecode of all modules here, as pip does of those that it installs, whatever
    PYTHONDONTWRITEBYTECODE says: it would count as time of the first start, or of every start."""
    root = Path(__file__).parent.parent
    for folder in ("engine", "frontend", "passes", "runtime", "tenon", "benchmarks"):
        compileall.compile_dir(root / folder, quiet=1)


def answer(build: Callable[[], Callable[[], Any]]) -> None:
    """The worker's side: build and warm up, answer with what that took and gave, then time steps as asked.

    The first answer holds ``results``, of the first steps; ``first``, seconds from here to the end of the first step;
    and ``memory``, mebibytes that the process grew by at its peak (on Linux). Call it when all is imported.
    """
    restrict_threads()
    before = _reset_peak()
    start = time.perf_counter()
    step = build()
    results = [step()]
    first = time.perf_counter() - start
    results += [step() for _ in range(WARMUP - 1)]
    flat = [np.asarray(r, np.float64).ravel()[:1000].tolist() for r in results]
    serve(step, {"results": flat, "first": first, "memory": (_memory("VmHWM") - before) / 1024})


def restrict_threads() -> None:
    """Leave this process as many processors as it is to use threads: not every library has a variable for that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(os.environ["OMP_NUM_THREADS"])])


def serve(step: Callable[[], Any], first: dict[str, Any]) -> None:
    """Answer ``first``, then time ``step()`` for as many seconds as each line of standard input asks."""
    print(json.dumps(first), flush=True)
    for line in sys.stdin:
        print(json.dumps({"seconds": median_time(step, float(line))}), flush=True)


def median_time(step: Callable[[], Any], seconds: float) -> float:
    """The median time of a step, in seconds, over as many as take ``seconds``, and at least one."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _reset_peak() -> int:
    """Kibibytes that this process holds; its peak counts from now on. 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return _memory("VmRSS")


def _memory(field: str) -> int:
    if sys.platform != "linux":
        return 0
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))


def check_equal(workers: list[Worker]) -> None:
    """Raises AssertionError, naming the worker, unless all first results are those of the first worker."""
    for w in workers[1:]:
        for number, (got, expected) in enumerate(zip(w.first["results"], workers[0].first["results"], strict=True)):
            scale = max(map(abs, expected))
            message = f"step {number} of {w.name} is not that of {workers[0].name}"
            np.testing.assert_allclose(got, expected, rtol=2e-3, atol=1e-3 * scale, err_msg=message)


def compare(workers: list[Worker], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Median step times of every worker, a round each in turn; the first round of each warms up and is not counted."""
    found: dict[str, list[float]] = {w.name: [] for w in workers}
    for number in range(rounds + 1):
        for w in workers:
            median = w.run(seconds)
            if number:
                found[w.name].append(median)
    return found


def ratios(times: list[float], base: list[float]) -> list[float]:
    """How many times longer than ``base``, round by round."""
    return [t / b for t, b in zip(times, base, strict=True)]


def table(found: dict[str, list[float]], base: str) -> str:
    """Markdown: the median over rounds, and the median of the ratios to ``base`` taken round by round."""
    lines = ["| engine | median (ms) | slower than Tenon, round by round |", "| --- | --- | --- |"]
    for name, times in found.items():
        slower = ratios(times, found[base])
        text = "1" if name == base else f"{statistics.median(slower):.2f}x ({min(slower):.2f} to {max(slower):.2f})"
        lines.append(f"| {name} | {statistics.median(times) * 1e3:.3f} | {text} |")
    return "\n".join(lines)
