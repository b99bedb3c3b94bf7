"""Running a kernel's blocks: threads as greenlets, in an order that a number decides."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass

import numpy as np
from greenlet import getcurrent, greenlet

from engine.errors import TenonError
from runtime.checked_memory import CheckedMemory
from runtime.cuda.simulator.clocks import Clocks
from runtime.cuda.simulator.conflicts import Conflicts
from runtime.cuda.simulator.mbarriers import MBarrier
from runtime.cuda.simulator.races import GlobalRaces
from runtime.cuda.simulator.shared import SharedMemory
from runtime.cuda.simulator.thread import LANES, Barrier, Thread, Together, Until, run_as
from runtime.cuda.simulator.warpgroup import Warpgroup


class DivergenceError(TenonError, RuntimeError):
    """Threads that should meet, and wait in different places, or for one that has returned."""


@dataclass
class Order:
    """Which of several runs first. 0: the first; 1: the last; any other number seeds a random choice."""

    number: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.number)

    def of(self, count: int) -> list[int]:
        """All of ``0..count``, in this order."""
        found = list(range(count))
        if self.number == 1:
            found.reverse()
        elif self.number:
            self._random.shuffle(found)
        return found


def launch(
    function: Callable[..., None],
    blocks: int,
    threads: int,
    shared: int,
    args: Sequence[int],
    memory: CheckedMemory,
    order: int = 0,
    conflicts: Conflicts | None = None,
    cooperative: bool = False,
) -> None:
    """Run ``blocks`` blocks of ``threads`` threads, one block after the other, or where they are ``cooperative`` each
    as far as it gets without the others. ``args`` are numbers and addresses in ``memory``; ``conflicts`` counts those
    of shared memory. Raises BoundsError, RaceError or DivergenceError where the kernel does what a GPU leaves
    undefined.
    """
    if threads <= 0 or threads % LANES:
        raise DivergenceError(f"a block of {threads} threads; expected a multiple of {LANES}")
    which = Order(order)
    races = GlobalRaces(cooperative)
    with np.errstate(all="ignore"):
        running = []
        for number in which.of(blocks):
            block = Block(number, blocks, threads, shared, memory, which, conflicts, races)
            if cooperative:
                running.append(block)
                continue
            block.run(function, args)
            if conflicts:
                conflicts.close()
        _run_together(running, function, args)
        if conflicts:
            conflicts.close()


def _run_together(blocks: Sequence[Block], function: Callable[..., None], args: Sequence[int]) -> None:
    """Run blocks in turns: one that waits for what others write gives way to them."""
    hub = getcurrent()
    running = {block: greenlet(lambda block=block: block.run(function, args), hub) for block in blocks}
    for block, run in running.items():
        block.give_way = hub.switch
        run.gr_context = copy_context()
    try:
        while running:
            able = [block for block in running if block.is_able]
            if not able:
                raise DivergenceError(f"blocks wait for one another: {'; '.join(b.stuck() for b in running)}")
            for block in able:
                running[block].switch()
                if running[block].dead:
                    del running[block]
    finally:
        for run in running.values():
            run.throw()


class Block:
    """One block: its threads, its shared memory, and what has happened before what."""

    def __init__(
        self, number: int, blocks: int, threads: int, shared: int, memory: CheckedMemory, order: Order,
        conflicts: Conflicts | None, races: GlobalRaces,
    ):  # fmt: skip
        self.number = number
        self.blocks = blocks
        self.size = threads
        self.memory = memory
        self.races = races
        self.clocks = Clocks(threads, number)
        self.shared = SharedMemory(shared, threads, self.clocks, conflicts)
        self.threads = [Thread(self, i) for i in range(threads)]
        self.mbarriers: dict[int, MBarrier] = {}
        self.flying: list[Callable[[], None]] = []  # copies that land when nobody can go on
        self.warpgroups: dict[int, Warpgroup] = {}
        self._order = order
        self.give_way: Callable[[], object] | None = None  # to other blocks, where several run

    @property
    def is_able(self) -> bool:
        """Whether any thread can go on, as far as other blocks are concerned."""
        waits = [t.wait for t in self.threads if isinstance(t.wait, Until)]
        return not waits or any(w.ready() for w in waits)

    def stuck(self) -> str:
        return f"block {self.number}: {_places([t for t in self.threads if t.wait is not None])}"

    def run(self, function: Callable[..., None], args: Sequence[int]) -> None:
        hub = getcurrent()
        running = {t.number: greenlet(lambda: function(*args), hub) for t in self.threads}
        for t in self.threads:
            running[t.number].gr_context = copy_context()  # in which NumPy does not warn
            t.pause = hub.switch
        warps = [self.threads[i : i + LANES] for i in range(0, self.size, LANES)]
        alive = [len(w) for w in warps]

        def advance(warp: int) -> bool:
            """Run the warp's threads until each waits; whether any has run."""
            moved = False
            for i in self._order.of(len(warps[warp])):
                thread = warps[warp][i]
                if thread.number not in running:
                    continue
                if isinstance(thread.wait, Until) and thread.wait.ready():
                    thread.wait = None
                if thread.wait is None:
                    moved = True
                    run_as(thread)
                    running[thread.number].switch()
                    if running[thread.number].dead:
                        del running[thread.number]
                        alive[warp] -= 1
            return moved

        try:
            while running:
                moved = False
                for warp in self._order.of(len(warps)):
                    while alive[warp] and (advance(warp) or self._together(warp, running)):
                        moved = True
                if moved or not running or self._meet():
                    continue
                if self.flying:
                    self.flying.pop(self._order.of(len(self.flying))[0])()
                elif self.give_way and any(isinstance(t.wait, Until) for t in self.threads):
                    self.give_way()
                else:
                    raise DivergenceError(self._stuck(running))
        finally:
            for g in running.values():
                g.throw()

    def _together(self, warp: int, running: Mapping[int, greenlet]) -> bool:
        """Execute what all lanes of a warp, or of several, wait to execute together, if they do."""
        own = self.threads[warp * LANES : (warp + 1) * LANES]
        waits = {t.wait for t in own if isinstance(t.wait, Together)}
        if not waits or any(isinstance(t.wait, Until) for t in own):
            return False
        wait = waits.pop()
        first = warp - warp % wait.warps
        lanes = self.threads[first * LANES : (first + wait.warps) * LANES]
        if waits or any(t.wait != wait for t in own):
            raise DivergenceError(f"a warp's threads part before an instruction that all execute: {_places(own)}")
        if any(t.number not in running for t in lanes) or len(lanes) < LANES * wait.warps:
            raise DivergenceError(f"threads have returned before an instruction that all execute: {_places(lanes)}")
        if any(t.wait != wait for t in lanes):
            return False
        run_as(lanes[0])
        results = wait.function(lanes, [t.given for t in lanes], *wait.constants)
        for i, t in enumerate(lanes):
            t.wait, t.given = None, None if results is None else results[i]
        return True

    def _meet(self) -> bool:
        """Let those go on whose barrier is complete; whether there were any."""
        waiting: dict[int, list[tuple[Thread, Barrier]]] = {}
        for t in self.threads:
            if isinstance(t.wait, Barrier):
                waiting.setdefault(t.wait.number, []).append((t, t.wait))
        for found in waiting.values():
            threads = [t for t, _ in found]
            counts = {place.among for _, place in found}
            if len(counts) > 1 or (counts == {0} and len({place.line for _, place in found}) > 1):
                raise DivergenceError(f"threads wait for one another in different places: {_places(threads)}")
            if len(threads) == (counts.pop() or self.size):
                for t in threads:
                    t.wait = None
                self.clocks.meet([t.number for t in threads])
                return True
        return False

    def _stuck(self, running: dict[int, greenlet]) -> str:
        left = [t for t in self.threads if t.number in running]
        gone = self.size - len(left)
        returned = f"{gone} threads have returned, and " if gone else ""
        return f"{returned}no thread can go on: {_places(left)}"


def _places(threads: Sequence[Thread]) -> str:
    """Which threads wait where."""
    found: dict[str, list[int]] = {}
    for t in threads:
        match t.wait:
            case None:
                place = "have returned"
            case Until(what=what, line=line):
                place = f"wait for {what} in line {line}"
            case Barrier(line=line):
                place = f"wait at the barrier in line {line}"
            case Together(function=function, line=line):
                place = f"are at {function.__name__.strip('_')} in line {line}"
        found.setdefault(place, []).append(t.number)
    return "; ".join(f"threads {_numbers(n)} {place}" for place, n in sorted(found.items()))


def _numbers(numbers: list[int]) -> str:
    if len(numbers) > 1 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers[:8])) + (" ..." if len(numbers) > 8 else "")
