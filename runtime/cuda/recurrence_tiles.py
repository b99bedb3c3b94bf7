"""A recurrence on tensor cores: the recurrent weights stay in shared memory, and all steps are one launch.

A block owns some hidden units, and has the weights of all their gates; so many blocks as make up all units are a team,
which walks 16 examples through time. At each step a block multiplies the team's states (backward: the gradients of all
gates) with its weights, a warp 8 units; a unit's gates end up in the same lanes, whose registers hold its state, so the
cell follows at once. What a block makes of the state goes through global memory, and the team meets. Weights that do
not fit shared memory are read again at every step.

Blocks that meet must run at the same time: with more than one block a team, the launch is cooperative, and no more
blocks are asked for than :data:`RESIDENT`. Each team then takes the next 16 examples when it is done. Every sum is
added up in one order, whatever runs when. What follows the last unit computes along, and is not written.
"""

from __future__ import annotations

from dataclasses import replace

from engine import dtypes
from engine.buffers import Buffer
from engine.dims import Size, ceil_div
from engine.program import Call, Kernel, Lowered, Pointer
from engine.records import dataclass
from engine.schedule import KernelSpec, Recurrence
from runtime.cuda.attention_tiles import CHUNK, SHARED, STEP
from runtime.cuda.emit import kernel
from runtime.cuda.products import Products, product_kind
from runtime.cuda.recurrence_cell import Steps
from runtime.emit import ArgTable, call, indent, load, loop, store

ROWS = 16
"""Examples of a team: the rows of one product."""
UNITS = 8
"""Hidden units of a warp: the columns of one product."""
WARPS = 8
"""The most warps of a block."""
MANY_WARPS = 16
"""The same, where weights do not take its shared memory."""
RESIDENT = 48
"""The most blocks that meet: any GPU of compute capability 8.0 or 9.0 runs these at once, one a multiprocessor."""
_WORDS = {
    "runtime.cuda.ptx": (
        "shared_memory", "st_shared_u32", "ldmatrix_x2", "ldmatrix_x4", "cp_async_16", "cp_async_commit",
        "cp_async_wait", "mma_m16n8k16_f16", "mma_m16n8k16_bf16", "mma_m16n8k8_tf32", "to_tf32", "bits_float",
        "float_bits", "pack_f16", "pack_bf16", "fence_gpu", "atom_add_global_u32", "st_global_u32", "wait_global_u32",
    )
}  # fmt: skip


