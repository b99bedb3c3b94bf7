"""Lowering a recurrence: one kernel walks all steps, forward or backward, with the states in the thread's scratch.

The recurrent weights are packed once. A task is a few examples; a thread takes all of its tasks at once, in blocks of
examples. At each step the microkernel multiplies the states of a block with the weights, and the cell's scalar
expressions follow on the products while they are in the cache. Few examples would leave threads without any, and each
step reads all weights for them: then the tasks forward are some of the hidden units instead, all gates of a unit
together, so each thread's cache holds a part of the weights; the states lie in shared memory, and the threads meet at
every step. Every element is computed in the same order whatever the block: results do not depend on the number of
threads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.buffers import Buffer
from engine.cells import needed
from engine.dims import Size, ceil_div
from engine.program import MEETING, Lowered, Pointer
from engine.schedule import KernelSpec, Recurrence
from runtime.cpu.emit import kernel
from runtime.cpu.packing import Axis, Packed, Panels, pack
from runtime.cpu.scratch import scratch_lines, scratch_parts
from runtime.cpu.tiles import host_tile
from runtime.emit import call, cast, indent, load, loop, note, store
from runtime.recurrence_arrays import Arrays

TASK = 4
"""Examples of a task."""
BLOCK = 32
"""The most examples that a thread walks through time together."""
FEW = 16
"""Up to so many examples tasks are hidden units."""
WORTH_MEETING = 96 * 1024
"""The least bytes of weights for which that is worth a meeting of all threads at every step."""


def lower_recurrence(spec: KernelSpec, core: Recurrence) -> Lowered:
    """The calls that pack the weights, and the one that walks the steps."""
    return (_Backward(spec, core) if core.backward else _Forward(spec, core)).lowered()


@dataclass
class _Piece:
    """A part of the scratch memory: ``rows`` of ``size`` elements."""

    rows: int
    size: int


class _Walk(Arrays):
    """What both directions share. ``pieces`` are parts of the scratch memory, in elements of the computed dtype."""

    pieces: dict[str, _Piece]
    units: tuple[str, str] = ("0", "hidden")
    """The hidden units that a thread computes."""

    def __init__(self, spec: KernelSpec, core: Recurrence):
        super().__init__(spec, core)
        self.tile = host_tile(self.dtype)
        self.heights = (self.tile.rows, self.tile.rows // 2, 1)
        self.tiles = [self.tile.name(self.dtype, rows, True, True) for rows in self.heights]
        self.packs: list[Packed] = []

    def whole(self, size: int) -> int:
        """``size`` filled up to whole panels."""
        return -(-size // self.tile.columns) * self.tile.columns

    def lowered(self) -> Lowered:
        share, tasks = self.share()
        body = self.block()
        self.table.declare(**{f"{name}_step": p.size * self.dtype.itemsize for name, p in self.pieces.items()})
        parts = scratch_parts(
            {name: p.rows * p.size * self.dtype.itemsize for name, p in self.pieces.items()}
            | {f"{name}_rows": size for name, size in self.tabled().items()}
        )
        lines = [
            *scratch_lines(parts, self.table),
            *self.once(),
            *share,
            f"for first in range(least, last, {BLOCK}):",
            *indent([f"rows = minimum({BLOCK}, last - first)", *body]),
        ]
        modules = {"runtime.cpu.microkernel": self.tiles, "runtime.cpu.meeting": ["meet"]}
        code = kernel(self.spec.name, lines, self.table, modules=modules)
        walk = call(self.spec, code, self.table, tasks, parts["end"])
        shared = self.shared()
        walk = replace(walk, reads=(*walk.reads, *(p.buffer.name for p in self.packs), *(b.name for b in shared)),
                       writes=(*walk.writes, *(b.name for b in shared)))  # fmt: skip
        kernels = {k.key: k for k in (*(p.kernel for p in self.packs), code)}
        buffers = (*(p.buffer for p in self.packs), *shared)
        return Lowered((*(p.call for p in self.packs), walk), tuple(kernels.values()), buffers)

    # -- to be given by the direction

    def block(self) -> list[str]:
        """The lines that walk one block of examples through time."""
        raise NotImplementedError

    def tabled(self) -> dict[str, int]:
        """The pieces whose rows the microkernel reads, and the bytes of the tables of these rows."""
        raise NotImplementedError

    def share(self) -> tuple[list[str], Size]:
        """Lines that say which examples, from ``least`` to ``last``, tasks ``lo`` to ``hi`` are, and how many tasks
        there are."""
        return [f"least = lo * {TASK}", f"last = minimum(hi * {TASK}, batch)"], ceil_div(self.core.batch, TASK)

    def shared(self) -> list[Buffer]:
        """The memory that the threads share."""
        return []

    def once(self) -> list[str]:
        """Lines before the first block."""
        return []

    # -- memory

    def scratch(self, name: str) -> int:
        return self.table.scope(f"$scratch.{name}")

    def piece_row(self, name: str) -> str:
        """Sets ``<name>_row`` to row r of a piece."""
        return f"{name}_row = {name} + r * {name}_step"

    def get(self, name: str, index: str = "j") -> str:
        """An element of the current row of a piece, or of an array."""
        if name in self.pieces:
            return load(self.dtype, f"{name}_row", index, self.scratch(name))
        dtype = self.arrays[name].dtype
        return cast(load(dtype, f"{name}_row", index, self.table.scope(self.arrays[name].buffer)), dtype, self.dtype)

    def put(self, name: str, value: str, index: str = "j") -> str:
        if name in self.pieces:
            return store(self.dtype, f"{name}_row", index, value, self.scratch(name))
        access = self.arrays[name]
        return store(access.dtype, f"{name}_row", index, value, self.table.scope(access.buffer))

    def keep(self, name: str, value: str, index: str = "j") -> list[str]:
        """Stores into an output, if anybody reads it."""
        return [self.put(name, value, index)] if name in self.made else []

    def array_row(self, name: str, t: str = "t") -> str:
        """Sets ``<name>_row`` to the row of example n, at step ``t`` where it has steps."""
        return f"{name}_row = {self.place(name, t)}"

    # -- parts of the walk

    def each_row(self, body: list[str]) -> list[str]:
        return loop("r", "0", "rows", ["n = first + r", *body])

    @property
    def table_bytes(self) -> int:
        return (BLOCK + self.tile.rows) * 8

    def row_table(self, name: str, table: str = "") -> list[str]:
        at = f"{name} + minimum(r, rows - 1) * {name}_step"
        return loop("r", "0", f"rows + {self.tile.rows - 1}",
                    [note(table or f"{name}_rows", "r", at, self.scratch(f"{name}_rows"))])  # fmt: skip

    def product(self, left: str, weights: str, turned: bool, out: str, deep: str = "", add: bool = False) -> list[str]:
        """``out = left @ weights``, or with its transpose, row by row; only over ``deep`` terms where given. The sizes
        are those of the array ``weights``."""
        access = self.given[weights]
        shape = {"weight": (self.gates * self.hidden, self.width), "projection": (self.width, self.hidden)}[weights]
        depth, columns = shape[::-1] if turned else shape
        k_stride, n_stride = access.strides[::-1] if turned else access.strides
        wide = self.tile.columns
        panels = Panels(access.buffer, access.offset, access.dtype, (), [Axis(depth, k_stride)],
                        Axis(columns, n_stride), wide, self.dtype)  # fmt: skip
        packed = pack(panels, f"{self.spec.name}.{weights}", f"{weights} of {self.spec.name}", self.spec.nodes)
        self.packs.append(packed)
        self.table.declare(**{f"{weights}_panels": Pointer(packed.buffer.name)})
        self.table.declare(**{f"{weights}_depth": depth, f"{weights}_columns": columns})
        size = self.dtype.itemsize
        rows = "state_table" if left == "state" and self.units[0] != "0" else f"{left}_rows"
        arguments = (
            f"(1, {deep or f'{weights}_depth'}, {size}, {rows} + r * 8, panel, {wide * size}, "
            f"{out} + r * {out}_step + c * {size}, {out}_step, {int(add)})"
        )
        big, middle, small = (f"{name}{arguments}" for name in self.tiles)
        column = [
            f"for r in range(0, rows, {self.heights[0]}):",
            f"    if rows - r > {self.heights[1]}:",
            f"        {big}",
            "    elif rows - r > 1:",
            f"        {middle}",
            "    else:",
            f"        {small}",
            f"panel += {weights}_depth * {wide * size}",
        ]
        if self.units[0] == "0":
            return [f"panel = {weights}_panels", f"for c in range(0, {weights}_columns, {wide}):", *indent(column)]
        return [
            f"for gate in range({self.gates}):",
            f"    panel = {weights}_panels + (gate * hidden + {self.units[0]}) * {weights}_depth * {size}",
            f"    for c in range(gate * hidden + {self.units[0]}, gate * hidden + {self.units[1]}, {wide}):",
            *indent(column, 2),
        ]


class _Forward(_Walk):
    def __init__(self, spec: KernelSpec, core: Recurrence):
        super().__init__(spec, core)
        hidden, width = self.hidden, self.tile.columns
        self.states = f"{spec.name}.states"
        self.parts = 0
        """How many tasks hidden units make, where they may be tasks."""
        if isinstance(hidden, int) and not self.projected and hidden % width == 0:
            size = self.gates * hidden * hidden * self.dtype.itemsize
            if size >= WORTH_MEETING:
                self.parts, self.units = hidden // width, ("left", "right")

    def tabled(self) -> dict[str, int]:
        found = {"state": self.table_bytes * (2 if self.parts else 1)}
        return found | ({"inner": self.table_bytes} if self.projected else {})

    def share(self) -> tuple[list[str], Size]:
        lines, tasks = super().share()
        if not self.parts:
            return lines, tasks
        few = (2 // (ceil_div(self.core.batch, FEW) + 1) + 1) // 2  # 1 or 0
        half = FEW * self.whole(self.width) * self.dtype.itemsize
        self.table.declare(few=few, parts=self.parts, states=Pointer(self.states), half=half, meeting=Pointer(MEETING))
        lines = [
            f"least = 0 if few != 0 else lo * {TASK}",
            f"last = batch if few != 0 else minimum(hi * {TASK}, batch)",
            f"left = lo * {self.tile.columns} if few != 0 else 0",
            f"right = hi * {self.tile.columns} if few != 0 else hidden",
        ]
        return lines, few * self.parts + (1 - few) * tasks

    def shared(self) -> list[Buffer]:
        """Two places for the states of all threads: they are read from one while the next are written to the other."""
        return [Buffer(self.states, "temp", self.dtype, 2 * FEW * self.whole(self.width))] if self.parts else []

    def turn(self, step: str) -> list[str]:
        """Lines that set where the states before and after this step are."""
        if not self.parts:
            return []
        return [
            f"state = first_state + ({step} & 1) * turned",
            f"after = first_state + (1 - ({step} & 1)) * turned",
            f"state_table = state_rows + ({step} & 1) * {self.table_bytes}",
        ]

    def meet(self) -> list[str]:
        return ["if few != 0 and hi - lo < parts:", "    meet(meeting, hi - lo, parts)"] if self.parts else []

    def block(self) -> list[str]:
        cell = self.cell
        self.pieces = {
            "state": _Piece(BLOCK, self.width),
            "product": _Piece(BLOCK, self.whole(self.gates * self.hidden)),
        }
        if cell.memory:
            self.pieces["memory"] = _Piece(BLOCK, self.hidden)
        if self.projected:
            self.pieces |= {"inner": _Piece(BLOCK, self.hidden), "projected": _Piece(BLOCK, self.whole(self.width))}
        deep = "" if "h" in self.given else "minimum(step, 1) * weight_depth"
        step = [
            "t = begin + step * onward",
            *self.turn("step"),
            *self.product("state", "weight", True, "product", deep),
            *self.each_row(self._gates()),
            *self.meet(),
        ]
        if self.projected:
            step += [*self.product("inner", "projection", True, "projected"), *self.each_row(self._project())]
        if self.parts:
            begin = ["first_state = states if few != 0 else state", "turned = half if few != 0 else 0"]
            for place in ("1", "0"):
                begin += [*self.turn(place), *self.row_table("state", "state_table")]
            begin += [*self.each_row(self._begin()), *self.meet()]
        else:
            begin = self.each_row(self._begin())
            begin += [line for name in self.tabled() for line in self.row_table(name)]
        return [*begin, *loop("step", "0", "steps", step), *self.turn("steps"), *self.each_row(self._end())]

    def _states(self) -> list[tuple[str, str, str, str, str]]:
        """For each kind of state: its piece, where it starts, the array of all of them, of the last, and its size."""
        found = [("state", "h", "hs", "h_last", "width")]
        return [*found, ("memory", "c", "cs", "c_last", "hidden")] if self.cell.memory else found

    def span(self, size: str) -> tuple[str, str]:
        """The part of a row of a state that this thread has: all of a projected one."""
        return ("0", size) if size == "width" and self.projected else self.units

    def put_after(self, value: str) -> str:
        """Stores an element of the state after the step, which without shared memory takes the place of that before."""
        row = "after_row" if self.parts else "state_row"
        return store(self.dtype, row, "j", value, self.scratch("after" if self.parts else "state"))

    def _begin(self) -> list[str]:
        lines = []
        for piece, start, _, _, size in self._states():
            value = self.zero()
            if start in self.given:
                value = self.get(start)
                lines.append(self.array_row(start))
            lines += [self.piece_row(piece), *loop("j", *self.span(size), [self.put(piece, value)])]
        return lines

    def _end(self) -> list[str]:
        lines = []
        for piece, _, _, last, size in self._states():
            if last in self.made:
                lines += [self.piece_row(piece), self.array_row(last)]
                lines += loop("j", *self.span(size), [self.put(last, self.get(piece))])
        return lines

    def _gates(self) -> list[str]:
        """The cell's expressions for one example."""
        cell, wanted = self.cell, needed(self.cell.forward)
        rows = ["x", *(n for n in ("hs", "cs", "saved") if n in self.made)]
        pieces = [n for n in ("state", "memory", "product", "inner") if n in self.pieces]
        body, known = [], {}
        sources = {"h": self.get("state")} | ({"c": self.get("memory")} if cell.memory else {})
        for k in range(self.gates):
            sources |= {f"x{k}": self.get("x", self.part(k)), f"z{k}": self.get("product", self.part(k))}
        lines = []
        if cell.biased:
            lines.append("bias_row = bias_base")
            sources |= {f"bias{k}": self.get("bias", self.part(k)) for k in range(self.gates)}
        for name in wanted:
            known[name] = f"v_{name}"
            body.append(f"v_{name} = {sources[name]}")
        body += self.compute(cell.forward, known)
        if self.projected:
            body.append(self.put("inner", known["h_next"]))
        else:
            body += [self.put_after(known["h_next"]), *self.keep("hs", known["h_next"])]
        if cell.memory:
            body += [self.put("memory", known["c_next"]), *self.keep("cs", known["c_next"])]
        for k, name in enumerate(cell.saved):
            body += self.keep("saved", known[name], self.part(k))
        beyond = []
        for piece, _, every, _, size in self._states():
            if every in self.made and not (piece == "state" and self.projected):
                beyond += loop("j", *self.span(size), [self.put(every, self.get(piece))])
        if self.parts:
            beyond += loop("j", *self.units, [self.put_after(self.get("state"))])
        if self.projected:
            beyond += loop("j", "0", "hidden", [self.put("inner", self.zero())])
        if "saved" in self.made:
            beyond += loop("j", "0", f"{len(cell.saved)} * hidden", [self.put("saved", self.zero())])
        lines += [self.array_row(name) for name in rows] + [self.piece_row(name) for name in pieces]
        if self.parts:
            lines.append("after_row = after + r * state_step")
        return [*lines, *self.if_live(loop("j", *self.units, body), beyond or ["pass"])]

    def _project(self) -> list[str]:
        """The state after a step, for one example."""
        lines = [self.piece_row("state"), self.piece_row("projected")]
        lines += [self.array_row("hs")] if "hs" in self.made else []
        new = [f"value = {self.get('projected')}", self.put("state", "value"), *self.keep("hs", "value")]
        old = self.keep("hs", self.get("state")) or ["pass"]
        return [*lines, *self.if_live(loop("j", "0", "width", new), loop("j", "0", "width", old))]


