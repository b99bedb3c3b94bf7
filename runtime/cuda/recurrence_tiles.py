"""A recurrence on tensor cores by mma.sync (runtime/cuda/recurrence_walk.py): a warp multiplies 16 examples by the
weights of 8 hidden units.

The examples are the left operand, and the weights of a gate of 8 units the right one, whose fragments a warp loads anew
at every step: from shared memory, or from global memory where they do not fit there.
"""

from __future__ import annotations

from engine import dtypes
from engine.schedule import KernelSpec, Recurrence
from runtime.cuda.assembler import SHARED_LIMIT
from runtime.cuda.attention_tiles import SHARED
from runtime.cuda.products import Products, product_kind
from runtime.cuda.recurrence_walk import RESIDENT, WORDS, Multiplier, Plan, Word, multiplied
from runtime.cuda.tiles import CHUNK, STEP
from runtime.emit import indent, loop

ROWS = 16
"""Examples of a team: the rows of one product."""
UNITS = 8
"""Hidden units of a warp: the columns of one product."""
WARPS = 8
"""The most warps of a block."""
MANY_WARPS = 16
"""The same, where weights do not take its shared memory."""
_SHARED = {"sm_80": SHARED, "sm_90a": SHARED_LIMIT["sm_90a"]}
"""Bytes of shared memory that a block takes."""
_MODULES: dict[str, tuple[str, ...]] = {
    "runtime.cuda.ptx": (
        *WORDS["runtime.cuda.ptx"], "ldmatrix_x2", "ldmatrix_x4", "mma_m16n8k16_f16", "mma_m16n8k16_bf16",
        "mma_m16n8k8_tf32", "to_tf32",
    )
}  # fmt: skip


def tiles_of(spec: KernelSpec, core: Recurrence, architecture: str) -> Tiles | None:
    """What multiplies for ``spec``, or None where tensor cores do not know its dtype, it has a projection, or more
    hidden units than blocks that run at once can have."""
    weight = spec.reads[core.reads.index("weight")].dtype
    if weight == dtypes.f64 or "projection" in core.reads:
        return None
    depth, columns = multiplied(core)
    plan = _plan(-(-core.hidden // UNITS), columns, depth, weight.itemsize, architecture)
    return None if plan is None else Tiles(spec, core, plan)


def _plan(units: int, columns: int, depth: int, size: int, architecture: str) -> Plan | None:
    """The first that fits shared memory, for ``units`` times 8 hidden units."""
    most_blocks = RESIDENT[architecture]
    for resident in (True, False):
        for parts in (1, 2, 4, 8):
            deep = -(-depth // (16 * parts)) * 16 * parts
            left = _SHARED[architecture] - min(parts, 2) * ROWS * (deep // parts * size + CHUNK)
            most = left // (columns * UNITS * (deep * size + CHUNK)) if resident else MANY_WARPS * (left > 0)
            if most < 1:
                continue
            warps = min(most, WARPS) if resident else -(-units // most_blocks)
            team = -(-units // warps)
            if warps <= most and team <= most_blocks:
                return planned(team, units, columns, deep, parts, size, resident, most_blocks)
    return None


def planned(team: int, units: int, columns: int, deep: int, parts: int, size: int, resident: bool,
            most: int) -> Plan:  # fmt: skip
    """So many blocks that share out ``units`` times 8 hidden units."""
    warps = -(-units // team)
    weights = warps * columns * UNITS * (deep * size + CHUNK)
    return Plan(team, warps, deep, parts, resident, ROWS, weights, warps, most)


class Tiles(Multiplier):
    name, cells, modules = "tiles", 4, _MODULES

    def __init__(self, spec: KernelSpec, core: Recurrence, plan: Plan):
        super().__init__(core, spec.reads[core.reads.index("weight")].dtype, plan)
        self.units = plan.warps * UNITS
        self.per_word = 4 // self.size
        exactness = "high" if spec.products == "medium" else spec.products
        self.products = Products(product_kind(self.dtype, exactness), 1, self.columns)
        self.pitch = self.deep * self.size + CHUNK
        """Bytes of a row of weights."""
        self.part_pitch = self.deep // plan.parts * self.size + CHUNK

    @property
    def part_bytes(self) -> int:
        return ROWS * self.part_pitch

    def setup(self, word: Word) -> list[str]:
        return [
            f"state_left = (lane & 15) * {self.part_pitch} + (lane >> 4) * {CHUNK}",
            *(self._weights(word) if self.plan.resident else self._unit()),
            *self.products.declare(),
        ]

    def place(self) -> list[str]:
        return [
            "n = first + (lane >> 2) + (e >> 1) * 8",
            f"j = own + warp * {UNITS} + (lane & 3) * 2 + (e & 1)",
        ]

    def clear(self) -> list[str]:
        return self.products.clear()

    def value(self, row: int) -> str:
        return self.products.value(f"{4 * row} + e" if row else "e")

    def state_place(self) -> str:
        return f"r * {self.part_pitch} + q * {CHUNK}"

    def multiply(self, word: Word) -> list[str]:
        steps = self.deep * self.size // STEP // self.parts
        return loop("k", "0", str(steps), [
            f"a[0], a[1], a[2], a[3] = ldmatrix_x4(stage + state_left + k * {STEP})",
            *self.products.prepare("a"),
            *loop("j", "0", str(self.columns), self._right(word, f"(part * {steps} + k)")),
            *self.products.prepare("b"),
            *self.products.multiply(),
        ])  # fmt: skip

    def _weights(self, word: Word) -> list[str]:
        """Copies the block's weights to shared memory, a row for every warp, fragment and unit, and sets where this
        lane's part of the warp's begins."""
        words = self.deep // self.per_word
        lines = [
            f"row = quotient(n, {words})",
            f"word = n - row * {words}",
            f"tile = quotient(row, {self.columns * UNITS})",
            f"part = quotient(row, {UNITS}) - tile * {self.columns}",
            f"unit = minimum(own + tile * {UNITS} + (row & {UNITS - 1}), hidden - 1)",
            *word("part", f"word * {self.per_word}"),
            f"st_shared_u32(shared + row * {self.pitch} + word * 4, found)",
        ]
        rows = self.units * self.columns
        return [
            f"for n in range(thread, {rows * words}, {self.threads}):",
            *indent(lines),
            f"weight_right = shared + (warp * {self.columns * UNITS} + (lane & 7)) * {self.pitch} "
            f"+ (lane >> 3 & 1) * {CHUNK}",
        ]

    def _unit(self) -> list[str]:
        """Sets ``unit``, whose weights this lane reads for the right operand."""
        return [f"unit = minimum(own + warp * {UNITS} + (lane >> 2), hidden - 1)"]

    def _right(self, word: Word, step: str) -> list[str]:
        """Loads the right operand of fragment ``j`` for step ``step`` of the whole depth."""
        if self.plan.resident:
            return [f"b[2 * j], b[2 * j + 1] = ldmatrix_x2(weight_right + j * {UNITS * self.pitch} + {step} * {STEP})"]
        first = f"{step} * {STEP // self.size} + (lane & 3) * {self.per_word}"
        lines: list[str] = []
        for i in range(2):
            lines += [*word("j", f"{first} + {i * CHUNK // self.size}"), f"b[2 * j + {i}] = found"]
        return lines
