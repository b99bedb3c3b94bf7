"""Runs a Program on a GPU: one piece of memory, one graph for each combination of input shapes, replayed at a call.

A call copies its inputs into pinned memory, from where a stream of its own brings them to the GPU; replays the graph;
and copies the results out of the pinned memory to which the graph's last node has brought them. State stays on the GPU.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine import binding as ports
from engine.buffers import Buffer
from engine.errors import DeviceMemoryError, TenonError
from engine.memory import Plan, Sizes, plan
from engine.program import Program
from engine.state import Cell, elsewhere
from runtime.cuda.binding import Binding, launches
from runtime.cuda.device import Allocation, Device, Function, Graph
from runtime.cuda.layout import ERROR_BYTES, Layout
from runtime.cuda.tables import Tables
from runtime.cuda.timing import EventLog, seconds
from runtime.packed import PackedState
from runtime.programs import check_failure, check_out, check_out_count, constant_array, memory_by_class, program_cells
from runtime.results import ResultMemory

_BINDINGS_KEPT = 32

Inputs = Mapping[str, Any] | Sequence[Any]
Shapes = tuple[tuple[int, ...], ...]


@dataclass
class Counters:
    """What an executor has done so far: ``launches`` of kernels, most of them in ``replays`` of ``graphs`` that were
    captured; ``early`` counts the inputs that were brought to the GPU while the step before ran, ``allocated`` the
    arrays that calls have returned."""

    calls: int = 0
    launches: int = 0
    replays: int = 0
    graphs: int = 0
    bindings: int = 0
    early: int = 0
    allocated: int = 0
    arena_bytes: int = 0


class _Place:
    """Where inputs are put: pinned memory of the host's and, of the same size, memory of the GPU. There are two, so
    that one can be filled while a step reads the other."""

    def __init__(self, device: Device):
        self.pinned = np.empty(0, np.uint8)
        self.memory: Allocation | None = None
        self.arrived = device.event()

    def grow(self, device: Device, nbytes: int) -> None:
        self.memory = device.allocate(nbytes)
        self.pinned = device.pinned(nbytes)

    @property
    def address(self) -> int:
        return self.memory.address if self.memory else 0


@dataclass
class _Bound:
    """A binding with its graphs, one for each place of the inputs."""

    binding: Binding
    graphs: dict[_Place, Graph] = field(default_factory=dict)
    launches: int = 0

    @property
    def plan(self) -> Plan:
        return self.binding.plan


@dataclass
class _Staged:
    """Inputs on their way to the GPU. ``given`` is what they came as."""

    given: object
    bound: _Bound
    place: _Place


class Executor:
    """``program`` over the state in ``cells`` (by port name) on a ``device``, with a function for each kernel's key;
    ``joined`` joins two guards, where the program has loops under guards.

    One call at a time on a device; others wait. Raises StateError where ``cells`` does not fit the program,
    DeviceMemoryError where its state does not fit the GPU.
    """

    def __init__(
        self, program: Program, cells: Mapping[str, Cell], device: Device, functions: Mapping[str, Function],
        joined: Function | None = None,
    ):  # fmt: skip
        self.program = program
        self.device = device
        self._functions = functions
        self._joined = joined
        self._counters = Counters()
        self._cells = program_cells(program, cells)
        shapes = [self._cells[port.buffer].shape for port in program.state]
        self._state_dims = ports.solve(program.state, shapes, "state")
        self._all_cells = list(self._cells.values())
        self._seen: list[int] = []
        self._results = ResultMemory()
        self._bound: OrderedDict[Shapes, _Bound] = OrderedDict()
        self._memory: Allocation | None = None
        self._fetched = np.empty(0, np.uint8)
        self._staged: _Staged | None = None
        self._log: EventLog | None = None
        with device.lock:
            device.activate()
            self._places = [_Place(device), _Place(device)]  # the one in use is at the end
            self._require(self._lasting(), "its state and constants")
            self._states = {buffer: device.states.of(cell) for buffer, cell in self._cells.items()}
            self._packed: PackedState[Allocation] = PackedState(program, self._cells, self._packed_memory)
            self._constants = {b.name: self._constant(b) for b in program.buffers if b.kind == "const"}
            device.compute.synchronize()
        self._all_states = [self._states[buffer] for buffer in self._cells]
        updates = set(program.updates)
        self._updated = [(self._cells[p.buffer], self._states[p.buffer]) for p in program.state if p.name in updates]

    @property
    def counters(self) -> Counters:
        """A snapshot."""
        self._counters.arena_bytes = max((b.plan.arena for b in self._bound.values()), default=0)
        return Counters(**vars(self._counters))

    def memory(self, values: Mapping[str, int]) -> dict[str, int]:
        """Bytes by class at these dims, before anything runs; ``temp`` is the arena. Raises ShapeError where a dim is
        missing."""
        return memory_by_class(self.program, self._state_dims | dict(values)) | {"scratch": 0}

    # --- a call --------------------------------------------------------------------------------------------

    def run(
        self,
        inputs: Inputs,
        out: Sequence[np.ndarray] | None = None,
        meanwhile: Callable[[], Inputs | None] | None = None,
    ) -> tuple[np.ndarray, ...]:
        """Run the program on ``inputs`` (by name, or in the ports' order) and return its outputs: fresh arrays, or
        ``out`` filled. ``meanwhile`` is called while the GPU works; the inputs that it gives, for the next call, are
        then brought there.

        Raises ShapeError and DTypeError for arrays that do not fit, TenonError for a read-only ``out``,
        DeviceMemoryError where they take too much memory, IndexRangeError for a failed run-time check; state is then as
        it was before.
        """
        self._fetch_from_others()
        with self.device.lock:
            self.device.activate()
            staged = self._take(inputs)
            binding = staged.bound.binding
            if out is not None:
                check_out_count(self.program.outputs, out)
                for port, (shape, _, _), array in zip(self.program.outputs, binding.outputs, out, strict=True):
                    check_out(port, shape, array)
            self._refresh_state()
            if self._packed.calls:
                self._packed.refresh(staged.bound, self._prepare)
            compute = self.device.compute
            compute.wait(staged.place.arrived)
            if self._log is None:
                compute.replay(self._graph(staged.bound, staged.place))
            else:
                self._logged(self._log, staged)
            self._note_updates(staged.bound)
            if meanwhile is not None:
                self._stage_early(meanwhile())
            compute.synchronize()
            code, value = self._fetched[:ERROR_BYTES].view(np.int64).tolist()
            if self.program.checks and code:
                raise check_failure(self.program, code, value)
            return self._copied_out(binding, out)

    def _note_updates(self, bound: _Bound) -> None:
        """What the graph that runs now will have done. Where a check fails, state stays as it was, and what is noted
        here costs copies that were not needed."""
        counters = self._counters
        counters.calls += 1
        counters.replays += 1
        counters.launches += bound.launches
        if not self._updated:
            return
        for cell, state in self._updated:
            cell.written_in(state)
            state.version = cell.version
        elsewhere.writes += 1
        self._seen = [cell.version for cell in self._all_cells]
        if self._packed.calls:
            self._packed.refreshed_by_main(bound)

    def _copied_out(self, binding: Binding, out: Sequence[np.ndarray] | None) -> tuple[np.ndarray, ...]:
        """The results, out of the memory that the next call writes to."""
        results = []
        for i, (at, (shape, dtype, nbytes)) in enumerate(zip(binding.layout.outputs, binding.outputs, strict=True)):
            if out is None:
                self._counters.allocated += 1
                array = self._results.empty(shape, dtype, nbytes)
            else:
                array = out[i]
            array[...] = self._fetched[at : at + nbytes].view(dtype.numpy).reshape(shape)
            results.append(array)
        return tuple(results)

    # --- state ---------------------------------------------------------------------------------------------

    def _fetch_from_others(self) -> None:
        """Have in the host's memory what programs on other GPUs have written. Whoever waits for another GPU does not
        hold the lock of this one."""
        if [cell.version for cell in self._all_cells] != self._seen:
            for cell, state in zip(self._all_cells, self._all_states, strict=True):
                if state.version != cell.version:
                    cell.array  # noqa: B018

    def _refresh_state(self) -> None:
        """Bring to the GPU what was written in the host's memory."""
        versions = [cell.version for cell in self._all_cells]
        if versions != self._seen:
            for cell, state in zip(self._all_cells, self._all_states, strict=True):
                state.refresh(cell)
            self._seen = versions

    def _prepare(self, bound: _Bound, due: set[int]) -> None:
        steps = bound.binding.prepare(due)
        for step in steps:
            step.issue(self.device.compute)
        self._counters.launches += launches(steps)

    # --- inputs --------------------------------------------------------------------------------------------

    def _take(self, inputs: Inputs) -> _Staged:
        """The inputs of this call: those that were brought to the GPU early, or these now."""
        staged, self._staged = self._staged, None
        if staged is not None and staged.given is inputs:
            self._counters.early += 1
            return staged
        arrays = ports.arrange(self.program.inputs, inputs)
        return self._stage(inputs, arrays, self._binding(arrays, may_grow=True))

    def _stage_early(self, inputs: Inputs | None) -> None:
        """Bring inputs to the GPU that works now. What is wrong with them is told when they are run."""
        if inputs is None:
            return
        try:
            arrays = ports.arrange(self.program.inputs, inputs)
            bound = self._binding(arrays, may_grow=False)
        except TenonError:
            return
        if bound is not None:
            self._places.reverse()  # the step that runs reads the other
            self._staged = self._stage(inputs, arrays, bound)

    def _stage(self, given: object, arrays: Sequence[np.ndarray], bound: _Bound | None) -> _Staged:
        assert bound is not None
        layout, place = bound.binding.layout, self._places[-1]
        place.arrived.wait()  # what was brought there before has perhaps never been run
        for at, array in zip(layout.inputs, arrays, strict=True):
            place.pinned[at : at + array.nbytes] = array.reshape(-1).view(np.uint8)
        copies = self.device.copies
        if layout.staged:
            copies.upload(place.address, place.pinned[: layout.staged])
        copies.record(place.arrived)
        return _Staged(given, bound, place)

    # --- bindings ------------------------------------------------------------------------------------------

    def _binding(self, arrays: Sequence[np.ndarray], may_grow: bool) -> _Bound | None:
        """The binding for these shapes. One that takes more memory than there is makes room for itself, unless it may
        not, because a step runs."""
        key = tuple([array.shape for array in arrays])
        found = self._bound.get(key)
        if found is not None:
            self._bound.move_to_end(key)
            return found
        values = ports.solve(self.program.inputs, key, known=self._state_dims)
        ports.check_assumptions(self.program.assumptions, values)
        sizes = Sizes(values)
        planned = plan(self.program, sizes)
        layout = Layout(self.program, planned)
        small = self._memory is None or self._memory.nbytes < layout.nbytes
        small = small or self._fetched.nbytes < layout.fetched or self._places[0].pinned.nbytes < layout.staged
        if small:
            if not may_grow:
                return None
            self._grow(layout)
        assert self._memory is not None
        binding = Binding(
            self.program, sizes, planned, layout, self._memory.address, self._fixed, self._functions, self._joined,
            Tables(self.device),
        )  # fmt: skip
        found = self._bound[key] = _Bound(binding)
        self._counters.bindings += 1
        if len(self._bound) > _BINDINGS_KEPT:
            self._bound.popitem(last=False)
        return found

    def _grow(self, layout: Layout) -> None:
        """Take memory that ``layout`` fits in. What was captured over the memory before is captured again if needed."""
        for stream in (self.device.compute, self.device.copies):
            stream.synchronize()
        self._bound.clear()
        nbytes = max(layout.nbytes, self._memory.nbytes if self._memory else 0)
        staged = max(layout.staged, self._places[0].pinned.nbytes)
        self._memory = None
        for place in self._places:
            place.memory = None
        self._require(nbytes + len(self._places) * staged, "inputs, results and what is computed on the way")
        self._memory = self.device.allocate(nbytes)
        self._fetched = self.device.pinned(max(layout.fetched, self._fetched.nbytes))
        for place in self._places:
            place.grow(self.device, staged)

    def _graph(self, bound: _Bound, place: _Place) -> Graph:
        """The step whose inputs are in that place, captured at first use."""
        if place not in bound.graphs:
            binding = bound.binding
            steps = binding.main(place.address)
            compute = self.device.compute

            def work() -> None:
                for step in steps:
                    step.issue(compute)
                self._fetch(binding)

            bound.graphs[place] = compute.capture(work)
            bound.launches = launches(steps)
            self._counters.graphs += 1
        return bound.graphs[place]

    def _fetch(self, binding: Binding) -> None:
        """Ask for the error word and the results."""
        self.device.compute.download(self._fetched[: binding.layout.fetched], binding.base)

    # --- times ---------------------------------------------------------------------------------------------

    @property
    def is_timed(self) -> bool:
        """Whether its times say something: the simulator's do not."""
        return not self.device.properties.simulated

    @contextmanager
    def logged(self, driver: object, inputs: Inputs) -> Iterator[EventLog]:
        """Until it closes, calls on inputs of these shapes are timed, step by step; the log holds the latest one. Other
        threads wait. There is no ``driver``."""
        with self.device.lock:
            self.device.activate()
            bound = self._binding(ports.arrange(self.program.inputs, inputs), may_grow=True)
            assert bound is not None
            self._log = EventLog(self.device, self.program.name, dict(bound.binding.sizes.values))
            try:
                yield self._log
            finally:
                self._log = None

    def _logged(self, log: EventLog, staged: _Staged) -> None:
        binding = staged.bound.binding
        log.run(staged.place.address, binding.main(staged.place.address), lambda: self._fetch(binding))

    def seconds(self, inputs: Inputs, repeats: int) -> list[float]:
        """What the GPU takes for each of so many calls on ``inputs``, which have been brought there: for benchmarks.
        The calls are made, and update state."""
        with self.device.lock:
            self.run(inputs)
            staged = self._take(inputs)
            self.device.compute.wait(staged.place.arrived)
            found = seconds(self.device, self._graph(staged.bound, staged.place), repeats)
            self._note_updates(staged.bound)
            return found

    # --- memory --------------------------------------------------------------------------------------------

    def _fixed(self, buffer: Buffer, nbytes: int) -> int:
        """Where a buffer lies that outlives a binding."""
        if buffer.kind == "state":
            return self._states[buffer.name].memory.address
        if buffer.kind == "const":
            return self._constants[buffer.name].address
        return self._packed.memory(buffer, nbytes).address

    def _packed_memory(self, buffer: Buffer, nbytes: int) -> Allocation:
        return self.device.allocate(nbytes)

    def _constant(self, buffer: Buffer) -> Allocation:
        data = constant_array(self.program, buffer)
        memory = self.device.allocate(data.nbytes)
        self.device.compute.upload(memory.address, data)
        self.device.compute.synchronize()
        return memory

    def _lasting(self) -> int:
        """The bytes of state, constants and packed weights that are not on the GPU yet."""
        known = self.device.states
        state = sum(cell.array.nbytes for cell in set(self._cells.values()) if not known.has(cell))
        return state + sum(len(self.program.constants[b.name]) for b in self.program.buffers if b.kind == "const")

    def _require(self, nbytes: int, what: str) -> None:
        """Raises DeviceMemoryError where ``nbytes`` more are not free."""
        free = self.device.free_bytes()
        if nbytes > free:
            properties = self.device.properties
            raise DeviceMemoryError(
                f"{self.program.name} needs {nbytes:,} bytes on {properties.target} for {what}; {free:,} of "
                f"{properties.memory:,} are free. Smaller batches take less, and memory_limit= in tn.compile trades "
                "time for memory"
            )
