"""One kernel of a schedule on the CUDA backend: in the simulator beside the reference, and assembled for GPUs.

A :class:`Case` is a spec and what it runs on. ``check`` runs it in the simulator, under several orders of its threads,
on the memory on which ``engine.scheduled`` runs the spec itself. ``compiled`` assembles a kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from engine import dims, dtypes, scheduled
from engine.buffers import Buffer
from engine.dtypes import DType
from engine.program import ERROR, Arg, Block, BoxMap, Kernel, Lowered, Pointer
from engine.schedule import Bundle, KernelSpec
from runtime.checked_memory import CheckedMemory
from runtime.cuda.assembler import SHARED_LIMIT, Cubin, Resources, assemble, disassemble, instructions
from runtime.cuda.hopper import FEW_REGISTERS, MANY_REGISTERS, THREADS
from runtime.cuda.lower import lower
from runtime.cuda.simulator.conflicts import Conflicts
from runtime.cuda.tensor_map import TensorMap
from runtime.cuda.toolkit import to_ptx
from runtime.sources import load_source

ORDERS = (0, 1, 2)
_REGISTERS = 65536  # of a multiprocessor
TOLERANCES = {"f16": 2e-3, "bf16": 1.6e-2, "f32": 2e-6, "f64": 1e-12}
"""By the dtype of what is written, relative to the greatest value: for sums of some ten terms."""


@dataclass(frozen=True)
class Case:
    """A kernel, one C-contiguous array for each buffer that it reads or writes, and the values of its dims."""

    name: str
    spec: KernelSpec | Bundle
    arrays: Mapping[str, np.ndarray]
    values: Mapping[str, int] = field(default_factory=dict)
    tolerance: float | None = None


def check(case: Case, orders: Sequence[int] = ORDERS) -> list[Conflicts]:
    """Run the case under each order of threads and blocks; what it writes, and what it leaves alone, is what the
    reference says. Returns the bank conflicts of the kernels, in the order of ``lower(case.spec).calls``."""
    lowered = lower(case.spec)
    expected = reference(case)
    counted: list[Conflicts] = []
    for order in orders:
        found = {name: a.copy() for name, a in case.arrays.items()}
        counted = simulate(lowered, found, case.values, order)
        compare(case, found, expected)
    return counted


def reference(case: Case) -> dict[str, np.ndarray]:
    """The arrays after the spec has run on NumPy."""
    buffers = [Buffer(name, "temp", dtype_of(a), a.size) for name, a in case.arrays.items()]
    memory = scheduled.Memory(buffers, case.values, case.arrays)
    scheduled.execute(case.spec, memory)
    return {name: memory.arrays[name].reshape(a.shape) for name, a in case.arrays.items()}


def compare(case: Case, found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    written = scheduled.writes(case.spec)
    for name, want in expected.items():
        got, dtype = found[name], dtype_of(want)
        if name not in written or not dtype.is_float:
            np.testing.assert_array_equal(got, want, f"{case.name}: {name}")
            continue
        wide = want.astype(np.float64)
        finite = np.abs(wide[np.isfinite(wide)])
        bound = (case.tolerance or TOLERANCES[dtype.name]) * max(1e-30, float(finite.max(initial=0)))
        np.testing.assert_allclose(got.astype(np.float64), wide, 0, bound, err_msg=f"{case.name}: {name}")


def dtype_of(array: np.ndarray) -> DType:
    name = "bf16" if array.dtype.name == "bfloat16" else None
    return next(d for d in dtypes.ALL if (d.name == name if name or d.name == "bf16" else d.numpy == array.dtype))


def simulate(
    lowered: Lowered,
    arrays: Mapping[str, np.ndarray],
    values: Mapping[str, int] | None = None,
    order: int = 0,
) -> list[Conflicts]:
    """Run the calls in order on ``arrays``. Buffers of the lowering are made here, filled with NaN or -1 so that
    nothing unwritten goes unnoticed. Returns each call's bank conflicts."""
    from runtime.cuda.simulator.machine import launch

    sizes = dict(values or {})
    memory = CheckedMemory()
    kept = dict(arrays)
    kept.setdefault(ERROR, np.zeros(2, np.int64))
    for b in lowered.buffers:
        garbage = np.nan if b.dtype.is_float else -1 if b.dtype.kind == "i" else 1
        kept[b.name] = np.full(dims.evaluate(b.size, sizes), garbage, b.dtype.numpy)
    addresses = {name: memory.add(name, a) for name, a in kept.items()}

    def number(arg: Arg) -> int:
        if isinstance(arg, Pointer):
            return addresses[arg.buffer] + dims.evaluate(arg.offset, sizes)
        if isinstance(arg, BoxMap):
            shape, strides = (tuple(dims.evaluate(s, sizes) for s in given) for given in (arg.shape, arg.strides))
            window = arg.window and arg.window.at(lambda size: dims.evaluate(size, sizes))
            box = TensorMap(shape, strides, arg.itemsize, arg.box, window=window)
            return memory.add("tensor map", box.for_simulator(int(number(arg.at))))
        if isinstance(arg, Block):
            return memory.add("table", np.array([number(a) for a in arg.args], np.int64))
        return dims.evaluate(arg, sizes)

    kernels = {k.key: k for k in lowered.kernels}
    found = []
    for call in lowered.calls:
        kernel = kernels[call.kernel]
        args = [0, addresses[ERROR] if call.indexed else 0, *map(number, call.args)]
        conflicts = Conflicts()
        function = getattr(load_source(kernel), kernel.name)
        blocks = dims.evaluate(call.tasks, sizes)
        launch(function, blocks, kernel.threads, kernel.shared, args, memory, order, conflicts, kernel.cooperative)
        found.append(conflicts)
    return found


