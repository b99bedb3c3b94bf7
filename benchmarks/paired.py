"""Time engines against one another, each in a process of its own, in interleaved rounds.

A worker process builds its workload and answers with its first losses; then, whenever told, it runs a number of steps
and answers with their median time. Thread pools of different libraries never share a process.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass


@dataclass
class Worker:
    """One engine in its own process, restricted to ``threads`` threads."""

    name: str
    process: subprocess.Popen[str]
    first: dict[str, float]

    @classmethod
    def start(cls, module: str, name: str, threads: int, arguments: list[str]) -> Worker:
        counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TENON_THREADS"), str(threads))
        process = subprocess.Popen(
            [sys.executable, "-m", module, "--worker", name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | counts,
        )
        worker = cls(name, process, {})
        worker.first = worker._answer()
        return worker

    def _answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker {self.name} ended early; its errors are above")
        return json.loads(line)

    def run(self, steps: int) -> float:
        """The median time of one step, in seconds, over ``steps`` of them."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return self._answer()["seconds"]

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)


def serve(step, first: dict[str, float]) -> None:  # type: ignore[no-untyped-def]
    """The worker's side: answer ``first``, then time ``step()`` as often as each line of standard input asks."""
    import time

    print(json.dumps(first), flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        print(json.dumps({"seconds": statistics.median(times)}), flush=True)


def compare(workers: list[Worker], rounds: int, steps: int) -> dict[str, list[float]]:
    """Median step times of every worker, a round each in turn; the first round of each warms up and is not counted."""
    found: dict[str, list[float]] = {w.name: [] for w in workers}
    for number in range(rounds + 1):
        for w in workers:
            seconds = w.run(steps)
            if number:
                found[w.name].append(seconds)
    return found


def table(found: dict[str, list[float]], base: str) -> str:
    """Markdown: the median over rounds, and the median of the ratios to ``base`` taken round by round."""
    lines = ["| engine | median (ms) | slower than Tenon, round by round |", "| --- | --- | --- |"]
    for name, times in found.items():
        ratios = [t / b for t, b in zip(times, found[base], strict=True)]
        text = "1" if name == base else f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(f"| {name} | {statistics.median(times) * 1e3:.3f} | {text} |")
    return "\n".join(lines)
