"""Runs a Program: binds it to the sizes of its inputs, keeps its memory, and enters the native driver.

Between the first kernel of a call and the last no Python runs, and the returned arrays are all that a call
allocates; ``counters`` shows both.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine import binding as ports
from engine import dtypes
from engine.buffers import Buffer
from engine.errors import IndexRangeError
from engine.program import Program
from engine.state import Cell, address, aligned_empty, elsewhere
from runtime.cpu.binding import Binding
from runtime.cpu.driver import Driver, driver_kernel
from runtime.cpu.extents import Memory, extent
from runtime.cpu.objects import Code
from runtime.cpu.shortcut import shortcut
from runtime.cpu.step_log import StepLog, tick
from runtime.cpu.threads import thread_count
from runtime.packed import PackedState
from runtime.programs import check_failure, check_out, check_out_count, constant_array, memory_by_class, program_cells
from runtime.results import ResultMemory

_BINDINGS_KEPT = 32
_ARENA_SHIFT = 1024
"""Where in a page the arena begins, apart from inputs and results: see :mod:`engine.memory`."""

Inputs = Mapping[str, Any] | Sequence[Any]


@dataclass
class Counters:
    """What an executor has done so far. ``steps`` and ``barriers`` are counted by the native code; ``allocated``
    are the arrays made by calls: what they returned and inputs that had to be copied."""

    calls: int = 0
    steps: int = 0
    barriers: int = 0
    bindings: int = 0
    allocated: int = 0
    arena_bytes: int = 0


class Executor:
    """``program`` over the state in ``cells`` (by port name), with ``code`` for each kernel's key and the driver's.

    One call at a time; others wait. Raises StateError where ``cells`` does not fit the program.
    """

    def __init__(self, program: Program, cells: Mapping[str, Cell], code: Mapping[str, Code]):
        self.program = program
        self._code = dict(code)  # keeps the machine code in memory
        self._functions = {key: found.address for key, found in code.items()}
        self._lock = threading.RLock()
        self._counters = Counters()
        self._cells = program_cells(program, cells)
        self._constants = {b.name: constant_array(program, b) for b in program.buffers if b.kind == "const"}
        self._packed = PackedState(program, self._cells, _packed_array)
        shapes = [self._cells[port.buffer].shape for port in program.state]
        self._state_dims = ports.solve(program.state, shapes, "state")
        updates = set(program.updates)
        self._updated = [self._cells[p.buffer] for p in program.state if p.name in updates]
        self._written = Memory(cell.array for cell in self._updated)
        self._cell_extents = [extent(cell.array) for cell in self._cells.values()]
        self._seen_elsewhere = elsewhere.writes
        self._threads = threads = thread_count()
        scratch = max((call.scratch for call in program.calls), default=0)
        self._driver = Driver(self._functions[driver_kernel().key], threads, scratch)
        self._arena = aligned_empty((0,), dtypes.u8)
        self._arena_address = address(self._arena)
        self._bindings: OrderedDict[tuple, Binding] = OrderedDict()
        self._latest: Binding | None = None
        self._direct = _direct_outputs(program)
        self._all_direct = all(self._direct)
        self._result_memory = ResultMemory()

    @property
    def counters(self) -> Counters:
        """A snapshot."""
        self._counters.steps = self._driver.steps
        self._counters.barriers = self._driver.barriers
        self._counters.arena_bytes = self._arena.nbytes
        return Counters(**vars(self._counters))

    def memory(self, values: Mapping[str, int]) -> dict[str, int]:
        """Bytes by class at these dims, before anything runs: one entry a kind of buffer (``temp`` is the arena)
        and ``scratch``. Raises ShapeError where a dim is missing."""
        return memory_by_class(self.program, self._state_dims | dict(values)) | {"scratch": self._driver.scratch_bytes}

    # --- a call --------------------------------------------------------------------------------------------

    def run(self, inputs: Inputs, out: Sequence[np.ndarray] | None = None) -> tuple[np.ndarray, ...]:
        """Run the program on ``inputs`` (by name, or in the ports' order) and return its outputs: fresh arrays, or
        ``out`` filled.

        Raises ShapeError and DTypeError for arrays that do not fit, TenonError for a read-only ``out``,
        IndexRangeError for a failed run-time check; state is then as it was before.
        """
        with self._lock:
            if elsewhere.writes != self._seen_elsewhere:
                self._fetch_state()
            counters, binding = self._counters, self._latest
            results: Sequence[np.ndarray] | None = None
            if out is None and binding is not None and binding.shortcut is not None:
                results = binding.shortcut(inputs)
            if binding is None or results is None:
                arrays = self._arrays(inputs)
                binding = self._binding(arrays)
                results = self._results(binding, arrays, out)
                self._place(binding, arrays, results)
            else:
                counters.allocated += len(results)
            if self._packed.calls:
                self._packed.refresh(binding, self._prepare)
            counters.calls += 1
            failed = 0
            try:
                failed = self._driver.run(binding.main)
            finally:  # Python raises a Ctrl-C once the native code has returned: state has changed by then
                if not failed:
                    for cell in self._updated:
                        cell.version += 1
            if failed:
                raise self._failure()
            if self._packed.calls and self._updated:
                self._packed.refreshed_by_main(binding)
            if not self._all_direct:
                self._copy_indirect(binding, arrays, results)
            if out is None:
                return tuple(results)
            for given, array in zip(out, results, strict=True):
                if given is not array:
                    given[...] = array
            return tuple(out)

    def _fetch_state(self) -> None:
        """Have the newest state in the host's memory, where a program on a GPU has written some."""
        self._seen_elsewhere = elsewhere.writes
        for cell in self._cells.values():
            cell.array  # noqa: B018

    @contextmanager
    def logged(self, driver: Code, inputs: Inputs) -> Iterator[StepLog]:
        """Until it closes, this thread's calls on ``inputs``, or others of their shapes, run by the timed ``driver``;
        the log holds the latest one. Other threads wait."""
        with self._lock:
            log = StepLog(self._binding(self._arrays(inputs)), self._threads, tick(driver.address))
            self._driver.log_into(driver.address, log.address, log.stride)
            try:
                yield log
            finally:
                self._driver.log_into()

    def _arrays(self, inputs: Inputs) -> list[np.ndarray]:
        """The inputs in the ports' order, fit for kernels: themselves where they are, else copies."""
        arrays = ports.arrange(self.program.inputs, inputs)
        if self._updated:
            arrays = [array.copy() if self._written.holds(*extent(array)) else array for array in arrays]
        given = inputs.values() if isinstance(inputs, Mapping) else inputs
        known = set(map(id, given))
        for array in arrays:
            self._counters.allocated += id(array) not in known
        return arrays

    def _binding(self, arrays: Sequence[np.ndarray]) -> Binding:
        key = tuple([array.shape for array in arrays])
        binding = self._latest = self._bindings.get(key)
        if binding is not None:
            self._bindings.move_to_end(key)
            if binding.arena_address != self._arena_address:
                binding.move_arena(self._arena_address)
            if binding.shortcut is None and self._all_direct:
                wanted = [port.dtype.numpy for port in self.program.inputs]
                binding.shortcut = shortcut(binding, key, wanted, self._written, self._result_memory)
            return binding
        program = self.program
        values = ports.solve(program.inputs, key, known=self._state_dims)
        ports.check_assumptions(program.assumptions, values)
        error = self._driver.error_address
        binding = Binding(program, values, self._fixed, self._functions, error, self._threads)
        if binding.plan.arena > self._arena.nbytes:
            self._arena = aligned_empty((binding.plan.arena,), dtypes.u8, _ARENA_SHIFT)
            self._arena_address = address(self._arena)
        binding.move_arena(self._arena_address)
        self._counters.bindings += 1
        self._bindings[key] = binding
        self._latest = binding
        if len(self._bindings) > _BINDINGS_KEPT:
            self._bindings.popitem(last=False)
        return binding

    def _fixed(self, buffer: Buffer, nbytes: int) -> np.ndarray:
        """The memory of a buffer that outlives a binding."""
        if buffer.kind == "state":
            return self._cells[buffer.name].array
        if buffer.kind == "const":
            return self._constants[buffer.name]
        return self._packed.memory(buffer, nbytes)

    def _results(
        self, binding: Binding, arrays: Sequence[np.ndarray], out: Sequence[np.ndarray] | None
    ) -> list[np.ndarray]:
        outputs, forms = self.program.outputs, binding.outputs
        if out is None:
            self._counters.allocated += len(outputs)
            empty = self._result_memory.empty
            return [empty(*form) for form in forms]
        check_out_count(outputs, out)
        results: list[np.ndarray] = []
        for port, (shape, _, _), array in zip(outputs, forms, out, strict=True):
            check_out(port, shape, array)
            flags = array.flags
            if not flags.c_contiguous or not flags.aligned or self._meets(array, (*arrays, *results)):
                array = aligned_empty(shape, port.dtype)
                self._counters.allocated += 1
            results.append(array)
        return results

    def _meets(self, array: np.ndarray, others: Iterable[np.ndarray]) -> bool:
        """Whether a contiguous array shares memory with one of ``others``, which are contiguous too, or with state."""
        first, end = extent(array)
        spans = itertools.chain(map(extent, others), self._cell_extents)
        return any(first < other_end and other_first < end for other_first, other_end in spans)

    def _place(self, binding: Binding, arrays: Sequence[np.ndarray], results: Sequence[np.ndarray]) -> None:
        """Write this call's addresses into the argument blocks."""
        words = binding.words
        for slots, array in zip(binding.input_slots, arrays, strict=True):
            base = address(array)
            for slot, offset in slots:
                words[slot] = base + offset
        for slots, array, direct in zip(binding.output_slots, results, self._direct, strict=True):
            if direct:
                base = address(array)
                for slot, offset in slots:
                    words[slot] = base + offset

    def _copy_indirect(self, binding: Binding, arrays: Sequence[np.ndarray], results: Sequence[np.ndarray]) -> None:
        """Fill the outputs that no kernel writes: those that are an input, state or another output as it is."""
        if all(self._direct):
            return
        known = {port.buffer: array for port, array in zip(self.program.inputs, arrays, strict=True)}
        for port, array, direct in zip(self.program.outputs, results, self._direct, strict=True):
            if direct:
                known[port.buffer] = array
        for port, array, direct in zip(self.program.outputs, results, self._direct, strict=True):
            if direct:
                continue
            if port.buffer in binding.plan.offsets:
                start = binding.plan.offsets[port.buffer]
                source = self._arena[start : start + array.nbytes].view(port.dtype.numpy)
            else:
                source = known[port.buffer] if port.buffer in known else binding.arrays[port.buffer]
            array[...] = source.reshape(array.shape)

    def _prepare(self, binding: Binding, due: set[int]) -> None:
        """Run these of the prepare calls."""
        self._driver.run(binding.prepare if len(due) == len(self.program.prepare) else binding.prepare.only(due))

    def _failure(self) -> IndexRangeError:
        return check_failure(self.program, *self._driver.take_error())


def _packed_array(buffer: Buffer, nbytes: int) -> np.ndarray:
    return aligned_empty((nbytes // buffer.dtype.itemsize,), buffer.dtype)


def _direct_outputs(program: Program) -> list[bool]:
    """Which outputs kernels write straight into the caller's array: the first of each output buffer."""
    kinds = {b.name: b.kind for b in program.buffers}
    seen: set[str] = set()
    direct = []
    for port in program.outputs:
        direct.append(kinds[port.buffer] == "output" and port.buffer not in seen)
        seen.add(port.buffer)
    return direct
