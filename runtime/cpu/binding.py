"""A program bound to sizes: every buffer has a place, every argument a number, every step its barrier flag.

Made once for each combination of input shapes. What changes from call to call (the caller's arrays, an arena that
has grown) is written into the argument blocks at remembered slots.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine import dtypes
from engine.buffers import Buffer
from engine.dtypes import DType
from engine.errors import VerifyError
from engine.memory import Sizes, plan, round_up
from engine.program import ERROR, MEETING, Arg, Block, BoxMap, Call, Loop, Pointer, Program
from engine.state import address, aligned_empty
from runtime.cpu.barriers import Begin, End, Range, Step, meetings
from runtime.cpu.driver import ARGUMENTS, BARRIER, FIELDS, FLAGS, FUNCTION, GUARD, OWNER, TASKS, new_meeting, new_table
from runtime.cpu.loop_blocks import LoopBlocks, Span

Slots = list[tuple[int, int]]
"""Positions in the argument words, each with the byte offset to add to a buffer's address."""


@dataclass
class Table:
    """Steps that the driver can walk: rows of FIELDS words, and the position of each row's call in the program, -1 for
    those of loops. ``loops`` is what the driver is told of these."""

    rows: np.ndarray
    calls: list[int] = field(default_factory=list)
    parallel: bool = False
    loops: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.address = address(self.rows)
        self.count = len(self.rows)

    def only(self, wanted: set[int]) -> Table:
        """The steps of some calls, with a barrier before each."""
        kept = [i for i, call in enumerate(self.calls) if call in wanted]
        rows = new_table(len(kept))
        rows[...] = self.rows[kept]
        rows[:, FLAGS] = BARRIER
        return Table(rows, [self.calls[i] for i in kept], self.parallel)


Form = tuple[tuple[int, ...], DType, int]
"""What an output is like: shape, dtype, bytes."""


def _form(shape: tuple[int, ...], dtype: DType) -> Form:
    return shape, dtype, math.prod(shape) * dtype.itemsize


