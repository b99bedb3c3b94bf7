"""Where threads must meet between steps: only where one touches bytes that another has written, or will write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.cpu.driver import BARRIER, CHECK

Range = tuple[int, int, int]
"""A memory (any number that names it), first byte and end. Ranges of different memories never overlap."""


@dataclass(frozen=True)
class Step:
    """What matters of a call: the bytes it touches, whether it is one task (and so runs on one thread), whether it
    may set the error word, and whether it must not run once that is set."""

    reads: tuple[Range, ...]
    writes: tuple[Range, ...]
    single: bool
    may_fail: bool = False
    guarded: bool = False


def meetings(steps: Sequence[Step], threads: int) -> list[tuple[int, int]]:
    """Each step's flags and owner for the driver's table.

    A step of one task that depends only on others of one task since the last barrier runs on their thread and
    needs no barrier; independent ones take turns over the threads. No step may fail until every thread has seen that
    none before has: a thread that saw the later failure would leave, and the others would wait for it.
    """
    result: list[tuple[int, int]] = []
    touched: dict[int, list[tuple[int, int, bool, int]]] = {}  # memory: start, end, written, owner (-1: all)
    failing = asked = False
    turn = 0
    for step in steps:
        owners = _conflicts(step, touched)
        flags = 0
        if failing and step.guarded:
            flags = BARRIER | CHECK
        elif owners and not (step.single and len(owners) == 1 and -1 not in owners):
            flags = BARRIER | (CHECK if failing else 0)
        elif asked and step.may_fail:
            flags = BARRIER
        if flags:
            asked = bool(flags & CHECK)
            touched.clear()
            failing = False
            owners = set()
        if not step.single:
            owner = -1
        elif owners:
            owner = owners.pop()
        else:
            owner = turn % threads
            turn += 1
        for ranges, written in ((step.reads, False), (step.writes, True)):
            for memory, start, end in ranges:
                if end > start:
                    touched.setdefault(memory, []).append((start, end, written, owner))
        failing = failing or step.may_fail
        result.append((flags, max(owner, 0)))
    return result


def _conflicts(step: Step, touched: dict[int, list[tuple[int, int, bool, int]]]) -> set[int]:
    owners = set()
    for ranges, writing in ((step.reads, False), (step.writes, True)):
        for memory, start, end in ranges:
            for other_start, other_end, written, owner in touched.get(memory, ()):
                if (writing or written) and start < min(end, other_end) and other_start < end:
                    owners.add(owner)
    return owners