class _Backward(_Walk):
    def tabled(self) -> dict[str, int]:
        return dict.fromkeys(("inward", "outward") if self.projected else ("inward",), self.table_bytes)

    @property
    def before(self) -> dict[str, tuple[str, str]]:
        """The states before a step that the cell needs: the array of all, and of the first where it is given."""
        wanted = needed(self.cell.backward)
        return {name: (every, name) for name, every in (("h", "hs"), ("c", "cs")) if name in wanted}

    def once(self) -> list[str]:
        if all(first in self.given for _, first in self.before.values()):
            return []
        every = next(every for every, first in self.before.values() if first not in self.given)
        dtype = self.arrays[every].dtype
        zeros = [store(dtype, "nothing", "j", self.zero(), self._scope_before())]
        return loop("j", "0", "hidden", zeros)

    def _scope_before(self) -> int:
        """The alias scope of states before a step, wherever they lie: nothing here writes any of these arrays."""
        return self.table.scope("$before")

    def block(self) -> list[str]:
        self.pieces = {
            "dstate": _Piece(BLOCK, self.whole(self.width)),
            "inward": _Piece(BLOCK, self.gates * self.hidden),
            "nothing": _Piece(1, self.hidden),
        }
        if self.cell.memory:
            self.pieces["dmemory"] = _Piece(BLOCK, self.hidden)
        if self.projected:
            self.pieces |= {"outward": _Piece(BLOCK, self.width), "dinner": _Piece(BLOCK, self.whole(self.hidden))}
        step = ["t = begin + step * onward"]
        if self.projected:
            step += [*self.each_row(self._outward()), *self.product("outward", "projection", False, "dinner")]
        deep = "" if "dh" in self.made else "minimum(steps - 1 - step, 1) * weight_depth"
        step += [*self.each_row(self._gates()), *self.product("inward", "weight", False, "dstate", deep, add=True)]
        return [
            *self.each_row(self._begin()),
            *(line for name in self.tabled() for line in self.row_table(name)),
            *loop("step", "0", "steps", step),
            *self.each_row(self._end()),
        ]

    def _states(self) -> list[tuple[str, str, str, str]]:
        """For each kind of state the piece of its gradient, the arrays where that starts and ends, and its size."""
        found = [("dstate", "g_h", "dh", "width")]
        return [*found, ("dmemory", "g_c", "dc", "hidden")] if self.cell.memory else found

    def _begin(self) -> list[str]:
        lines = []
        for piece, start, _, size in self._states():
            lines.append(self.piece_row(piece))
            value = self.zero()
            if start in self.given:
                value = self.get(start)
                lines.append(self.array_row(start))
            lines += loop("j", "0", size, [self.put(piece, value)])
        lines.append(f"padded = quotient(dstate_step, {self.dtype.itemsize})")
        return [*lines, *loop("j", "width", "padded", [self.put("dstate", self.zero())])]

    def _end(self) -> list[str]:
        lines = []
        for piece, _, end, size in self._states():
            if end in self.made:
                lines += [self.piece_row(piece), self.array_row(end)]
                lines += loop("j", "0", size, [self.put(end, self.get(piece))])
        return lines

    def _arriving(self) -> str:
        """The gradient of the state: what comes from later steps, and what from outside."""
        return f"{self.get('dstate')} + {self.get('g_hs')}" if "g_hs" in self.given else self.get("dstate")

    def _outward(self) -> list[str]:
        """The gradient of what the projection made."""
        lines = [self.piece_row("dstate"), self.piece_row("outward")]
        lines += [self.array_row(n) for n in ("g_hs", "dhs") if n in self.arrays]
        sides = []
        for here, rest in (("value", self.zero()), (self.zero(), "value")):
            side = [f"value = {self._arriving()}", self.put("outward", here), self.put("dstate", rest)]
            sides.append(loop("j", "0", "width", [*side, *self.keep("dhs", here)]))
        return [*lines, *self.if_live(*sides)]

    def _gates(self) -> list[str]:
        """The cell's expressions for one example, and the sum of the gradients where it has none."""
        cell, wanted = self.cell, needed(self.cell.backward)
        lines = [self.piece_row(n) for n in ("dstate", "dmemory", "inward", "dinner") if n in self.pieces]
        arrays = [n for n in ("g_hs", "saved", "dx", "dz") if n in self.arrays]
        lines += [self.array_row(n) for n in arrays]
        sources = {"dh": self.get("dinner") if self.projected else self._arriving()}
        if cell.memory:
            sources["dc"] = self.get("dmemory")
        sources |= {n: self.get("saved", self.part(k)) for k, n in enumerate(cell.saved)}
        for name, every in (("h_next", "hs"), ("c_next", "cs")):
            if name in wanted:
                lines.append(self.array_row(every))
                sources[name] = self.get(every)
        for name, (every, first) in self.before.items():
            start = self.place(first) if first in self.given else "nothing"
            earlier = self.place(every, "(t + onward)")
            lines.append(f"{name}_before = {start} if step == steps - 1 else {earlier}")
            dtype = self.arrays[every].dtype
            sources[name] = cast(load(dtype, f"{name}_before", "j", self._scope_before()), dtype, self.dtype)
        known = {name: f"v_{name}" for name in wanted}
        body = [f"v_{name} = {sources[name]}" for name in wanted]
        body += self.compute(cell.backward, known)
        inward = "dz" if cell.apart else "dx"
        for k in range(self.gates):
            body.append(self.put("inward", known[f"{inward}{k}"], self.part(k)))
            body += [self.put(n, known[f"{n}{k}"], self.part(k)) for n in ("dx", "dz") if n in self.made]
        if not self.projected:
            body.append(self.put("dstate", known.get("dh_direct", self.zero())))
        if cell.memory:
            body.append(self.put("dmemory", known["dc_before"]))
        empty = [self.put(n, self.zero()) for n in ("inward", "dx", "dz") if n in self.pieces or n in self.made]
        beyond = loop("j", "0", f"{self.gates} * hidden", empty)
        if not self.projected and "g_hs" in self.given:
            beyond += loop("j", "0", "width", [self.put("dstate", self._arriving())])
        return [*lines, *self.if_live(loop("j", "0", "hidden", body), beyond)]
