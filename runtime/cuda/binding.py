"""A program bound to sizes on a GPU: the launches of a step in order, loops unrolled, every argument a number.

Made once for each combination of input shapes. The launches are then captured into a graph, so all that a call does is
to replay it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from engine.buffers import Buffer
from engine.errors import VerifyError
from engine.memory import Plan, Sizes
from engine.program import ERROR, Arg, Block, BoxMap, Call, Loop, Pointer, Program
from engine.records import dataclass
from runtime.cuda.device import Function, Stream
from runtime.cuda.layout import ERROR_BYTES, Layout
from runtime.cuda.tables import Tables
from runtime.cuda.tensor_map import TensorMap


@dataclass(frozen=True)
class Launch:
    """A kernel of the program's call number ``call`` (-1: of none)."""

    function: Function
    blocks: int
    args: np.ndarray
    call: int = -1

    def issue(self, stream: Stream) -> None:
        stream.launch(self.function, self.blocks, self.args)


@dataclass(frozen=True)
class Clear:
    """Bytes made zero."""

    address: int
    nbytes: int

    def issue(self, stream: Stream) -> None:
        stream.clear(self.address, self.nbytes)


@dataclass(frozen=True)
class Copy:
    """An output that no kernel writes: it is an input, state or another output as it is."""

    to: int
    source: int
    nbytes: int

    def issue(self, stream: Stream) -> None:
        stream.copy(self.to, self.source, self.nbytes)


Step = Launch | Clear | Copy


