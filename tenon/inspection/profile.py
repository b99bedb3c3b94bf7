"""What a profile holds: where the time of a call goes, by step, kernel, op, module and source line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from engine import costs, dims
from engine.graph import Node
from engine.loops import body_of
from engine.records import dataclass
from tenon.text_format import plural, seconds_text, table

if TYPE_CHECKING:
    from runtime.timeline import Timeline
    from tenon.inspection.report import Report

NOWHERE = "(outside of modules)"
NO_LINE = "(no source line)"

_SHORT = 10e-6
"""Seconds below which a step may be too short to come near any ceiling."""

_FAR = 0.25
"""The part of a ceiling below which a short step counts as held up by being started."""


@dataclass(frozen=True)
class Machine:
    """What was measured of this machine, with as many threads as the program has: ``flops`` operations a second of
    multiply-adds in registers, ``bandwidth`` bytes a second of a copy in memory, reads and writes both counted."""

    threads: int
    flops: float
    bandwidth: float


@dataclass(frozen=True)
class Row:
    """A line of a profile: ``seconds`` of each call in which ``name`` was running, on ``threads`` threads on average;
    in that time it did ``flops`` operations and moved ``bytes`` at least. ``runs`` is how often it ran in a call."""

    name: str
    seconds: float
    threads: float
    flops: float
    bytes: float
    runs: int
    machine: Machine

    @property
    def gflops(self) -> float:
        """10^9 operations a second."""
        return self.flops / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def gbs(self) -> float:
        """10^9 bytes a second."""
        return self.bytes / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def ceiling(self) -> float:
        """The seconds in which the machine could do it at best: the longer of its arithmetic and its memory traffic."""
        return max(self.flops / self.machine.flops, self.bytes / self.machine.bandwidth)

    @property
    def fraction(self) -> float:
        """Of the ceiling that was measured. More than 1 where the data lie in a cache, which is faster than memory."""
        return self.ceiling / self.seconds if self.seconds else 0.0

    @property
    def limit(self) -> str:
        """What it waits for: ``arithmetic``, ``memory``, or the ``overhead`` of being started, where it is so short
        that it comes near neither."""
        if self.seconds < _SHORT * self.runs and self.fraction < _FAR:
            return "overhead"
        arithmetic = self.flops / self.machine.flops
        return "arithmetic" if arithmetic >= self.bytes / self.machine.bandwidth else "memory"


@dataclass(frozen=True)
class Step(Row):
    """A step of ``Program.main``: ``kernel`` is the code that it runs, ``nodes`` the graph's that it computes."""

    kernel: str
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Rows:
    """A table of a profile, the longest first. It prints as one; ``seconds`` is that of a whole call."""

    title: str
    rows: tuple[Row, ...]
    seconds: float
    others: tuple[tuple[str, float], ...] = ()

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__

    def text(self, most: int | None = None) -> str:
        """The table with the ``most`` longest rows, what is left out being summed up."""
        shown = self.rows[:most]
        titles = (self.title, "time", "share", "threads", "GFLOP/s", "GB/s", "of ceiling", "limit")
        lines: list[tuple[str, ...]] = [titles]
        lines += [self._line(row) for row in shown]
        if len(shown) < len(self.rows):
            left = self.rows[len(shown) :]
            lines.append(self._plain(f"{len(left)} more", sum(r.seconds for r in left)))
        if self.others:
            lines += [self._plain(name, seconds) for name, seconds in (*self.others, ("total", self.seconds))]
        return table(lines)

    def _line(self, row: Row) -> tuple[str, ...]:
        counted = self.others and row.runs != 1  # a module or a line is none of which there are several
        name = f"{row.name} ({row.runs} x)" if counted else row.name
        numbers = (f"{row.threads:.1f}", _number(row.gflops), _number(row.gbs), f"{row.fraction:.0%}", row.limit)
        return self._plain(name, row.seconds, numbers)

    def _plain(self, name: str, seconds: float, numbers: tuple[str, ...] = ("",) * 5) -> tuple[str, ...]:
        share = seconds / self.seconds if self.seconds else 0.0
        return (name, seconds_text(seconds), f"{share:.1%}", *numbers)


