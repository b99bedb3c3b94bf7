"""A program bound to sizes: every buffer has a place, every argument a number, every step its barrier flag.

Made once for each combination of input shapes. What changes from call to call (the caller's arrays, an arena that
has grown) is written into the argument blocks at remembered slots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from engine import dims, dtypes
from engine.buffers import Buffer
from engine.dims import Size
from engine.errors import VerifyError
from engine.memory import place, round_up
from engine.program import ERROR, Arg, Block, Call, Pointer, Program
from engine.state import address, aligned_empty
from runtime.cpu.barriers import Range, Step, meetings
from runtime.cpu.driver import ARGUMENTS, BARRIER, FIELDS, FLAGS, FUNCTION, GUARD, OWNER, TASKS, new_table

Slots = list[tuple[int, int]]
"""Positions in the argument words, each with the byte offset to add to a buffer's address."""


class Sizes:
    """The program's sizes as numbers."""

    def __init__(self, values: Mapping[str, int]):
        self.values = dict(values)
        self._known: dict[Size, int] = {}

    def __call__(self, size: Size) -> int:
        if isinstance(size, int):
            return size
        found = self._known.get(size)
        if found is None:
            found = self._known[size] = dims.evaluate(size, self.values)
        return found


@dataclass(frozen=True)
class Plan:
    """Bytes of every buffer and, for the temps, where in the arena each starts."""

    nbytes: dict[str, int]
    offsets: dict[str, int]
    arena: int


def plan(program: Program, sizes: Sizes) -> Plan:
    """The memory that ``program`` takes at these sizes. A temp that ``main`` never touches lives throughout, one
    that is an output as it is to the end."""
    nbytes = {b.name: sizes(b.size) * b.dtype.itemsize for b in program.buffers}
    end = len(program.main)
    returned = {port.buffer for port in program.outputs}
    lifetimes = {}
    for buffer in program.buffers:
        if buffer.kind == "temp":
            first, last = program.lifetimes.get(buffer.name, (0, end))
            lifetimes[buffer.name] = first, end if buffer.name in returned else last
    offsets, arena = place(lifetimes, nbytes)
    return Plan(nbytes, offsets, arena)


@dataclass
class Table:
    """Steps that the driver can walk: rows of FIELDS words, and the position of each row's call in the program."""

    rows: np.ndarray
    calls: list[int] = field(default_factory=list)
    parallel: bool = False

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
        self.output_shapes = [tuple(map(sizes, p.shape)) for p in program.outputs]
        self.arrays: dict[str, np.ndarray] = {}
        for buffer in program.buffers:
            if buffer.kind in ("state", "const", "packed"):
                self.arrays[buffer.name] = fixed(buffer, self.plan.nbytes[buffer.name])
        self._functions = functions
        self._threads = threads
        self._addresses = {name: address(array) for name, array in self.arrays.items()} | {ERROR: error_address}
        self._arena_slots: Slots = []
        self.port_slots: dict[str, Slots] = {b.name: [] for b in program.buffers if b.kind in ("input", "output")}

        words: list[int] = []
        inner: list[int] = []  # words that hold a position in the block, to become addresses
        starts = [[self._encode(call.args, words, inner) for call in calls] for calls in self._parts(program)]
        guards = [[self._guard(call, words, inner) for call in calls] for calls in self._parts(program)]
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
        self.prepare, self.main = (
            self._table(calls, [base + 8 * s for s in at], [0 if g is None else base + 8 * g for g in guard])
            for calls, at, guard in zip(self._parts(program), starts, guards, strict=True)
        )

    @staticmethod
    def _parts(program: Program) -> tuple[tuple[Call, ...], ...]:
        return program.prepare, program.main

    def move_arena(self, to: int) -> None:
        """Point the temps into the arena at address ``to``."""
        if to != self.arena_address:
            self._block[self._arena_at] = self._arena_offsets + to
            self.arena_address = to

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
                value = self.sizes(arg)
            words.append(value)
        return start

    def _guard(self, call: Call, words: list[int], inner: list[int]) -> int | None:
        """Where the address of the call's guard is kept, if it has one."""
        return None if call.guard is None else self._encode((call.guard,), words, inner)

    def _pointer(self, pointer: Pointer, slot: int) -> int:
        offset = self.sizes(pointer.offset)
        name = pointer.buffer
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

    def _table(self, calls: Sequence[Call], arguments: Sequence[int], guards: Sequence[int]) -> Table:
        kept = [i for i, call in enumerate(calls) if self.sizes(call.tasks) > 0]
        rows = new_table(len(kept))
        rows[:, FUNCTION] = [self._function(calls[i]) for i in kept]
        rows[:, ARGUMENTS] = [arguments[i] for i in kept]
        rows[:, GUARD] = [guards[i] for i in kept]
        rows[:, TASKS] = [self.sizes(calls[i].tasks) for i in kept]
        met = meetings([self._step(calls[i]) for i in kept], self._threads)
        rows[:, FLAGS] = [flags for flags, _ in met]
        rows[:, OWNER] = [owner for _, owner in met]
        assert rows.shape[1] == FIELDS
        return Table(rows, kept, parallel=bool(kept) and int(rows[:, TASKS].max()) > 1)

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
        if name in self.plan.offsets:
            start = self.plan.offsets[name]
            return 0, start, start + round_up(nbytes)
        # Memory outside the arena goes by the address, which tells two names of one array; a port has none yet.
        start = self._addresses.get(name, 0)
        memory = 1 if start else 2 + list(self.port_slots).index(name)
        return memory, start, start + nbytes


def _mentions_error(args: Sequence[Arg]) -> bool:
    return any(
        _mentions_error(a.args) if isinstance(a, Block) else isinstance(a, Pointer) and a.buffer == ERROR for a in args
    )
