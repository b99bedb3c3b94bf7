"""Where threads must meet between steps: only where one touches bytes that another has written, or will write."""

from __future__ import annotations

from collections.abc import Sequence

from engine.records import dataclass
from runtime.cpu.driver import BARRIER, BEGIN, CHECK, END, LOOPED

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


@dataclass(frozen=True)
class Begin:
    """A loop begins. ``alone``: all that it does, nested loops included, is of one task, and cannot fail."""

    alone: bool = False
    may_fail: bool = False


@dataclass(frozen=True)
class End:
    """The innermost loop ends."""


def meetings(steps: Sequence[Step | Begin | End], threads: int) -> list[tuple[int, int]]:
    """Each step's flags and owner for the driver's table.

    A step of one task that depends only on others of one task since the last barrier runs on their thread and
    needs no barrier; independent ones take turns over the threads. No step may fail until every thread has seen that
    none before has: a thread that saw the later failure would leave, and the others would wait for it.

    All threads meet at every turn of a loop, and behind it; a loop that is ``alone`` runs on one thread, and they meet
    before it and behind it only.
    """
    result: list[tuple[int, int]] = []
    touched: dict[int, list[tuple[int, int, bool, int]]] = {}  # memory: start, end, written, owner (-1: all)
    failing = asked = behind = False
    turn = 0
    loops: list[Begin] = []
    for step in steps:
        looped = LOOPED if loops else 0
        alone = bool(loops) and loops[0].alone
        if isinstance(step, End):
            loops.pop()
            behind = not alone or not loops
            result.append((END | looped, 0))
            continue
        flags = looped
        if isinstance(step, Begin):
            loops.append(step)
            if not alone:
                check = failing or step.may_fail
                flags |= BARRIER | (CHECK if check else 0)
                asked, failing, behind = check, False, False
                touched.clear()
            result.append((flags | BEGIN, 0))
            continue
        owners = _conflicts(step, touched)
        meet = 0
        if failing and step.guarded:
            meet = BARRIER | CHECK
        elif behind or (owners and not (step.single and len(owners) == 1 and -1 not in owners)):
            meet = BARRIER | (CHECK if failing else 0)
        elif asked and step.may_fail:
            meet = BARRIER
        if meet:
            asked = bool(meet & CHECK)
            touched.clear()
            failing = behind = False
            owners = set()
        if not step.single:
            owner = -1
        elif alone:
            owner = 0
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
        result.append((flags | meet, max(owner, 0)))
    return result


def _conflicts(step: Step, touched: dict[int, list[tuple[int, int, bool, int]]]) -> set[int]:
    owners = set()
    for ranges, writing in ((step.reads, False), (step.writes, True)):
        for memory, start, end in ranges:
            for other_start, other_end, written, owner in touched.get(memory, ()):
                if (writing or written) and start < min(end, other_end) and other_start < end:
                    owners.add(owner)
    return owners
