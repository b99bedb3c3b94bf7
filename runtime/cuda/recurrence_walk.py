"""A recurrence as one launch: teams of blocks walk examples through time, with the recurrent weights in shared memory.

A block owns some hidden units, and has the weights of all their gates; so many blocks as make up all units are a team,
which walks some examples through time. At each step a block multiplies the team's states (backward: the gradients of
all gates) with its weights, in a way that a :class:`Multiplier` knows; a unit's gates end up in the same thread, whose
registers hold its state, so the cell follows at once. What a block makes of the state goes through global memory, and
the team meets.

Blocks that meet must run at the same time: with more than one block a team, the launch is cooperative, and no more
blocks are asked for than run at once. Each team then takes the next examples when it is done. Every sum is added up in
one order, whatever runs when. What follows the last unit computes along, and is not written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from engine import dtypes
from engine.buffers import Buffer
from engine.dims import Size, ceil_div
from engine.dtypes import DType
from engine.program import Call, Kernel, Lowered, Pointer
from engine.records import dataclass
from engine.schedule import KernelSpec, Recurrence
from runtime.cuda.contraction_split import TURN
from runtime.cuda.emit import kernel
from runtime.cuda.recurrence_cell import Steps
from runtime.cuda.tiles import CHUNK, PROCESSORS
from runtime.emit import ArgTable, call, indent, load, loop, store

WORDS = {
    "runtime.cuda.ptx": (
        "shared_memory", "st_shared_u32", "cp_async_16", "cp_async_commit", "cp_async_wait", "bits_float",
        "float_bits", "pack_f16", "pack_bf16", "fence_gpu", "atom_add_global_u32", "st_global_u32", "wait_global_u32",
    )
}  # fmt: skip

RESIDENT = {"sm_80": 48, "sm_90a": 64}
"""The most blocks that meet: any GPU of compute capability 8.0, or 9.0, runs these at once, one a multiprocessor."""
UNROLLED = 4
"""Turns of a loop over a thread's cells."""
MEETING = 2000
"""Cycles until all blocks of a team know of one another: an operation on an atomic, a read that sees it, and the
states that were written before, each on its way to the second level cache and back."""
FETCHED, READ = 64, 128
"""Bytes that a multiprocessor gets in a cycle from there, and from its shared memory."""

Word = Callable[[str, str], list[str]]
"""Lines that set ``found`` to a word of the weights of ``unit``: of this part, from this column on."""


def multiplied(core: Recurrence) -> tuple[int, int]:
    """How many numbers of an example are multiplied at a step, and how many rows of weights a hidden unit has."""
    return (core.cell.gates * core.hidden, 1) if core.backward else (core.width, core.cell.gates)


