"""One step of a recurrence for one example and one hidden unit, as source text for a thread."""

from __future__ import annotations

from collections.abc import Callable

from engine.cells import needed
from runtime.emit import cast, indent, load, store
from runtime.recurrence_arrays import Arrays

Put = Callable[[str], list[str]]
"""Lines that keep a value."""


class Steps(Arrays):
    """Text about example ``n``, unit ``j``, the ``step``-th step, at position ``t``."""

    def get(self, name: str, index: str = "j", t: str = "t") -> str:
        """An element of the row of example n."""
        access = self.arrays[name]
        found = load(access.dtype, self.place(name, t), index, self.table.scope(access.buffer))
        return cast(found, access.dtype.computed, self.dtype)

    def keep(self, name: str, value: str, index: str = "j") -> list[str]:
        """Writes an element of an output, if anybody reads it."""
        if name not in self.made:
            return []
        access = self.made[name]
        return [store(access.dtype, self.place(name), index, value, self.table.scope(access.buffer))]

    def bias(self, gate: int) -> str:
        access = self.given["bias"]
        return load(access.dtype, "bias_base", self.part(gate), self.table.scope(access.buffer))

    def forward_cell(self, z: list[str], h: str, c: str, put_h: Put, put_c: Put) -> list[str]:
        """The state after a step, from the recurrent products ``z`` and the state ``h`` and ``c`` before; and what is
        written of it. With a projection ``put_h`` gets what is projected, and the state is up to the caller."""
        cell, known = self.cell, {}
        sources = {"h": h, "c": c}
        for k in range(self.gates):
            sources |= {f"x{k}": self.get("x", self.part(k)), f"z{k}": z[k]}
            if cell.biased:
                sources[f"bias{k}"] = self.bias(k)
        live = []
        for name in needed(cell.forward):
            known[name] = f"v_{name}"
            live.append(f"v_{name} = {sources[name]}")
        live += [*self.compute(cell.forward, known), *put_h(known["h_next"])]
        beyond = put_h(self.zero() if self.projected else h)
        if not self.projected:
            live += self.keep("hs", known["h_next"])
            beyond += self.keep("hs", h)
        if cell.memory:
            live += [*put_c(known["c_next"]), *self.keep("cs", known["c_next"])]
            beyond += self.keep("cs", c)
        for k, name in enumerate(cell.saved):
            live += self.keep("saved", known[name], self.part(k))
            beyond += self.keep("saved", self.zero(), self.part(k))
        return self.if_live(live, beyond)

    def backward_cell(self, dh: str, dc: str, put_dz: Callable[[int, str], list[str]], put_direct: Put,
                      put_dc: Put) -> list[str]:  # fmt: skip
        """The gradients at a step of inputs and recurrent products, from those of the state after it. ``put_direct``
        gets what reaches the state before without passing the weights; with a projection that is up to the caller."""
        cell, wanted = self.cell, needed(self.cell.backward)
        sources = {"dh": dh, "dc": dc} | {n: self.get("saved", self.part(k)) for k, n in enumerate(cell.saved)}
        lines = []
        for name, every in (("h", "hs"), ("c", "cs")):
            if f"{name}_next" in wanted:
                sources[f"{name}_next"] = self.get(every)
            if name in wanted:
                first = self.get(name) if name in self.given else self.zero()
                lines += [
                    f"{name}_before = {self.zero()}",
                    "if step < steps - 1:",
                    f"    {name}_before = {self.get(every, t='(t + onward)')}",
                    *(["else:", f"    {name}_before = {first}"] if name in self.given else []),
                ]
                sources[name] = f"{name}_before"
        known = {name: f"v_{name}" for name in wanted}
        live = [*lines, *(f"v_{name} = {sources[name]}" for name in wanted), *self.compute(cell.backward, known)]
        beyond = []
        inward = "dz" if cell.apart else "dx"
        for k in range(self.gates):
            live += put_dz(k, known[f"{inward}{k}"])
            beyond += put_dz(k, self.zero())
            for name in ("dx", "dz") if cell.apart else ("dx",):
                live += self.keep(name, known[f"{name}{k}"], self.part(k))
                beyond += self.keep(name, self.zero(), self.part(k))
        if not self.projected:
            live += put_direct(known.get("dh_direct", self.zero()))
            beyond += put_direct(dh)
        if cell.memory:
            live += put_dc(known["dc_before"])
        return self.if_live(live, beyond)

    def each(self, size: str, body: list[str], threads: int) -> list[str]:
        """``body`` for every example of ``rows`` from ``first``, and every ``j`` below ``size``, shared by threads."""
        return [
            f"for item in range(thread, rows * {size}, {threads}):",
            *indent([f"r = quotient(item, {size})", f"j = item - r * {size}", "n = first + r", *body]),
        ]
