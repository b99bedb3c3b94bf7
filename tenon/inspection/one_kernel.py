"""Running a kernel of a schedule alone: as compiled, and on NumPy, on the same memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from engine import dims, scheduled
from engine.buffers import Buffer
from engine.dims import Size
from engine.graph import Graph, Node, Value
from engine.loops import body_of
from engine.options import Options
from engine.program import Kernel, Lowered, Port, Program
from engine.records import dataclass
from engine.schedule import Bundle, KernelSpec, Schedule
from engine.scheduled import Memory
from tenon import backends
from tenon.alone import Alone
from tenon.inspection import reproduce
from tenon.inspection.comparing import moved

Arrays = dict[str, np.ndarray]


def schedule_memory(graph: Graph, plan: Schedule, sizes: Mapping[str, int], inputs: Arrays, state: Arrays) -> Memory:
    """The memory on which a schedule of ``graph`` starts."""
    from passes.assemble import constants
    from passes.places import input_buffer, state_buffer

    orders = _orders_of_state(graph)
    given = {input_buffer(n): a for n, a in inputs.items()}
    given |= {state_buffer(n): a.transpose(orders.get(n, range(a.ndim))) for n, a in state.items()}
    given |= {name: node.attrs["value"] for name, node in constants(graph)}
    return Memory(plan.buffers, sizes, {b.name: given[b.name] for b in plan.buffers if b.name in given})


def results_of(graph: Graph, memory: Memory) -> Arrays:
    """What a schedule has left in ``memory``: outputs and new state, named as tn.bisect names them."""
    from passes.places import output_buffer, state_buffer

    orders = _orders_of_state(graph)

    def array(buffer: str, value: Value, order: tuple[int, ...]) -> np.ndarray:
        stored = memory.arrays[buffer].reshape([memory.size(value.shape[axis]) for axis in order])
        return stored.transpose(np.argsort(order)) if order else stored

    outputs = {f"output {i}": array(output_buffer(i), v, _row_major(v)) for i, v in enumerate(graph.outputs)}
    state = {f"state {n}": array(state_buffer(n), v, orders.get(n, _row_major(v))) for n, v in graph.updates.items()}
    return outputs | state


def _orders_of_state(graph: Graph) -> dict[str, tuple[int, ...]]:
    """How the axes of state lie in memory, by name, where they do not lie row-major."""
    return {v.node.attrs["name"]: graph.layouts[v] for v in graph.state if v in graph.layouts}


def _row_major(value: Value) -> tuple[int, ...]:
    return tuple(range(len(value.shape)))


@dataclass(frozen=True)
class Kept:
    """The value that a buffer holds, and the order in which its axes lie there."""

    value: Value
    order: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.value.name

    @property
    def node(self) -> Node:
        return self.value.node

    def position(self, element: int, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The index of an element of the buffer."""
        shape = [dims.evaluate(s, sizes) for s in self.value.shape]
        if not shape or element >= np.prod(shape):
            return (element,) if shape else ()
        there = np.unravel_index(element, [shape[i] for i in self.order])
        return tuple(int(there[self.order.index(i)]) for i in range(len(shape)))


def buffer_values(graph: Graph, prefix: str = "") -> dict[str, Kept]:
    """What is kept in which buffer."""
    from passes.places import output_buffer, state_buffer

    found: dict[str, Kept] = {}
    for node in graph.nodes:
        body = body_of(node)
        if body is not None:
            found |= buffer_values(body, f"{prefix}{node.name}.")
        for v in node.outputs:
            found[prefix + v.name] = Kept(v, graph.layouts.get(v, _row_major(v)))
    if not prefix:
        orders = _orders_of_state(graph)
        found |= {state_buffer(n): Kept(v, orders.get(n, _row_major(v))) for n, v in graph.updates.items()}
        found |= {output_buffer(i): Kept(v, _row_major(v)) for i, v in enumerate(graph.outputs)}
    return found


