"""What the kernels of attention share: blocks of queries against blocks of keys, in the thread's scratch memory.

Scores are kept with the queries side by side: ``[panel][key][query]``, a panel being as many queries as the
microkernel's tile has columns. So the rows of the left operand are keys, read where they lie, and only a block of
queries is packed, turned round. Maxima and sums over keys then run along vectors of queries, and the products with
values, keys or queries read the scores as they are. With ``causal`` each panel ends at its last query's last key.
"""

from __future__ import annotations

from dataclasses import replace

from engine import dtypes
from engine.dims import Size
from engine.program import Lowered
from engine.schedule import Attention, KernelSpec
from runtime.attention_arrays import Arrays
from runtime.cpu.contraction import row_blocks
from runtime.cpu.emit import kernel
from runtime.cpu.scratch import scratch_lines, scratch_parts
from runtime.cpu.tiles import host_tile, transpose_name
from runtime.emit import call, indent, load, loop, note, store, total


class Blocks(Arrays):
    """The source of one kernel. ``queries`` and ``keys`` are the sizes of its blocks."""

    def __init__(self, spec: KernelSpec, core: Attention, queries: int, keys: int):
        super().__init__(spec, core)
        self.tile = host_tile(self.dtype)
        self.wide = self.tile.columns
        self.queries, self.keys = self.whole(queries), keys
        lanes = self.tile.lanes
        self.columns = {
            name: lanes * min(self.tile.vectors, -(-size // lanes))
            for name, size in (("features", core.features), ("width", core.width))
        }
        """The columns of the tiles of products whose columns are features: as few vectors as hold them."""
        self.features = -(-core.features // self.columns["features"]) * self.columns["features"]
        self.width = -(-core.width // self.columns["width"]) * self.columns["width"]
        self.beyond = max(self.tile.rows, -(-self.tile.rows // self.wide) * self.wide)
        """How far behind a panel's last key its scores must be zero: tiles of rows reach into the next panel."""
        self.pieces: dict[str, int] = {}
        self.tables: dict[str, int] = {}
        self.modules: dict[str, dict[str, None]] = {}
        self.table.declare(
            features=core.features, width=core.width, query_block=self.queries, key_block=self.keys,
        )  # fmt: skip

    def whole(self, size: int) -> int:
        """``size`` filled up to whole panels."""
        return -(-size // self.wide) * self.wide

    def lowered(self, body: list[str], tasks: Size, once: list[str]) -> Lowered:
        """The kernel: ``body`` for every task, ``once`` before the first of a call."""
        parts = scratch_parts(
            {name: elements * self.size for name, elements in self.pieces.items()}
            | {name: entries * 8 for name, entries in self.tables.items()}
        )
        head = scratch_lines(parts, self.table)
        modules = {name: list(used) for name, used in self.modules.items()}
        lines = [*head, *once, *loop("task", "lo", "hi", body)]
        code = kernel(self.spec.name, lines, self.table, modules=modules)
        return Lowered((call(self.spec, code, self.table, tasks, parts["end"]),), (code,))

    # -- elements

    def scope(self, piece: str) -> int:
        """The alias scope of a piece of scratch."""
        return self.table.scope(f"$scratch.{piece}")

    def get(self, piece: str, index: str, pointer: str = "") -> str:
        """An element of a piece of scratch, or of what ``pointer`` points at inside it."""
        return load(self.dtype, pointer or piece, index, self.scope(piece))

    def put(self, piece: str, index: str, value: str, pointer: str = "") -> str:
        return store(self.dtype, pointer or piece, index, value, self.scope(piece))

    def entry(self, table: str, index: str, address: str) -> str:
        return note(table, index, address, self.scope(table))

    def exponential(self, value: str) -> str:
        """exp of a number that is not positive: zero where it is nearly, since denormals are slow."""
        least = self.number(-87.0 if self.dtype == dtypes.f32 else -708.0)
        return f"select({value} < {least}, {self.zero()}, exp(maximum({least}, {value})))"

    # -- packing

    def turned(self, name: str, start: str, piece: str, features: str, factor: float = 1.0) -> list[str]:
        """``piece[panel][feature][query] = factor * array[query][feature]`` for ``rows`` queries from ``start``; the
        last panel is filled up with zeros."""
        wide, size, lanes = self.wide, self.size, self.tile.lanes
        square = transpose_name(self.dtype, lanes)
        self.modules.setdefault("runtime.cpu.transpose", {})[square] = None
        element = self.read(name, "row", "e")
        scaled = self.put(piece, "e", f"{self.get(piece, 'e', 'packed')} * {self.number(factor)}", "packed")
        return [
            f"for c in range(0, rows, {wide}):",
            f"    packed = {piece} + c * {features} * {size}",
            f"    fill = minimum({wide}, rows - c)",
            f"    whole = {features} & {-lanes} if fill == {wide} else 0",
            f"    for e in range(0, whole, {lanes}):",
            f"        for i in range(0, {wide}, {lanes}):",
            f"            {square}({start} + (c + i) * {self.step(name)} + e * {size}, {self.step(name)}, "
            f"packed + (e * {wide} + i) * {size}, {wide * size})",
            *indent(loop("i", "0", "fill", [
                f"row = {start} + (c + i) * {self.step(name)}",
                *loop("e", "whole", features, [self.put(piece, f"e * {wide} + i", element, "packed")]),
            ])),
            *indent(loop("i", "fill", str(wide), loop("e", "0", features, [
                self.put(piece, f"e * {wide} + i", self.zero(), "packed")]))),
            *(indent(loop("e", "0", f"{features} * {wide}", [scaled])) if factor != 1 else []),
        ]  # fmt: skip

    def straight(self, name: str, start: str, piece: str, features: str, count: str, height: str,
                 filled: str = "") -> list[str]:  # fmt: skip
        """``piece[panel][position][feature] = array[position][feature]`` for ``count`` positions from ``start``, in
        panels of ``height`` positions, with zeros up to position ``filled`` where given."""
        wide, size = self.columns[features], self.size
        element = self.put(piece, "e", self.read(name, "row", "e"), "packed")
        nothing = self.put(piece, "e", self.zero(), "packed")
        return [
            f"for c in range(0, {features}, {wide}):",
            f"    fill = minimum({wide}, {features} - c)",
            f"    packed = {piece} + c * {height} * {size}",
            f"    row = {start} + c * {size}",
            f"    for r in range({count}):",
            f"        if fill == {wide}:",
            *indent(loop("e", "0", str(wide), [element]), 3),
            "        else:",
            *indent(loop("e", "0", "fill", [element]), 3),
            *indent(loop("e", "fill", str(wide), [nothing]), 3),
            f"        row += {self.step(name)}",
            f"        packed += {wide * size}",
            *(indent(loop("e", "0", f"({filled} - {count}) * {wide}", [nothing])) if filled else []),
        ]

    def addresses(self, table: str, name: str, start: str) -> list[str]:
        """A table of the rows of an array for ``here`` keys from ``start``, for the microkernel."""
        at = f"{start} + minimum(r, here - 1) * {self.step(name)}"
        return loop("r", "0", f"here + {self.tile.rows - 1}", [self.entry(table, "r", at)])

    def query_table(self, table: str, piece: str) -> list[str]:
        """A table of where each query's scores begin in ``piece``."""
        row = f"minimum(r, {self.queries - 1})"
        at = f"quotient({row}, {self.wide})"
        address = f"{piece} + ({at} * {self.keys * self.wide} + {row} - {at} * {self.wide}) * {self.size}"
        return loop("r", "0", str(self.queries + self.tile.rows), [self.entry(table, "r", address)])

    # -- products

    def tiles(self, unit_k: bool, columns: int) -> tuple[list[str], list[int]]:
        """The microkernels of so many columns, by falling height."""
        heights = [self.tile.rows, self.tile.rows // 2]
        tile = replace(self.tile, vectors=columns // self.tile.lanes)
        names = [tile.name(self.dtype, rows, unit_k, True) for rows in heights]
        self.modules.setdefault("runtime.cpu.microkernel", {}).update(dict.fromkeys(names))
        return names, heights

    def against_keys(self, table: str, panel: str, features: str, out: str) -> list[str]:
        """Rows of keys (or values) times a panel of queries: ``seen`` rows at ``out``."""
        wide, size = self.wide, self.size
        call = (
            f"{{tile}}(1, {features}, {size}, {table} + r * 8, {panel}, {wide * size}, "
            f"{out} + r * {wide * size}, {wide * size}, 0)"
        )
        return row_blocks(*self.tiles(True, wide), call, stop="seen")

    def by_queries(self, table: str, panels: str, features: str, out: str, step: int, add: str) -> list[str]:
        """Each query's scores times packed rows of values or keys, for ``rows`` queries: at ``out``."""
        wide, size, columns = self.wide, self.size, self.columns[features]
        call = (
            f"{{tile}}(1, deep, {wide * size}, {table} + r * 8, {panels} + c * here * {size}, {columns * size}, "
            f"{out} + (r * {step} + c) * {size}, {step * size}, {add})"
        )
        names, heights = self.tiles(False, columns)
        last = f"(quotient(minimum(r + {heights[0]}, rows) - 1, {wide}) + 1) * {wide}"
        return [
            f"for r in range(0, rows, {heights[0]}):",
            f"    deep = {self.seen(last)}",
            f"    for c in range(0, {features}, {columns}):",
            f"        if rows - r > {heights[1]}:",
            f"            {call.format(tile=names[0])}",
            "        else:",
            f"            {call.format(tile=names[1])}",
        ]

    # -- scores

    def seen(self, last: str) -> str:
        """How many of the ``here`` keys from ``j0`` are seen by any of the first ``last`` queries from ``first``."""
        return f"maximum(0, minimum(here, first + {last} + shift - j0))" if self.core.causal else "here"

    def masked(self) -> list[str]:
        """Lines that mask the ``seen`` scores of panel ``c`` at ``block``, keys from ``j0``."""
        wide = self.wide
        lines: list[str] = []
        score = self.get("scores", f"j * {wide} + i", "block")
        nothing = self.number(float("-inf"))
        if "mask" in self.arrays:
            access = self.arrays["mask"]
            by_query, by_key = (s != 0 for s in access.strides[2:])
            rows = "fill" if by_query else str(wide)  # no mask is read for queries that fill up the panel
            at = total("i * mask_i" if by_query else "0", "j * mask_j" if by_key else "0")
            here = self.read("mask", "mask_at", at)
            new = f"select({here}, {score}, {nothing})" if access.dtype == dtypes.bool_ else f"{score} + {here}"
            i_at, j_at = ({"i": "(first + c)"} if by_query else {}), ({"j": "j0"} if by_key else {})
            lines += [
                f"fill = minimum({wide}, rows - c)",
                f"mask_at = {self.place('mask', b='b', h='h', **i_at, **j_at)}",
                *loop("j", "0", "seen", loop("i", "0", rows, [self.put("scores", f"j * {wide} + i", new, "block")])),
            ]
        if self.core.causal:
            new = f"select(j - edge <= i, {score}, {nothing})"
            inner = loop("i", "0", str(wide), [self.put("scores", f"j * {wide} + i", new, "block")])
            lines += ["edge = first + c + shift - j0", *loop("j", "maximum(0, edge + 1)", "seen", inner)]
        return lines

    def kept(self, value: str) -> str:
        """``value`` of query i of panel c and key j of a block times its factor."""
        return self.dropped(value, "first + c + i", "j0 + j")
