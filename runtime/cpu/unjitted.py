"""Programs whose kernels run as the Python that they are written in, for ``TENON_JIT=0``: slow, checked, for debuggers.

The sources are those that would be compiled, the calls and loops those of the program. What is different: every buffer
is an array of its own, filled with NaN or -1 before anything is written to it; every access is checked; one thread runs
all tasks in order; and weights are packed anew at every call.
"""

from __future__ import annotations

import builtins
import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from engine import binding as ports
from engine import dtypes
from engine.errors import ShapeError
from engine.program import ERROR, MEETING, Arg, Block, BoxMap, Call, Loop, Pointer, Program
from engine.state import Cell
from runtime.checked_memory import CheckedMemory
from runtime.cpu.binding import Sizes
from runtime.cpu.executor import Counters, Inputs
from runtime.cpu.unjitted_words import importer
from runtime.programs import check_failure, constant_array, memory_by_class, program_cells
from runtime.sources import load_source

_GARBAGE = 0xFF


class UnjittedExecutor:
    """``program`` over the state in ``cells``, without machine code. Raises StateError where they do not fit."""

    def __init__(self, program: Program, cells: Mapping[str, Cell]):
        self.program = program
        self._lock = threading.RLock()
        self._counters = Counters()
        self._cells = program_cells(program, cells)
        shapes = [self._cells[p.buffer].shape for p in program.state]
        self._state_dims = ports.solve(program.state, shapes, "state")
        self._memory = CheckedMemory()
        words = {**vars(builtins), "__import__": importer(self._memory)}
        self._functions: dict[str, Callable[..., None]] = {
            k.key: getattr(load_source(k, {"__builtins__": words}), k.name) for k in program.kernels
        }

    @property
    def counters(self) -> Counters:
        """A snapshot."""
        return Counters(**vars(self._counters))

    def memory(self, values: Mapping[str, int]) -> dict[str, int]:
        """As :meth:`runtime.cpu.executor.Executor.memory`: what the compiled program would take."""
        scratch = max((c.scratch for c in self.program.calls), default=0)
        return memory_by_class(self.program, self._state_dims | dict(values)) | {"scratch": scratch}

    def run(self, inputs: Inputs, out: Sequence[np.ndarray] | None = None) -> tuple[np.ndarray, ...]:
        """As :meth:`runtime.cpu.executor.Executor.run`; raises BoundsError where a kernel reaches outside a buffer."""
        with self._lock, np.errstate(all="ignore"):
            arrays = ports.arrange(self.program.inputs, inputs)
            shapes = [a.shape for a in arrays]
            values = ports.solve(self.program.inputs, shapes, known=self._state_dims)
            ports.check_assumptions(self.program.assumptions, values)
            self._counters.calls += 1
            self._memory.truncate(0)
            run = _Run(self.program, Sizes(values), self._memory, self._functions, self._cells, arrays)
            run.all(self._counters)
            for name in self.program.updates:
                port = next(p for p in self.program.state if p.name == name)
                self._cells[port.buffer].version += 1
            found = run.outputs()
        if out is None:
            return found
        for given, array in zip(out, found, strict=True):
            if given.shape != array.shape:
                raise ShapeError(f"out has shape {given.shape}; expected {array.shape}")
            given[...] = array
        return tuple(out)


class _Run:
    """One call: its memory, and a walk through the steps."""

    def __init__(
        self, program: Program, sizes: Sizes, memory: CheckedMemory, functions: Mapping[str, Callable[..., None]],
        cells: Mapping[str, Cell], inputs: Sequence[np.ndarray],
    ):  # fmt: skip
        self.program, self.sizes, self.memory, self.functions = program, sizes, memory, functions
        self.buffers = {b.name: b for b in program.buffers}
        self.arrays: dict[str, np.ndarray] = {}
        given = {p.buffer: a for p, a in zip(program.inputs, inputs, strict=True)}
        for b in program.buffers:
            if b.kind == "window":
                continue
            if b.kind == "state":
                self.arrays[b.name] = cells[b.name].array
            elif b.kind == "const":
                self.arrays[b.name] = constant_array(program, b)
            elif b.name in given:
                self.arrays[b.name] = given[b.name].copy()
            else:
                self.arrays[b.name] = _garbage(sizes(b.size), b.dtype)
        self.error = np.zeros(2, np.int64)
        self.addresses = {n: memory.add(n, a) for n, a in self.arrays.items()} | {
            ERROR: memory.add("error", self.error),
            MEETING: 0,
        }
        self.starts: dict[str, int] = {}
        self.fixed = len(memory)

    def outputs(self) -> tuple[np.ndarray, ...]:
        return tuple(
            np.array(self.arrays[p.buffer].reshape(-1)).reshape(tuple(map(self.sizes, p.shape)))
            for p in self.program.outputs
        )

    def all(self, counters: Counters) -> None:
        """Run everything; raises IndexRangeError for a failed check, before anything that follows it."""
        for call in self.program.prepare:
            self._call(call, counters)
        self._range(0, len(self.program.main), list(enumerate(self.program.loops)), counters)

    def _range(self, first: int, end: int, loops: list[tuple[int, Loop]], counters: Counters) -> None:
        """The steps from ``first`` to ``end``, among which are ``loops``, the outer ones first."""
        at = first
        while at < end:
            here = next(((n, loop) for n, loop in loops if loop.first == at), None)
            if here is None:
                self._call(self.program.main[at], counters)
                at += 1
                continue
            number, loop = here
            if loop.guard is None or self._byte(loop.guard):
                inner = [(n, o) for n, o in loops if n > number and loop.first <= o.first and o.end <= loop.end]
                for turn in range(self.sizes(loop.times)):
                    for window in loop.windows:
                        b = self.buffers[window]
                        step = turn % 2 if b.alternates else turn
                        self.starts[window] = (self.sizes(b.start) + self.sizes(b.step) * step) * b.dtype.itemsize
                    self._range(loop.first, loop.end, inner, counters)
            at = loop.end

    def _call(self, call: Call, counters: Counters) -> None:
        tasks = self.sizes(call.tasks)
        if tasks <= 0 or (call.guard is not None and not self._byte(call.guard)):
            return
        self.memory.truncate(self.fixed)
        args = self._block(call.args)
        scratch = self.memory.add(f"scratch of {call.label}", np.full(call.scratch, _GARBAGE, np.uint8))
        self.functions[call.kernel](args, 0, tasks, scratch)
        counters.steps += 1
        if self.error[0]:
            raise check_failure(self.program, int(self.error[0]), int(self.error[1]))

    def _block(self, args: Sequence[Arg]) -> int:
        values = [self._value(a) for a in args]
        return self.memory.add("arguments", np.array(values or [0], np.int64))

    def _value(self, arg: Arg) -> int:
        if isinstance(arg, Block):
            return self._block(arg.args)
        assert not isinstance(arg, BoxMap)  # these are for GPUs
        return self._address(arg) if isinstance(arg, Pointer) else self.sizes(arg)

    def _address(self, pointer: Pointer) -> int:
        name, offset = pointer.buffer, self.sizes(pointer.offset)
        while name in self.starts:
            offset += self.starts[name]
            name = self.buffers[name].within
        return self.addresses[name] + offset

    def _byte(self, pointer: Pointer) -> bool:
        return bool(self.memory.load(self._address(pointer), np.dtype(np.uint8)))


def _garbage(size: int, dtype: dtypes.DType) -> np.ndarray:
    array = np.empty(size, dtype.numpy)
    array.reshape(-1).view(np.uint8)[...] = _GARBAGE if dtype != dtypes.bool_ else 1
    return array