class Binding:
    """``program`` at the sizes ``values``, in memory that is laid out from ``base`` on. ``fixed`` gives the addresses
    of state, const and packed buffers, ``functions`` the kernels by key, ``joined`` one that joins two guards,
    ``tables`` where tables of arguments and tensor maps are."""

    def __init__(
        self,
        program: Program,
        sizes: Sizes,
        plan: Plan,
        layout: Layout,
        base: int,
        fixed: Callable[[Buffer, int], int],
        functions: Mapping[str, Function],
        joined: Function | None,
        tables: Tables,
    ):
        self.program, self.sizes, self.plan, self.layout, self.base = program, sizes, plan, layout, base
        self.buffers = {b.name: b for b in program.buffers}
        self.outputs = [(tuple(map(sizes, p.shape)), p.dtype, plan.nbytes[p.buffer]) for p in program.outputs]
        self._functions, self._joined, self._tables = functions, joined, tables
        self._addresses = {ERROR: base} | {name: base + at for name, at in layout.temps.items()}
        for buffer in program.buffers:
            if buffer.kind in ("state", "const", "packed"):
                self._addresses[buffer.name] = fixed(buffer, plan.nbytes[buffer.name])
        self._copied: list[tuple[int, str, int]] = []
        for port, at in zip(program.outputs, layout.outputs, strict=True):
            if self.buffers[port.buffer].kind == "output" and port.buffer not in self._addresses:
                self._addresses[port.buffer] = base + at
            else:
                self._copied.append((base + at, port.buffer, plan.nbytes[port.buffer]))
        self._starts: dict[str, int] = {}  # of the windows of the loops around

    def prepare(self, wanted: set[int]) -> list[Step]:
        """The steps of these of the program's prepare calls."""
        steps: list[Step] = []
        for i, call in enumerate(self.program.prepare):
            if i in wanted:
                self._call(call, -1, 0, 0, steps)
        return steps

    def main(self, start: int) -> list[Step]:
        """The steps of a call whose inputs lie from ``start`` on."""
        for port, at in zip(self.program.inputs, self.layout.inputs, strict=True):
            self._addresses[port.buffer] = start + at
        steps: list[Step] = [Clear(self.base, ERROR_BYTES)] if self.program.checks else []
        self._range(0, len(self.program.main), list(enumerate(self.program.loops)), 0, steps)
        steps += [Copy(to, self._addresses[name], nbytes) for to, name, nbytes in self._copied if nbytes]
        return steps

    def _range(self, first: int, end: int, loops: list[tuple[int, Loop]], guard: int, steps: list[Step]) -> None:
        """The calls from ``first`` to ``end``, all under ``guard``; ``loops`` are those among them, outer first."""
        at = first
        while at < end:
            found = next(((n, loop) for n, loop in loops if loop.first == at), None)
            if found is None:
                call = self.program.main[at]
                self._call(call, at, self._both(guard, call.guard, at, steps), self._error_of(call), steps)
                at += 1
                continue
            number, loop = found
            inner = [(n, o) for n, o in loops if n > number and loop.first <= o.first and o.end <= loop.end]
            under = self._both(guard, loop.guard, len(self.program.main) + number, steps)
            for turn in range(self.sizes(loop.times)):
                for name in loop.windows:
                    window = self.buffers[name]
                    moved = self.sizes(window.step) * (turn % 2 if window.alternates else turn)
                    self._starts[name] = (self.sizes(window.start) + moved) * window.dtype.itemsize
                self._range(loop.first, loop.end, inner, under, steps)
            at = loop.end

    def _both(self, outer: int, guard: Pointer | None, place: int, steps: list[Step]) -> int:
        """The address of a byte that says whether two guards let a step run, the one number ``place`` of those kept
        for that. What ``guard`` points at may not have been written where the outer one says no."""
        inner = 0 if guard is None else self._address(guard)
        if not outer or not inner:
            return outer or inner
        assert self._joined is not None
        byte = self.base + self.layout.guards + place
        steps += [Clear(byte, 1), Launch(self._joined, 1, np.array([outer, 0, inner, byte], np.int64))]
        return byte

    def _error_of(self, call: Call) -> int:
        """The address of the error word for a call that must not run once a check has failed, else 0."""
        lasting = any(self._kind(name) in ("state", "packed") for name in call.writes)
        return self.base if self.program.checks and (call.indexed or lasting) else 0

    def _kind(self, name: str) -> str:
        """The kind of a buffer, or of what it is a window of."""
        while name in self.buffers and self.buffers[name].kind == "window":
            name = self.buffers[name].within
        return self.buffers[name].kind if name in self.buffers else ""

    def _call(self, call: Call, number: int, guard: int, error: int, steps: list[Step]) -> None:
        blocks = self.sizes(call.tasks)
        if blocks > 0:
            args = np.array([guard, error, *map(self._value, call.args)], np.int64)
            steps.append(Launch(self._function(call), blocks, args, number))

    def _function(self, call: Call) -> Function:
        found = self._functions.get(call.kernel)
        if found is None:
            raise VerifyError(f"the step {call.label!r} runs the kernel {call.kernel}, which the program does not have")
        return found

    def _value(self, arg: Arg) -> int:
        if isinstance(arg, Pointer):
            return self._address(arg)
        if isinstance(arg, BoxMap):
            shape, strides = (tuple(map(self.sizes, sizes)) for sizes in (arg.shape, arg.strides))
            window = arg.window and arg.window.at(self.sizes)
            matrix = TensorMap(shape, strides, arg.itemsize, arg.box, window=window)
            return self._tables.map(self._address(arg.at), matrix)
        if isinstance(arg, Block):
            return self._tables.numbers([self._value(a) for a in arg.args])
        return self.sizes(arg)

    def _address(self, pointer: Pointer) -> int:
        name, offset = pointer.buffer, self.sizes(pointer.offset)
        while name in self._starts:
            offset += self._starts[name]
            name = self.buffers[name].within
        if name not in self._addresses:
            raise VerifyError(f"a kernel's argument points at the buffer {name!r}, which the program does not have")
        return self._addresses[name] + offset


def launches(steps: Sequence[Step]) -> int:
    """How many kernels that is."""
    return sum(isinstance(step, Launch) for step in steps)