@dataclass(frozen=True)
class Plan:
    """``team`` blocks of ``warps`` warps take ``examples``, of which ``depth`` numbers each come to shared memory in
    ``parts``. ``resident`` weights stay there; they are ``weights`` bytes of each block. ``readers`` times a step the
    examples are read in shared memory. No more than ``most`` blocks run at once."""

    team: int
    warps: int
    depth: int
    parts: int
    resident: bool
    examples: int
    weights: int
    readers: int
    most: int

    def cycles(self, batch: int, itemsize: int) -> float:
        """What a step of ``batch`` examples is expected to take."""
        states = self.examples * self.depth * itemsize
        fetched = (states + (0 if self.resident else self.weights)) / FETCHED
        read = (self.readers * states + (self.weights if self.resident else 0)) / READ
        # One part is fetched while another is multiplied.
        alone = max(fetched, read) + min(fetched, read) / self.parts + self.parts * TURN
        chunks, teams = -(-batch // self.examples), self.most // self.team if self.team > 1 else PROCESSORS
        return -(-chunks // teams) * (alone + (MEETING if self.team > 1 else 0))


class Multiplier:
    """How a team's blocks multiply: ``deep`` numbers of each of ``examples`` by the weights of ``units`` hidden units a
    block, which begin at ``own``. A thread gets the sums of ``cells`` pairs of an example and a unit."""

    name: str
    """What the kernel's name ends with."""
    units: int
    cells: int
    modules: dict[str, tuple[str, ...]]

    def __init__(self, core: Recurrence, dtype: DType, plan: Plan):
        self.dtype, self.size, self.plan = dtype, dtype.itemsize, plan
        self.depth, self.columns = multiplied(core)
        self.team, self.examples, self.deep, self.parts = plan.team, plan.examples, plan.depth, plan.parts
        self.threads = 32 * plan.warps

    @property
    def states_at(self) -> int:
        """Where in shared memory the examples' parts are: behind the weights."""
        return self.plan.weights if self.plan.resident else 0

    @property
    def part_bytes(self) -> int:
        """Of a part of the examples' numbers in shared memory."""
        raise NotImplementedError

    @property
    def shared(self) -> int:
        return self.states_at + min(self.parts, 2) * self.part_bytes

    def setup(self, word: Word) -> list[str]:
        """Lines for once: weights to shared memory, and the registers."""
        raise NotImplementedError

    def place(self) -> list[str]:
        """Lines that set ``n`` and ``j``, the example and the unit of cell ``e`` of this thread."""
        raise NotImplementedError

    def clear(self) -> list[str]:
        """Lines that set the sums to zero."""
        raise NotImplementedError

    def value(self, row: int) -> str:
        """The sum of cell ``e`` for this row of its unit's weights, as an expression."""
        raise NotImplementedError

    def state_place(self) -> str:
        """Where in a part the chunk ``q`` of example ``r`` is put."""
        raise NotImplementedError

    def arrived(self) -> list[str]:
        """Lines behind the wait for a part, before the threads meet."""
        return []

    def multiply(self, word: Word) -> list[str]:
        """Lines that multiply part number ``part``, which lies at ``stage``, and add to the sums."""
        raise NotImplementedError

    def complete(self) -> list[str]:
        """Lines behind all parts."""
        return []

    def product(self, word: Word) -> list[str]:
        """Lines that add to the sums what all of the team have passed on in this ``half``, times the weights."""
        return [
            *self._copied("0"),
            *loop("part", "0", str(self.parts), [
                "cp_async_wait(0)",
                *self.arrived(),
                "cuda.syncthreads()",
                *([f"if part + 1 < {self.parts}:", *indent(self._copied("(part + 1)"))] if self.parts > 1 else []),
                f"stage = shared + {self.states_at} + (part & 1) * {self.part_bytes}",
                *self.multiply(word),
            ]),
            *self.complete(),
        ]  # fmt: skip

    def _copied(self, part: str) -> list[str]:
        """Begins to copy a part of the examples' rows to shared memory."""
        chunks = self.deep * self.size // CHUNK // self.parts
        source = f"passed + half * half_size + (first + r) * {self.deep * self.size} + ({part} * {chunks} + q)"
        return [
            f"to = shared + {self.states_at} + ({part} & 1) * {self.part_bytes}",
            f"for n in range(thread, {self.examples * chunks}, {self.threads}):",
            f"    r = quotient(n, {chunks})",
            f"    q = n - r * {chunks}",
            f"    cp_async_16(to + {self.state_place()}, {source} * {CHUNK})",
            "cp_async_commit()",
        ]


def lower_walk(spec: KernelSpec, core: Recurrence, by: Multiplier) -> Lowered:
    """The calls for ``spec``, whose core is ``core``, multiplied ``by``."""
    return (_Backward if core.backward else _Forward)(spec, core, by).lowered()


class _Walk(Steps):
    """What both directions share: what multiplies goes through the buffer ``passed``."""

    passed: str

    def __init__(self, spec: KernelSpec, core: Recurrence, by: Multiplier):
        super().__init__(spec, core)
        self.by = by
        self.operand = self.given["weight"].dtype
        self.per_word = 4 // self.operand.itemsize

    # -- what the directions give

    def weight(self, row: str, column: str) -> str:
        """Column ``column`` of what belongs to row ``row`` of the weights of ``unit``."""
        raise NotImplementedError

    def begin(self) -> list[str]:
        """Lines for a team's examples before the first step."""
        raise NotImplementedError

    def step(self) -> list[str]:
        raise NotImplementedError

    def end(self) -> list[str]:
        raise NotImplementedError

    # -- the kernel

    def lowered(self) -> Lowered:
        name, by, size = self.spec.name, self.by, self.operand.itemsize
        chunks = ceil_div(self.core.batch, by.examples)
        rows = chunks * by.examples
        passed = Buffer(f"{name}.{self.passed}", "temp", self.operand, 2 * rows * by.deep)
        together = by.team > 1
        teams: Size = by.plan.most // by.team if together else chunks
        meeting = Buffer(f"{name}.meeting", "temp", dtypes.i32, by.plan.most // by.team * 32)
        access = self.given["weight"]
        self.table.declare(
            weight_base=Pointer(access.buffer, access.offset * size), weight_r=access.strides[0],
            weight_c=access.strides[1], passed=Pointer(passed.name), half_size=rows * by.deep * size,
            chunks=chunks, teams=teams,
        )  # fmt: skip
        if together:
            self.table.declare(meeting=Pointer(meeting.name))
        walk = [
            f"first = chunk * {by.examples}",
            *self.begin(),
            *loop("step", "0", "steps", ["t = begin + step * onward", "half = step & 1", *self.step()]),
            *self.end(),
        ]
        lines = [
            "thread = cuda.threadIdx.x",
            "lane = thread & 31",
            "warp = thread >> 5",
            "shared = shared_memory()",
            f"team = quotient(cuda.blockIdx.x, {by.team})",
            f"own = (cuda.blockIdx.x - team * {by.team}) * {by.units}",
            "if team < chunks:",
            *indent([
                *by.setup(self.word),
                *(["goal = 0"] if together else []),
                "cuda.syncthreads()",
                "for chunk in range(team, chunks, teams):",
                *indent(walk),
            ]),
        ]  # fmt: skip
        code = kernel(f"{name}_{by.name}", lines, self.table, by.threads, by.shared, modules=by.modules)
        found = call(self.spec, code, self.table, teams * by.team)
        names = (passed.name, meeting.name) if together else (passed.name,)
        found = replace(found, reads=(*found.reads, *names), writes=(*found.writes, *names))
        if not together:
            return Lowered((found,), (code,), (passed,))
        clear = _clear(self.spec, meeting)
        code = replace(code, cooperative=True)
        return Lowered((clear.calls[0], found), (clear.kernels[0], code), (passed, meeting))

    def word(self, part: str, first: str) -> list[str]:
        """Sets ``found`` to a word of the weights of ``unit``, from column ``first`` on: zeros where there is no such
        column."""
        lines = []
        for x in range(self.per_word):
            value = self.weight(part, "column")
            inside = [f"x{x} = {value}"]
            if self.by.deep != self.by.depth:
                inside = [f"x{x} = float32(0.0)", f"if column < {self.by.depth}:", f"    x{x} = {value}"]
            lines += [f"column = {first} + {x}", *inside]
        return [*lines, f"found = pack_{self.operand}(x0, x1)" if self.per_word == 2 else "found = float_bits(x0)"]

    def element(self, row: str, column: str) -> str:
        access = self.given["weight"]
        at = f"({row}) * weight_r + ({column}) * weight_c"
        return load(access.dtype, "weight_base", at, self.table.scope(access.buffer))

    def each_own(self, body: list[str]) -> list[str]:
        """``body`` for every example ``n`` and unit ``j`` that this thread has, the ``e``-th of its cells. The text has
        loops of a few turns one behind the other: so long ones compilers do not unroll, and registers have no
        numbers."""
        lines = [*self.by.place(), "if (n < batch) & (j < hidden):", *indent(body)]
        cells = self.by.cells
        return [line for e in range(0, cells, UNROLLED) for line in
                loop("e", str(e), str(min(e + UNROLLED, cells)), lines)]  # fmt: skip

    def registers(self, *names: str) -> list[str]:
        return [f"{name} = cuda.local.array({self.by.cells}, float32)" for name in names]

    def start(self, register: str, name: str) -> list[str]:
        """A register's value before the first step: the array ``name`` where it is given, else zero."""
        return [f"{register}[e] = {self.get(name) if name in self.given else self.zero()}"]

    def pass_on(self, value: str, index: str, half: str) -> str:
        pointer = f"passed + {half} * half_size"
        return store(self.operand, pointer, f"n * {self.by.deep} + {index}", value, self.table.scope("$passed"))

    def fill_up(self) -> list[str]:
        """Zeros behind what is passed on, where the depth has been filled up: they meet weights of zero, but nothing
        else would. The team's first block writes them."""
        by = self.by
        rest, size = by.deep - by.depth, by.examples * (by.deep - by.depth)
        if not rest:
            return []
        zero = self.pass_on(self.zero(), f"{by.depth} + item - r * {rest}", f"quotient(r, {by.examples})")
        return [
            "if own == 0:",
            f"    for item in range(thread, {2 * size}, {by.threads}):",
            f"        r = quotient(item, {rest})",
            f"        n = first + r - quotient(r, {by.examples}) * {by.examples}",
            f"        {zero}",
        ]

    def meet(self) -> list[str]:
        """All blocks of the team have come here, and see what the others have written."""
        if self.by.team == 1:
            return ["cuda.syncthreads()"]
        return [
            f"goal += {self.by.team}",
            "cuda.syncthreads()",
            "if thread == 0:",
            "    fence_gpu()",
            "    atom_add_global_u32(meeting + team * 128, 1)",
            "    wait_global_u32(meeting + team * 128, goal)",
            "    fence_gpu()",
            "cuda.syncthreads()",
        ]


class _Forward(_Walk):
    passed = "states"

    def weight(self, row: str, column: str) -> str:
        return self.element(f"{row} * hidden + unit", column)

    def begin(self) -> list[str]:
        memory = ["memory"] * self.cell.memory
        given = [self.pass_on("state[e]", "j", "0")] if "h" in self.given else []
        return [
            *self.registers("state", *memory),
            *self.each_own([*self.start("state", "h"), *(line for m in memory for line in self.start(m, "c")), *given]),
            *self.fill_up(),
            *self.meet(),
        ]

    def step(self) -> list[str]:
        multiply = self.by.product(self.word)
        if "h" not in self.given:
            multiply = ["if step > 0:", *indent(multiply)]
        z = [self.by.value(k) for k in range(self.gates)]
        return [
            *self.by.clear(),
            *multiply,
            *self.each_own([
                *(f"z{k} = {value}" for k, value in enumerate(z)),
                *self.forward_cell(
                    [f"z{k}" for k in range(self.gates)], "state[e]", "memory[e]",
                    lambda value: [f"state[e] = {value}"], lambda value: [f"memory[e] = {value}"],
                ),
                self.pass_on("state[e]", "j", "(1 - half)"),
            ]),
            *self.meet(),
        ]  # fmt: skip

    def end(self) -> list[str]:
        last = self.keep("h_last", "state[e]") + (self.keep("c_last", "memory[e]") if self.cell.memory else [])
        return self.each_own(last) if last else []


class _Backward(_Walk):
    passed = "inward"

    def weight(self, row: str, column: str) -> str:
        return self.element(column, "unit")

    def begin(self) -> list[str]:
        memory = ["dmemory"] * self.cell.memory
        lines = [*self.start("dstate", "g_h"), *(line for m in memory for line in self.start(m, "g_c"))]
        return [*self.registers("dstate", *memory), *self.each_own(lines), *self.fill_up()]

    def step(self) -> list[str]:
        arriving = f"dstate[e] + {self.get('g_hs')}" if "g_hs" in self.given else "dstate[e]"
        multiply = self.by.product(self.word)
        if "dh" not in self.made:
            multiply = ["if step < steps - 1:", *indent(multiply)]
        return [
            *self.each_own([
                f"arriving = {arriving}",
                *self.backward_cell(
                    "arriving", "dmemory[e]", lambda k, value: [self.pass_on(value, self.part(k), "half")],
                    lambda value: [f"dstate[e] = {value}"], lambda value: [f"dmemory[e] = {value}"],
                ),
            ]),
            *self.meet(),
            *self.by.clear(),
            *multiply,
            *loop("e", "0", str(self.by.cells), [f"dstate[e] = dstate[e] + {self.by.value(0)}"]),
        ]  # fmt: skip

    def end(self) -> list[str]:
        last = self.keep("dh", "dstate[e]") + (self.keep("dc", "dmemory[e]") if self.cell.memory else [])
        return self.each_own(last) if last else []


def _clear(spec: KernelSpec, meeting: Buffer) -> Lowered:
    """The call that sets the numbers by which blocks meet to zero."""
    table = ArgTable()
    table.declare(meeting=Pointer(meeting.name))
    lines = [
        f"for i in range(cuda.threadIdx.x, {meeting.size}, 256):",
        "    st_global_u32(meeting + i * 4, 0)",
    ]
    code: Kernel = kernel("recurrence_clear", lines, table, 256, modules=WORDS)
    step = Call(code.key, f"{spec.name}_clear", table.args, 1, (), (meeting.name,), 0, spec.nodes)
    return Lowered((step,), (code,))
