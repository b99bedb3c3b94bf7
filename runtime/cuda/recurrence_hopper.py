"""A recurrence by wgmma (runtime/cuda/recurrence_walk.py), which reads weights and states where they lie.

A warpgroup multiplies 64 rows of weights, which never leave shared memory, by the states of 8 to 64 examples, which are
the columns of the product. Forward, a unit's gates are rows of the same warp: of 16 rows that it has of the sums, a
thread has two, eight apart. So row 2 u of a warp is the first gate of its unit u, row 2 u + 1 the second, and the third
and fourth follow eight rows later: two neighbours exchange what they have of one column each, and each has all gates
of one unit and one example. Where a unit has one row, a thread's rows are units of their own.
"""

from __future__ import annotations

from engine import dtypes
from engine.dtypes import DType
from engine.schedule import KernelSpec, Recurrence
from runtime.cuda.assembler import SHARED_LIMIT
from runtime.cuda.hopper import GROUP_ROWS, ROW_BYTES, STEP_BYTES, SWIZZLED
from runtime.cuda.recurrence_walk import RESIDENT, WORDS, Multiplier, Plan, Word, multiplied
from runtime.cuda.tiles import CHUNK
from runtime.emit import indent, loop
from runtime.tasks import typical

_ARCHITECTURE = "sm_90a"
SLOTS = 4
"""Rows of the product for a unit with several gates; of three one comes twice."""
SLAB = ROW_BYTES // 2
"""Numbers of an example, or of a row of weights, in a row of shared memory."""
EXAMPLES = (8, 16, 32, 64)
CELLS = {1: 8, 2: 8, 4: 4, 8: 1}
"""Pairs of an example and a unit that a thread has at most, by the warpgroups of a block: its registers are so many."""
_MODULES: dict[str, tuple[str, ...]] = {
    "runtime.cuda.ptx": (*WORDS["runtime.cuda.ptx"], "shfl_bfly_f32"),
    "runtime.cuda.ptx_hopper": (
        "fence_proxy_async", "wgmma_bf16", "wgmma_commit", "wgmma_f16", "wgmma_fence", "wgmma_wait_for",
    ),
}  # fmt: skip


def hopper_of(spec: KernelSpec, core: Recurrence) -> HopperTiles | None:
    """What multiplies for ``spec`` with the weights in shared memory, or None where they do not fit there, their dtype
    is not one of 2 bytes, or there is a projection."""
    weight = spec.reads[core.reads.index("weight")].dtype
    plan = best_plan(core) if weight in (dtypes.f16, dtypes.bf16) and "projection" not in core.reads else None
    return None if plan is None else HopperTiles(core, weight, plan)


def best_plan(core: Recurrence) -> Plan | None:
    """The one whose steps are expected to be shortest."""
    plans = [
        plan for groups in CELLS for examples in EXAMPLES for parts in (1, 2, 4, 8)
        if (plan := planned(core, groups, examples, parts)) is not None
    ]  # fmt: skip
    return min(plans, key=lambda plan: plan.cycles(typical(core.batch), 2), default=None)


