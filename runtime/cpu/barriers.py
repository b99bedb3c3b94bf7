"""Where threads must meet between steps: only where one touches bytes that another has written, or will write."""

from __future__ import annotations

from collections.abc import Sequence

from engine.records import dataclass
from runtime.cpu.driver import BARRIER, BEGIN, CHECK, END, LOOPED

Range = tuple[int, int, int]
"""A memory (any number that names it), first byte and end. Ranges of different memories never overlap."""
Touched = dict[int, list[tuple[int, int, int]]]
"""For each memory the bytes touched since the last barrier: first, end, and the thread that did (-1: all of them)."""


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
    read: Touched = {}
    written: Touched = {}
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
                read.clear()
                written.clear()
            result.append((flags | BEGIN, 0))
            continue
        owners = _owners(step.reads, written) | _owners(step.writes, written) | _owners(step.writes, read)
        meet = 0
        if failing and step.guarded:
            meet = BARRIER | CHECK
        elif behind or (owners and not (step.single and len(owners) == 1 and -1 not in owners)):
            meet = BARRIER | (CHECK if failing else 0)
        elif asked and step.may_fail:
            meet = BARRIER
        if meet:
            asked = bool(meet & CHECK)
            read.clear()
            written.clear()
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
        for ranges, touched in ((step.reads, read), (step.writes, written)):
            for memory, start, end in ranges:
                if end > start:
                    touched.setdefault(memory, []).append((start, end, owner))
        failing = failing or step.may_fail
        result.append((flags | meet, max(owner, 0)))
    return result


def _owners(ranges: Sequence[Range], touched: Touched) -> set[int]:
    """Whose steps have touched bytes of ``ranges``."""
    return {
        owner
        for memory, start, end in ranges
        for other_start, other_end, owner in touched.get(memory, ())
        if start < other_end and other_start < end and start < end
    }
