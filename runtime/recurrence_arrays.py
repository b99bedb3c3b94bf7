"""What a kernel of a recurrence touches, and what its cell computes, as source text: the same for every backend."""

from __future__ import annotations

from engine import dtypes, scalar
from engine.cells import Lines, names_in
from engine.dtypes import DType
from engine.program import Pointer
from engine.schedule import Access, KernelSpec, Recurrence
from runtime.emit import ArgTable, cast, constant, indent, load, vocabulary


class Arrays:
    """The arrays of one kernel by name. Sizes and strides are arguments of the kernel, and where the steps begin and in
    which direction they go; t and n count steps and examples."""

    def __init__(self, spec: KernelSpec, core: Recurrence):
        self.spec, self.core, self.cell = spec, core, core.cell
        self.given = dict(zip(core.reads, spec.reads, strict=True))
        self.made = dict(zip(core.writes, spec.writes, strict=True))
        self.arrays: dict[str, Access] = self.given | self.made
        self.dtype: DType = self.given["weight"].dtype.computed
        self.gates, self.hidden, self.width = core.cell.gates, core.hidden, core.width
        self.projected = "projection" in self.given
        self.table = ArgTable()
        downward = core.reverse != core.backward
        self.table.declare(
            steps=core.steps, batch=core.batch, hidden=core.hidden, width=core.width,
            begin=core.steps - 1 if downward else 0, onward=-1 if downward else 1,
        )  # fmt: skip
        for name, access in self.arrays.items():
            if name in ("weight", "projection"):
                continue
            self.table.declare(**{f"{name}_base": Pointer(access.buffer, access.offset * access.dtype.itemsize)})
            outer = access.strides[:-1] if name != "lengths" else access.strides
            self.table.declare(**dict(zip([f"{name}_t", f"{name}_n"][2 - len(outer) :], outer, strict=True)))

    def zero(self) -> str:
        return constant(0, self.dtype)

    def place(self, name: str, t: str = "t") -> str:
        """The address of the row of example n, at step ``t`` where the array has steps."""
        access = self.arrays[name]
        at = f"n * {name}_n" if len(access.strides) == 2 else f"{t} * {name}_t + n * {name}_n"
        return f"{name}_base + ({at}) * {access.dtype.itemsize}"

    def part(self, number: int) -> str:
        """Where element j of a gate lies in a row of all gates."""
        return f"{number} * hidden + j" if number > 1 else "hidden + j" if number else "j"

    def if_live(self, live: list[str], beyond: list[str]) -> list[str]:
        """``live`` within the example's length, ``beyond`` behind it."""
        if "lengths" not in self.given:
            return live
        access = self.given["lengths"]
        length = load(access.dtype, "lengths_base", "n * lengths_n", self.table.scope(access.buffer))
        inside = f"t < {cast(length, access.dtype, dtypes.i64)}"
        return [f"if {inside}:", *indent(live), "else:", *indent(beyond)]

    def compute(self, lines: Lines, known: dict[str, str]) -> list[str]:
        """Python lines for the expressions; ``known`` maps names to Python, and gets those that are made."""
        found = []
        for name, expression in lines:
            local = {k: known[k] for k in names_in(expression)}
            for line in scalar.instructions(expression):
                args = [local[a] if isinstance(a, str) else constant(a, self.dtype) for a in line.args]
                local[line.name] = f"v_{name}{line.name}"
                made = args[0] if line.op == "identity" else vocabulary(line.op, args, self.dtype, self.dtype)
                found.append(f"{local[line.name]} = {made}")
            known[name] = local[line.name]
        return found