@dataclass(frozen=True)
class Profile:
    """What ``exe.profile`` found. Printing it shows its tables.

    ``seconds`` is the time of a call, as it is measured from outside: that of its ``steps``, which stand in the order
    of ``exe.program.main``; of ``barriers``, when no thread runs a kernel between the first one and the last; and of
    ``overhead``: checking the inputs, allocating the results, starting and stopping the threads. All are means over
    the middle half of ``calls`` calls, those that took neither shortest nor longest, so they add up.

    A step's seconds are those of the clock on the wall in which any thread ran it; where several steps ran side by side
    each is given its part. ``timeline`` is the call in the middle, which :meth:`save_trace` writes.
    ``compile`` tells how the program was built; ``compile.times`` is that by pass and kernel.
    """

    name: str
    calls: int
    sizes: Mapping[str, int]
    machine: Machine
    seconds: float
    steps: tuple[Step, ...]
    barriers: float
    overhead: float
    timeline: Timeline
    compile: Report

    @property
    def by_kernel(self) -> Rows:
        """The steps, those of one name together, and what passes between them."""
        others = (("barriers", self.barriers), ("call overhead", self.overhead))
        return self._rows("kernel", lambda step: [(step.name, 1.0, step.flops)], others)

    @property
    def by_op(self) -> Rows:
        """The time of each op of the graph: that of a fused kernel is divided as its nodes' operations are."""
        return self._rows("op", lambda step: self._divided(step, lambda node: node.op.name))

    @property
    def by_module(self) -> Rows:
        """As ``by_op``, by the innermost module that was being called, its gradient included."""
        return self._rows("module", lambda step: self._divided(step, _module, NOWHERE))

    @property
    def by_line(self) -> Rows:
        """As ``by_op``, by the user's source line."""
        return self._rows("source line", lambda step: self._divided(step, _line, NO_LINE))

    def save_trace(self, path: str | os.PathLike[str]) -> Path:
        """Write the call in the middle as a Chrome trace, one track a thread, for ui.perfetto.dev or chrome://tracing."""
        from tenon.inspection.chrome_trace import write

        return write(self, Path(path))

    def __str__(self) -> str:
        sizes = ", ".join(f"{k}={v}" for k, v in self.sizes.items())
        head = (
            f"{self.name}{f' at {sizes}' if sizes else ''}: {seconds_text(self.seconds)} a call, the middle half of "
            f"{plural(self.calls, 'call')}, {plural(self.machine.threads, 'thread')}\n"
            f"ceilings measured here: {self.machine.flops / 1e9:.0f} GFLOP/s, {self.machine.bandwidth / 1e9:.1f} GB/s"
        )
        parts = (self.by_kernel, self.by_op, self.by_module, self.by_line)
        return "\n\n".join([head, *(part.text(_SHOWN) for part in parts)])

    __repr__ = __str__

    def _divided(self, step: Step, key: Callable[[Node], str], other: str = "") -> list[tuple[str, float, float]]:
        """The keys of a step's nodes, each with its part of the step and the operations that it counts; that of a step
        without nodes is ``other``, or its name."""
        flops = [float(dims.evaluate(costs.flops(n), self.sizes)) if body_of(n) is None else 0.0 for n in step.nodes]
        whole = sum(flops)
        if not step.nodes:
            return [(other or step.name, 1.0, step.flops)]
        if not whole:
            return [(key(n), 1 / len(flops), 0.0) for n in step.nodes]
        return [(key(n), f / whole, step.flops * f / whole) for n, f in zip(step.nodes, flops, strict=True)]

    def _rows(
        self,
        title: str,
        parts: Callable[[Step], Iterable[tuple[str, float, float]]],
        others: tuple[tuple[str, float], ...] = (),
    ) -> Rows:
        sums: dict[str, list[float]] = {}
        runs: dict[str, int] = {}
        for step in self.steps:
            for name in {name for name, _, _ in parts(step)}:
                runs[name] = runs.get(name, 0) + step.runs
            for name, part, flops in parts(step):
                sums.setdefault(name, [0.0] * 4)
                values = (step.seconds * part, step.threads * step.seconds * part, flops, step.bytes * part)
                sums[name] = [a + b for a, b in zip(sums[name], values, strict=True)]
        rows = [
            Row(name, seconds, busy / seconds if seconds else 0.0, flops, moved, runs[name], self.machine)
            for name, (seconds, busy, flops, moved) in sums.items()
        ]
        return Rows(title, tuple(sorted(rows, key=lambda r: -r.seconds)), self.seconds, others)


_SHOWN = 20
"""Rows of each table of a whole profile."""


def _module(node: Node) -> str:
    return (node.location.module if node.location else "") or NOWHERE


def _line(node: Node) -> str:
    return str(node.location) if node.location else NO_LINE


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