@dataclass(frozen=True)
class Taken:
    """What one kernel takes on one architecture, and how many blocks a multiprocessor runs at a time; ``products`` are
    its instructions for tensor cores."""

    kernel: Kernel
    architecture: str
    resources: Resources
    blocks: int
    products: int


TAKEN: list[Taken] = []
"""What :func:`compiled` has told of, for the table at the end of a test run."""


@cache
def compiled(kernel: Kernel, architecture: str) -> Cubin:
    """The machine code of a kernel, without a GPU. It keeps to the budget of all kernels: a multiprocessor runs one
    block or more; nothing is on the stack, spilled, or in local memory, and no wgmma waits for another."""
    cubin = assemble(to_ptx(kernel, architecture), architecture)
    needs, found = cubin.resources, instructions(disassemble(cubin.code))
    outside = (needs.stack, needs.spill_stores, needs.spill_loads, found["LDL"], found["STL"])
    assert outside == (0, 0, 0, 0, 0), f"{kernel.name}: {needs}, {found['LDL']} LDL, {found['STL']} STL"
    assert not needs.serialized, kernel.name
    assert kernel.shared <= SHARED_LIMIT[architecture], kernel.name
    blocks = needs.occupancy(kernel.threads, kernel.shared, architecture)
    assert blocks >= 1, f"{kernel.name}: {needs.registers} registers in each of {kernel.threads} threads"
    TAKEN.append(Taken(kernel, architecture, needs, blocks, found["HMMA"] + found["HGMMA"]))
    return cubin


def check_hopper(kernel: Kernel) -> None:
    """A kernel of runtime/cuda/hopper.py, assembled: wgmma multiplies, TMA copies, and registers change hands."""
    cubin = compiled(kernel, "sm_90a")
    found, needs = instructions(disassemble(cubin.code)), cubin.resources
    assert found["HGMMA"] >= 4 and found["UTMALDG"] > 0
    # Those that multiply wait until the others have given up as many registers as they ask for: with fewer at the
    # start, for ever.
    assert needs.registers * THREADS <= _REGISTERS
    assert needs.registers * THREADS >= FEW_REGISTERS * THREADS // 3 + MANY_REGISTERS * THREADS * 2 // 3
    assert needs.occupancy(THREADS, kernel.shared, "sm_90a") == 1


def table(taken: Sequence[Taken]) -> str:
    """A table in Markdown, a row for each kernel and architecture."""
    rows = sorted(
        (t.kernel.name, t.architecture, t.kernel.threads, t.resources.registers, t.kernel.shared, t.blocks, t.products)
        for t in taken
    )
    columns = ("kernel", "architecture", "threads", "registers", "shared memory", "blocks", "products")
    head = f"| {' | '.join(columns)} |\n|---|---|{'--:|' * (len(columns) - 2)}\n"
    return head + "".join(f"| {' | '.join(map(str, row))} |\n" for row in dict.fromkeys(rows))