def fits_tiles(spec: KernelSpec, core: Recurrence) -> bool:
    """Whether :func:`lower_recurrence_tiles` can lower ``spec``: with tensor cores for its dtype, without a projection,
    and with no more hidden units than blocks that run at once can have."""
    weight, gates = spec.reads[core.reads.index("weight")], core.cell.gates
    depth, columns = (gates * core.hidden, 1) if core.backward else (core.width, gates)
    if weight.dtype == dtypes.f64 or "projection" in core.reads:
        return False
    return _plan(-(-core.hidden // UNITS), columns, depth, weight.dtype.itemsize) is not None


def lower_recurrence_tiles(spec: KernelSpec, core: Recurrence) -> Lowered:
    """The calls for ``spec``, whose core is ``core``."""
    return (_Backward if core.backward else _Forward)(spec, core).lowered()


@dataclass(frozen=True)
class _Plan:
    """``team`` blocks of ``warps`` warps; rows of ``depth`` numbers come to shared memory in ``parts``. ``resident``
    weights stay there."""

    team: int
    warps: int
    depth: int
    parts: int
    resident: bool


def _plan(units: int, columns: int, depth: int, size: int) -> _Plan | None:
    """The first that fits shared memory, for ``units`` times 8 hidden units."""
    for resident in (True, False):
        for parts in (1, 2, 4, 8):
            deep = -(-depth // (16 * parts)) * 16 * parts
            left = SHARED - min(parts, 2) * ROWS * (deep // parts * size + CHUNK)
            most = left // (columns * UNITS * (deep * size + CHUNK)) if resident else MANY_WARPS * (left > 0)
            if most < 1:
                continue
            warps = min(most, WARPS) if resident else -(-units // RESIDENT)
            team = -(-units // warps)
            if warps <= most and team <= RESIDENT:
                return _Plan(team, -(-units // team), deep, parts, resident)
    return None


class _Walk(Steps):
    """What both directions share: ``depth`` numbers of an example are multiplied with the weights of ``columns``
    fragments for every 8 units, and go through the buffer ``passed``."""

    depth: int
    columns: int
    passed: str

    def __init__(self, spec: KernelSpec, core: Recurrence):
        super().__init__(spec, core)
        self.operand = self.given["weight"].dtype
        self.size = self.operand.itemsize
        self.per_word = 4 // self.size
        exactness = "high" if spec.products == "medium" else spec.products
        self.products = Products(product_kind(self.operand, exactness), 1, self.columns)
        plan = _plan(-(-self.hidden // UNITS), self.columns, self.depth, self.size)
        assert plan is not None
        self.plan, self.team, self.deep, self.threads = plan, plan.team, plan.depth, 32 * plan.warps
        self.pitch = self.deep * self.size + CHUNK
        """Bytes of a row of weights."""
        self.part_pitch = self.deep // plan.parts * self.size + CHUNK
        self.state_at = plan.warps * self.columns * UNITS * self.pitch if plan.resident else 0
        """Where in shared memory the examples' rows begin, behind the weights."""

    # -- what the directions give

    def weight(self, row: str, column: str) -> str:
        """Column ``column`` of what belongs to row ``row`` of the block's weights, in the order of fragments."""
        raise NotImplementedError

    def begin(self) -> list[str]:
        """Lines for 16 examples before the first step."""
        raise NotImplementedError

    def step(self) -> list[str]:
        raise NotImplementedError

    def end(self) -> list[str]:
        raise NotImplementedError

    # -- the kernel

    def lowered(self) -> Lowered:
        name, chunks = self.spec.name, ceil_div(self.core.batch, ROWS)
        rows = chunks * ROWS
        passed = Buffer(f"{name}.{self.passed}", "temp", self.operand, 2 * rows * self.deep)
        meeting = Buffer(f"{name}.meeting", "temp", dtypes.i32, RESIDENT * 32)
        together = self.team > 1
        teams: Size = RESIDENT // self.team if together else chunks
        access = self.given["weight"]
        self.table.declare(
            weight_base=Pointer(access.buffer, access.offset * self.size), weight_r=access.strides[0],
            weight_c=access.strides[1], passed=Pointer(passed.name), half_size=rows * self.deep * self.size,
            chunks=chunks, teams=teams,
        )  # fmt: skip
        if together:
            self.table.declare(meeting=Pointer(meeting.name))
        walk = [
            f"first = chunk * {ROWS}",
            "row_at = lane >> 2",
            *self.begin(),
            *loop("step", "0", "steps", ["t = begin + step * onward", "half = step & 1", *self.step()]),
            *self.end(),
        ]
        lines = [
            "thread = cuda.threadIdx.x",
            "lane = thread & 31",
            "warp = thread >> 5",
            "shared = shared_memory()",
            f"team = quotient(cuda.blockIdx.x, {self.team})",
            f"own = (cuda.blockIdx.x - team * {self.team}) * {self.plan.warps * UNITS}",
            "if team < chunks:",
            *indent([
                f"state_left = shared + {self.state_at} + (lane & 15) * {self.part_pitch} + (lane >> 4) * {CHUNK}",
                *(self._weights() if self.plan.resident else self._unit()),
                *self.products.declare(),
                *(["goal = 0"] if together else []),
                "cuda.syncthreads()",
                "for chunk in range(team, chunks, teams):",
                *indent(walk),
            ]),
        ]  # fmt: skip
        code = kernel(f"{name}_tiles", lines, self.table, self.threads, self.shared, modules=_WORDS)
        found = call(self.spec, code, self.table, teams * self.team)
        names = (passed.name, meeting.name) if together else (passed.name,)
        found = replace(found, reads=(*found.reads, *names), writes=(*found.writes, *names))
        if not together:
            return Lowered((found,), (code,), (passed,))
        clear = _clear(self.spec, meeting)
        code = replace(code, cooperative=True)
        return Lowered((clear.calls[0], found), (clear.kernels[0], code), (passed, meeting))

    @property
    def shared(self) -> int:
        return self.state_at + min(self.plan.parts, 2) * ROWS * self.part_pitch

    def _weights(self) -> list[str]:
        """Copies the block's weights to shared memory, a row for every warp, fragment and unit, and sets where this
        lane's part of the warp's begins."""
        words = self.deep // self.per_word
        lines = [
            f"row = quotient(n, {words})",
            f"word = n - row * {words}",
            f"tile = quotient(row, {self.columns * UNITS})",
            f"part = quotient(row, {UNITS}) - tile * {self.columns}",
            f"unit = minimum(own + tile * {UNITS} + (row & {UNITS - 1}), hidden - 1)",
            *self.word("part", f"word * {self.per_word}"),
            f"st_shared_u32(shared + row * {self.pitch} + word * 4, found)",
        ]
        rows = self.plan.warps * self.columns * UNITS
        return [
            f"for n in range(thread, {rows * words}, {self.threads}):",
            *indent(lines),
            f"weight_right = shared + (warp * {self.columns * UNITS} + (lane & 7)) * {self.pitch} "
            f"+ (lane >> 3 & 1) * {CHUNK}",
        ]

    def _unit(self) -> list[str]:
        """Sets ``unit``, whose weights this lane reads for the right operand."""
        return [f"unit = minimum(own + warp * {UNITS} + (lane >> 2), hidden - 1)"]

    def word(self, part: str, first: str) -> list[str]:
        """Sets ``found`` to a word of the weights of ``unit``, from column ``first`` on: zeros where there is no such
        column."""
        lines = []
        for x in range(self.per_word):
            value = self.weight(part, "column")
            inside = [f"x{x} = {value}"]
            if self.deep != self.depth:
                inside = [f"x{x} = float32(0.0)", f"if column < {self.depth}:", f"    x{x} = {value}"]
            lines += [f"column = {first} + {x}", *inside]
        return [*lines, f"found = pack_{self.operand}(x0, x1)" if self.per_word == 2 else "found = float_bits(x0)"]

    def element(self, row: str, column: str) -> str:
        access = self.given["weight"]
        at = f"({row}) * weight_r + ({column}) * weight_c"
        return load(access.dtype, "weight_base", at, self.table.scope(access.buffer))

    def product(self) -> list[str]:
        """``acc``: what all of the team have passed on in this ``half``, times the warp's weights."""
        parts, steps = self.plan.parts, self.deep * self.size // STEP // self.plan.parts
        multiply = [
            f"a[0], a[1], a[2], a[3] = ldmatrix_x4(state_left + stage * {ROWS * self.part_pitch} + k * {STEP})",
            *self.products.prepare("a"),
            *loop("j", "0", str(self.columns), self._right(f"(part * {steps} + k)")),
            *self.products.prepare("b"),
            *self.products.multiply(),
        ]
        return [
            *self._copied("0"),
            *loop("part", "0", str(parts), [
                "stage = part & 1",
                "cp_async_wait(0)",
                "cuda.syncthreads()",
                *([f"if part + 1 < {parts}:", *indent(self._copied("(part + 1)"))] if parts > 1 else []),
                *loop("k", "0", str(steps), multiply),
            ]),
        ]  # fmt: skip

    def _copied(self, part: str) -> list[str]:
        """Begins to copy a part of the examples' rows to shared memory."""
        chunks = self.deep * self.size // CHUNK // self.plan.parts
        target = f"shared + {self.state_at} + ({part} & 1) * {ROWS * self.part_pitch} + r * {self.part_pitch}"
        source = f"passed + half * half_size + (first + r) * {self.deep * self.size} + ({part} * {chunks} + q)"
        return [
            f"for n in range(thread, {ROWS * chunks}, {self.threads}):",
            f"    r = quotient(n, {chunks})",
            f"    q = n - r * {chunks}",
            f"    cp_async_16({target} + q * {CHUNK}, {source} * {CHUNK})",
            "cp_async_commit()",
        ]

    def _right(self, step: str) -> list[str]:
        """Loads the right operand of fragment ``j`` for step ``step`` of the whole depth."""
        if self.plan.resident:
            return [f"b[2 * j], b[2 * j + 1] = ldmatrix_x2(weight_right + j * {UNITS * self.pitch} + {step} * {STEP})"]
        first = f"{step} * {STEP // self.size} + (lane & 3) * {self.per_word}"
        lines: list[str] = []
        for i in range(2):
            lines += [*self.word("j", f"{first} + {i * CHUNK // self.size}"), f"b[2 * j + {i}] = found"]
        return lines

    def each_own(self, body: list[str]) -> list[str]:
        """``body`` for every example ``n`` and unit ``j`` that this lane has, the ``e``-th of four."""
        return loop("e", "0", "4", [
            "n = first + row_at + (e >> 1) * 8",
            f"j = own + warp * {UNITS} + (lane & 3) * 2 + (e & 1)",
            "if (n < batch) & (j < hidden):",
            *indent(body),
        ])  # fmt: skip

    def registers(self, *names: str) -> list[str]:
        return [f"{name} = cuda.local.array(4, float32)" for name in names]

    def start(self, register: str, name: str) -> list[str]:
        """A register's value before the first step: the array ``name`` where it is given, else zero."""
        return [f"{register}[e] = {self.get(name) if name in self.given else self.zero()}"]

    def pass_on(self, value: str, index: str, half: str) -> str:
        pointer = f"passed + {half} * half_size"
        return store(self.operand, pointer, f"n * {self.deep} + {index}", value, self.table.scope("$passed"))

    def fill_up(self) -> list[str]:
        """Zeros behind what is passed on, where the depth has been filled up: they meet weights of zero, but nothing
        else would."""
        rest = self.deep - self.depth
        if not rest:
            return []
        return [
            f"for item in range(thread, {2 * ROWS * rest}, {self.threads}):",
            f"    r = quotient(item, {rest})",
            f"    n = first + (r & {ROWS - 1})",
            f"    {self.pass_on(self.zero(), f'{self.depth} + item - r * {rest}', f'(r >> {ROWS.bit_length() - 1})')}",
        ]

    def meet(self) -> list[str]:
        """All blocks of the team have come here, and see what the others have written."""
        if self.team == 1:
            return ["cuda.syncthreads()"]
        return [
            f"goal += {self.team}",
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

    def __init__(self, spec: KernelSpec, core: Recurrence):
        self.depth, self.columns = core.width, core.cell.gates
        super().__init__(spec, core)

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
        multiply = self.product()
        if "h" not in self.given:
            multiply = ["if step > 0:", *indent(multiply)]
        z = [self.products.value(f"{4 * k} + e") for k in range(self.gates)]
        return [
            *self.products.clear(),
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
    passed, columns = "inward", 1

    def __init__(self, spec: KernelSpec, core: Recurrence):
        self.depth = core.cell.gates * core.hidden
        super().__init__(spec, core)

    def weight(self, row: str, column: str) -> str:
        return self.element(column, "unit")

    def begin(self) -> list[str]:
        memory = ["dmemory"] * self.cell.memory
        lines = [*self.start("dstate", "g_h"), *(line for m in memory for line in self.start(m, "g_c"))]
        return [*self.registers("dstate", *memory), *self.each_own(lines), *self.fill_up()]

    def step(self) -> list[str]:
        arriving = f"dstate[e] + {self.get('g_hs')}" if "g_hs" in self.given else "dstate[e]"
        multiply = self.product()
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
            *self.products.clear(),
            *multiply,
            *loop("e", "0", "4", [f"dstate[e] = dstate[e] + {self.products.value('e')}"]),
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
    code: Kernel = kernel("recurrence_clear", lines, table, 256, modules=_WORDS)
    step = Call(code.key, f"{spec.name}_clear", table.args, 1, (), (meeting.name,), 0, spec.nodes)
    return Lowered((step,), (code,))