def planned(core: Recurrence, groups: int, examples: int, parts: int) -> Plan | None:
    """That of blocks with so many warpgroups, if it fits."""
    depth, columns = multiplied(core)
    team = -(-core.hidden // (groups * _units(columns)))
    deep = -(-depth // (SLAB * parts)) * SLAB * parts
    weights = groups * GROUP_ROWS * deep * 2
    shared = weights + min(parts, 2) * examples * deep // parts * 2
    if (
        team > RESIDENT[_ARCHITECTURE]
        or shared > SHARED_LIMIT[_ARCHITECTURE]
        or _cells(columns, examples) > CELLS[groups]
    ):
        return None
    return Plan(team, 4 * groups, deep, parts, True, examples, weights, groups, RESIDENT[_ARCHITECTURE])


def _units(columns: int) -> int:
    """Hidden units of a warpgroup, each with so many rows of weights."""
    return GROUP_ROWS if columns == 1 else GROUP_ROWS // SLOTS


def _cells(columns: int, examples: int) -> int:
    return examples * _units(columns) // 128


class HopperTiles(Multiplier):
    name, modules = "hopper", _MODULES

    def __init__(self, core: Recurrence, dtype: DType, plan: Plan):
        super().__init__(core, dtype, plan)
        self.units = plan.warps // 4 * _units(self.columns)
        self.cells = _cells(self.columns, plan.examples)
        self.slabs = self.deep // SLAB // plan.parts
        """In a part."""

    @property
    def part_bytes(self) -> int:
        return self.slabs * self.examples * ROW_BYTES

    def setup(self, word: Word) -> list[str]:
        words = self.deep // 2
        unit, part = "row", "0"
        if self.columns > 1:
            unit = "(row >> 4) * 4 + (row >> 1 & 3)"
            part = f"minimum((row & 1) + (row >> 2 & 2), {self.columns - 1})"
        slab = f"(row >> 6) * {GROUP_ROWS * self.deep * 2} + (word >> 5) * {GROUP_ROWS * ROW_BYTES}"
        place = f"(row & 63) * {ROW_BYTES} + ((word >> 2 & 7) ^ (row & 7)) * {CHUNK} + (word & 3) * 4"
        return [
            f"for n in range(thread, {self.plan.warps * 16 * words}, {self.threads}):",
            *indent([
                f"row = quotient(n, {words})",
                f"word = n - row * {words}",
                f"unit = minimum(own + {unit}, hidden - 1)",
                f"part = {part}",
                *word("part", "word * 2"),
                f"st_shared_u32(shared + {slab} + {place}, found)",
            ]),
            f"weights = shared + (warp >> 2) * {GROUP_ROWS * self.deep * 2}",
            f"acc = cuda.local.array({self.examples // 2}, float32)",
            *(["odd = lane >> 2 & 1"] if self.columns > 1 else []),
        ]  # fmt: skip

    def place(self) -> list[str]:
        if self.columns > 1:
            return ["n = first + 8 * e + (lane & 3) * 2 + odd", "j = own + warp * 4 + (lane >> 3)"]
        return [
            "n = first + (e >> 2) * 8 + (lane & 3) * 2 + (e & 1)",
            "j = own + warp * 16 + (lane >> 2) + (e >> 1 & 1) * 8",
        ]

    def clear(self) -> list[str]:
        return [f"for i in range({self.examples // 2}):", "    acc[i] = float32(0.0)"]

    def value(self, row: int) -> str:
        return f"acc[4 * e + {row}]" if self.columns > 1 else "acc[e]"

    def state_place(self) -> str:
        return f"(q >> 3) * {self.examples * ROW_BYTES} + r * {ROW_BYTES} + ((q & 7) ^ (r & 7)) * {CHUNK}"

    def arrived(self) -> list[str]:
        return ["fence_proxy_async()"]

    def multiply(self, word: Word) -> list[str]:
        return [
            "wgmma_fence()",
            *loop("slab", "0", str(self.slabs), [
                f"left = weights + (part * {self.slabs} + slab) * {GROUP_ROWS * ROW_BYTES}",
                f"right = stage + slab * {self.examples * ROW_BYTES}",
                f"for k in range({ROW_BYTES // STEP_BYTES}):",
                f"    a_at = {SWIZZLED} | left + k * {STEP_BYTES} >> 4",
                f"    b_at = {SWIZZLED} | right + k * {STEP_BYTES} >> 4",
                f"    wgmma_{self.dtype}(acc, {self.examples}, a_at, b_at, 1, 0, 0)",
            ]),
            "wgmma_commit()",
            f"wgmma_wait_for(acc, {self.examples}, 0)",
        ]  # fmt: skip

    def complete(self) -> list[str]:
        """Gates of a unit come together: sums ``4 * e`` and on are those of cell ``e``."""
        if self.columns == 1:
            return []
        return [
            f"for e in range({self.cells}):",
            "    for i in range(2):",
            "        here, there = acc[4 * e + 2 * i], acc[4 * e + 2 * i + 1]",
            "        mine = select(odd, there, here)",
            "        other = shfl_bfly_f32(select(odd, here, there), 4)",
            "        acc[4 * e + 2 * i] = select(odd, other, mine)",
            "        acc[4 * e + 2 * i + 1] = select(odd, mine, other)",
        ]