class Binding:
    """``program`` at the sizes ``values``. ``fixed`` gives the arrays of state, const and packed buffers,
    ``functions`` each kernel's address by key."""

    def __init__(
        self,
        program: Program,
        values: Mapping[str, int],
        fixed: Callable[[Buffer, int], np.ndarray],
        functions: Mapping[str, int],
        error_address: int,
        threads: int,
    ):
        self.sizes = sizes = Sizes(values)
        self.plan = plan(program, sizes)
        self.buffers = {b.name: b for b in program.buffers}
        self.outputs = [_form(tuple(map(sizes, p.shape)), p.dtype) for p in program.outputs]
        self.arrays: dict[str, np.ndarray] = {}
        for buffer in program.buffers:
            if buffer.kind in ("state", "const", "packed"):
                self.arrays[buffer.name] = fixed(buffer, self.plan.nbytes[buffer.name])
        self._functions = functions
        self._threads = threads
        self._addresses = {name: address(array) for name, array in self.arrays.items()} | {ERROR: error_address}
        self._arena_slots: Slots = []
        self._meetings: list[np.ndarray] = []
        self.port_slots: dict[str, Slots] = {b.name: [] for b in program.buffers if b.kind in ("input", "output")}

        words: list[int] = []
        inner: list[int] = []  # words that hold a position in the block, to become addresses
        self._levels = {w: n for n, loop in enumerate(program.loops) for w in loop.windows}
        self._patches: list[list[tuple[int, int, bool]]] = [[] for _ in program.loops]
        looped = {i for loop in program.loops for i in range(loop.first, loop.end)}
        parts = self._parts(program)
        starts = [[0] * len(calls) for calls in parts]
        guards: list[list[int | None]] = [[None] * len(calls) for calls in parts]
        loop_guards: list[int | None] = [None] * len(program.loops)

        def encode(part: int, wanted: Iterable[int]) -> None:
            for i in wanted:
                starts[part][i] = self._encode(parts[part][i].args, words, inner)
                guards[part][i] = self._guard(parts[part][i].guard, words, inner)

        encode(0, range(len(program.prepare)))
        encode(1, (i for i in range(len(program.main)) if i not in looped))
        outer = [n for n, loop in enumerate(program.loops) if loop.first not in _inside(program.loops, n)]
        for n in outer:
            loop_guards[n] = self._guard(program.loops[n].guard, words, inner)
        private = len(words)  # what stands behind is copied by every thread
        encode(1, sorted(looped))
        for n in range(len(program.loops)):
            if n not in outer:
                loop_guards[n] = self._guard(program.loops[n].guard, words, inner)
        counters = len(words) - private
        words += [0] * len(program.loops)
        # An output that is no buffer of its own (an input, a state) has nothing to be pointed at.
        self.input_slots = [self.port_slots[p.buffer] for p in program.inputs]
        self.output_slots = [self.port_slots.get(p.buffer, []) for p in program.outputs]
        block = aligned_empty((len(words),), dtypes.i64)
        block[:] = words
        base = address(block)
        block[inner] += base
        self._block = block
        self.words = memoryview(block)  # type: ignore[arg-type]
        self._arena_at = np.array([s for s, _ in self._arena_slots], np.int64)
        self._arena_offsets = np.array([o for _, o in self._arena_slots], np.int64)
        self.arena_address = 0
        self.shortcut: Callable[[Any], tuple[np.ndarray, ...] | None] | None = None  # see shortcut.py
        places = [[base + 8 * s for s in at] for at in starts]
        conditions = [[0 if g is None else base + 8 * g for g in guard] for guard in guards]
        self._loops = LoopBlocks(
            [self.sizes(loop.times) for loop in program.loops],
            [[(slot - private, delta, turns) for slot, delta, turns in patches] for patches in self._patches],
            counters, len(words) - private, base + 8 * private, [i - private for i in inner if i >= private], threads,
        )  # fmt: skip
        spans = [
            Span(loop.first, loop.end, self._loops.addresses[n], 0 if g is None else base + 8 * g, self._loops.times[n])
            for n, (loop, g) in enumerate(zip(program.loops, loop_guards, strict=True))
        ]
        self._spans = spans
        self.prepare = self._table(parts[0], places[0], conditions[0], [])
        self.main = self._table(parts[1], places[1], conditions[1], spans)

    @staticmethod
    def _parts(program: Program) -> tuple[tuple[Call, ...], ...]:
        return program.prepare, program.main

    def move_arena(self, to: int) -> None:
        """Point the temps into the arena at address ``to``."""
        self._block[self._arena_at] = self._arena_offsets + to
        self.arena_address = to

    def turns(self, call: int) -> int:
        """How often a call of ``main`` runs in one step of the program, where no guard keeps it from that."""
        return math.prod(loop.times for loop in self._spans if loop.first <= call < loop.end)

    def runs(self) -> int:
        """How many calls of ``main`` that makes."""
        return sum(self.turns(call) for call in self.main.calls if call >= 0)

    def _encode(self, args: Sequence[Arg], words: list[int], inner: list[int]) -> int:
        """Append an argument block, its nested blocks first, and return where it starts."""
        values: list[tuple[Arg, int]] = []
        for arg in args:
            if isinstance(arg, Block):
                values.append((arg, 8 * self._encode(arg.args, words, inner)))
            else:
                values.append((arg, 0))
        start = len(words)
        for arg, value in values:
            slot = len(words)
            if isinstance(arg, Block):
                inner.append(slot)
            elif isinstance(arg, Pointer):
                value = self._pointer(arg, slot)
            else:
                assert not isinstance(arg, BoxMap)  # these are for GPUs
                value = self.sizes(arg)
            words.append(value)
        return start

    def _guard(self, guard: Pointer | None, words: list[int], inner: list[int]) -> int | None:
        """Where the address of a guard is kept, if there is one."""
        return None if guard is None else self._encode((guard,), words, inner)

    def _pointer(self, pointer: Pointer, slot: int) -> int:
        offset = self.sizes(pointer.offset)
        name = pointer.buffer
        while name in self._levels:
            window = self.buffers[name]
            size = window.dtype.itemsize
            offset += self.sizes(window.start) * size
            delta = self.sizes(window.step) * size
            if delta:
                self._patches[self._levels[name]].append((slot, delta, window.alternates))
            name = window.within
        if name == MEETING:
            self._meetings.append(new_meeting())
            return address(self._meetings[-1])
        fixed = self._addresses.get(name)
        if fixed is not None:
            return fixed + offset
        if name in self.plan.offsets:
            self._arena_slots.append((slot, self.plan.offsets[name] + offset))
        elif name in self.port_slots:
            self.port_slots[name].append((slot, offset))
        else:
            raise VerifyError(f"a kernel's argument points at the buffer {name!r}, which the program does not have")
        return 0

    def _table(
        self, calls: Sequence[Call], arguments: Sequence[int], guards: Sequence[int], loops: Sequence[Span]
    ) -> Table:
        """The rows of the calls that have tasks, and of the loops that turn at all."""
        idle = {i for loop in loops if loop.times == 0 for i in range(loop.first, loop.end)}
        kept = [i for i, call in enumerate(calls) if i not in idle and self.sizes(call.tasks) > 0]
        entries: list[int | Span] = []  # a call, a loop that begins or, the second time, one that ends
        waiting = [loop for loop in loops if any(loop.first <= i < loop.end for i in kept)]
        opened: list[Span] = []
        for i in kept:
            while opened and i >= opened[-1].end:
                entries.append(opened.pop())
            while waiting and waiting[0].first <= i:
                opened.append(waiting.pop(0))
                entries.append(opened[-1])
            entries.append(i)
        entries += reversed(opened)
        rows = new_table(len(entries))
        rows[...] = 0
        begun: dict[Span, int] = {}
        steps: list[Step | Begin | End] = []
        for row, entry in enumerate(entries):
            if isinstance(entry, int):
                call = calls[entry]
                rows[row, FUNCTION], rows[row, ARGUMENTS] = self._function(call), arguments[entry]
                rows[row, GUARD], rows[row, TASKS] = guards[entry], self.sizes(call.tasks)
                steps.append(self._step(call))
            elif entry not in begun:
                begun[entry] = row
                rows[row, GUARD] = entry.guard
                inside = [self._step(calls[i]) for i in kept if entry.first <= i < entry.end]
                may_fail = any(s.may_fail for s in inside)
                steps.append(Begin(all(s.single for s in inside) and not may_fail, may_fail))
            else:
                start = begun[entry]
                begin = steps[start]
                assert isinstance(begin, Begin)
                rows[row, ARGUMENTS] = entry.block
                rows[row, TASKS] = row - start - begin.alone  # back to where the threads meet, or behind it
                rows[start, TASKS] = row - start + 1
                steps.append(End())
        met = meetings(steps, self._threads)
        rows[:, FLAGS] = [flags for flags, _ in met]
        rows[:, OWNER] = [owner for _, owner in met]
        assert rows.shape[1] == FIELDS
        numbers = [e if isinstance(e, int) else -1 for e in entries]
        parallel = any(self.sizes(calls[i].tasks) > 1 for i in kept)
        return Table(rows, numbers, parallel, self._loops.control if begun else ())

    def _function(self, call: Call) -> int:
        found = self._functions.get(call.kernel)
        if found is None:
            raise VerifyError(f"the step {call.label!r} runs the kernel {call.kernel}, which the program does not have")
        return found

    def _step(self, call: Call) -> Step:
        kinds = {self.buffers[w].kind for w in call.writes if w in self.buffers}
        return Step(
            reads=tuple(self._range(n) for n in call.touched if n != ERROR),
            writes=tuple(self._range(n) for n in call.writes if n != ERROR),
            single=self.sizes(call.tasks) == 1,
            may_fail=_mentions_error(call.args),
            guarded=call.indexed or not kinds.isdisjoint(("state", "packed")),
        )

    def _range(self, name: str) -> Range:
        nbytes = self.plan.nbytes[name]
        if name in self._levels:  # at one turn, windows of a loop that are written overlap with no others
            return -1 - list(self._levels).index(name), 0, nbytes
        if name in self.plan.offsets:
            start = self.plan.offsets[name]
            return 0, start, start + round_up(nbytes)
        # Memory outside the arena goes by the address, which tells two names of one array; a port has none yet.
        start = self._addresses.get(name, 0)
        memory = 1 if start else 2 + list(self.port_slots).index(name)
        return memory, start, start + nbytes


def _inside(loops: Sequence[Loop], number: int) -> set[int]:
    """The calls that are in loops around the loop of that number."""
    this = loops[number]
    around = (o for n, o in enumerate(loops) if n < number and o.first <= this.first and this.end <= o.end)
    return {i for o in around for i in range(o.first, o.end)}


def _mentions_error(args: Sequence[Arg]) -> bool:
    return any(
        _mentions_error(a.args) if isinstance(a, Block) else isinstance(a, Pointer) and a.buffer == ERROR for a in args
    )