@dataclass(frozen=True)
class Case:
    """One run of a kernel: what it wrote and ``expected``, flat arrays by buffer, and what NumPy gives where what it
    reads is ``shifted``. ``written`` are the buffers that it writes."""

    program: Program
    before: Arrays
    got: Arrays
    expected: Arrays
    shifted: Arrays
    written: tuple[str, ...]
    target: str = "cpu"

    def of(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.got[name], self.expected[name], self.shifted[name]

    def saved(self) -> reproduce.Saved:
        expected = {f"state {n}": self.expected[n] for n in self.written}
        near = {f"state {n}": self.shifted[n] for n in self.written}
        return reproduce.Saved(self.program, {}, self.before, expected, near, self.target)


def _as_built(made: Program, built: Program) -> dict[str, Kernel]:
    """The kernels of ``built`` in the place of those, by key, that the passes make now. They differ where the program
    is older than the code that makes kernels."""
    kernels = {k.key: k for k in built.kernels}
    found: dict[str, Kernel] = {}
    for part in ("prepare", "main"):
        calls = getattr(made, part), getattr(built, part)
        if [c.label for c in calls[0]] == [c.label for c in calls[1]]:
            for new, old in zip(*calls, strict=True):
                if new.args == old.args:
                    found[new.kernel] = kernels[old.kernel]
    return found


class KernelRunner:
    """Runs the kernels of ``plan``, the schedule of ``graph``, one by one: the code is that of ``built``, where that is
    the program which the passes make of it now, ``made``."""

    def __init__(
        self,
        graph: Graph,
        plan: Schedule,
        made: Program,
        built: Program,
        sizes: Mapping[str, int],
        target: str,
        options: Options,
    ):
        from passes.assemble import lasting_buffers

        self.target = target
        self.lower = backends.compiling(target).lowering(options)
        self.lasting = lasting_buffers(graph, plan)
        self.checks, self.sizes = made.checks, sizes
        self._kernels = _as_built(made, built)
        self._lowered: dict[int, Lowered] = {}

    def run(self, item: KernelSpec | Bundle, memory: Memory) -> Case:
        """Both ways on copies of what the kernel touches in ``memory``, which stays as it is."""
        written = tuple(sorted({memory.place(n)[0] for n in scheduled.writes(item)}))
        read = sorted({memory.place(n)[0] for n in scheduled.reads(item)})
        names = dict.fromkeys((*read, *written))
        before = {n: memory.arrays[n] for n in names}
        expected = {n: a.copy() for n, a in before.items()}
        scheduled.execute(item, memory.over(expected))
        near = moved({n: before[n] for n in read})
        shifted = {n: np.array(near.get(n, a)) for n, a in before.items()}
        scheduled.execute(item, memory.over(shifted))
        program = self._program(item, memory, before)
        got = reproduce.run_saved(reproduce.Saved(program, {}, before, {}, {}, self.target))
        return Case(program, before, {n: got[f"state {n}"] for n in written}, expected, shifted, written, self.target)

    def _program(self, item: KernelSpec | Bundle, memory: Memory, arrays: Arrays) -> Program:
        """The calls of one kernel as a program, to which all memory is state."""
        from passes.assemble import lifetimes

        if id(item) not in self._lowered:
            self._lowered[id(item)] = self._as_built(self.lower(item, self.lasting))
        lowered = self._lowered[id(item)]
        kinds = {n: memory.buffers[n].dtype for n in arrays}
        ports = tuple(Port(n, (a.size,), kinds[n], n) for n, a in arrays.items())
        buffers = [Buffer(n, "state", kinds[n], a.size) for n, a in arrays.items()]
        alone = Alone(self._number, kinds, memory.place)
        buffers += map(alone.buffer, lowered.buffers)
        main = tuple(map(alone.call, lowered.calls))
        updates = tuple(sorted({w for c in main for w in c.writes if w in arrays}))
        return Program(
            item.name, (), (), ports, updates, tuple(buffers), main, kernels=lowered.kernels, checks=self.checks,
            lifetimes=lifetimes(main, buffers),
        )  # fmt: skip

    def _as_built(self, lowered: Lowered) -> Lowered:
        """The same calls with the kernels of the program as it was built."""
        swapped = {k.key: self._kernels.get(k.key, k) for k in lowered.kernels}
        calls = tuple(replace(c, kernel=swapped[c.kernel].key) for c in lowered.calls)
        return Lowered(calls, tuple({k.key: k for k in swapped.values()}.values()), lowered.buffers)

    def _number(self, size: Size) -> int:
        return dims.evaluate(size, self.sizes)
