"""A recurrence of any dtype and size on the GPU: a block walks a few examples through time, with plain multiply-adds.

What a step leaves for the next one lies in global memory; only the block's own threads read it.
"""

from __future__ import annotations

from dataclasses import replace

from engine.buffers import Buffer
from engine.dims import Size, ceil_div
from engine.program import Lowered, Pointer
from engine.schedule import KernelSpec, Recurrence
from runtime.cuda.emit import kernel
from runtime.cuda.recurrence_cell import Steps
from runtime.emit import call, cast, load, loop, store

ROWS = 4
"""Examples of a block."""
THREADS = 256


def lower_recurrence_plain(spec: KernelSpec, core: Recurrence) -> Lowered:
    """The call for ``spec``, whose core is ``core``."""
    return (_Backward(spec, core) if core.backward else _Forward(spec, core)).lowered()


class _Walk(Steps):
    """What both directions share. ``pieces`` are what a step leaves for the next: for each example so many numbers."""

    pieces: dict[str, Size]

    def walk(self) -> list[str]:
        raise NotImplementedError

    def lowered(self) -> Lowered:
        walk = self.walk()
        buffers = [
            Buffer(f"{self.spec.name}.{name}", "temp", self.dtype, self.core.batch * size)
            for name, size in self.pieces.items()
        ]
        self.table.declare(**{b.name.rsplit(".")[-1]: Pointer(b.name) for b in buffers})
        for name in ("weight", "projection"):
            if name in self.given:
                access = self.given[name]
                self.table.declare(**{f"{name}_base": Pointer(access.buffer, access.offset * access.dtype.itemsize)})
                self.table.declare(**{f"{name}_{a}": s for a, s in zip("rc", access.strides, strict=True)})
        lines = [
            "thread = cuda.threadIdx.x",
            f"first = cuda.blockIdx.x * {ROWS}",
            f"rows = minimum({ROWS}, batch - first)",
            *walk,
        ]
        code = kernel(f"{self.spec.name}_plain", lines, self.table, threads=THREADS)
        found = call(self.spec, code, self.table, ceil_div(self.core.batch, ROWS))
        names = tuple(b.name for b in buffers)
        found = replace(found, reads=(*found.reads, *names), writes=(*found.writes, *names))
        return Lowered((found,), (code,), tuple(buffers))

    def have(self, piece: str, index: str = "j", half: str = "") -> str:
        """Element ``index`` of what example n has in a piece, or in that ``half`` of it."""
        return load(self.dtype, piece, self._at(piece, index, half), self.table.scope(f"{self.spec.name}.{piece}"))

    def leave(self, piece: str, value: str, index: str = "j", half: str = "") -> str:
        at = self._at(piece, index, half)
        return store(self.dtype, piece, at, value, self.table.scope(f"{self.spec.name}.{piece}"))

    def _at(self, piece: str, index: str, half: str) -> str:
        size = {"state": "width", "outward": "width", "dstate": "width", "inward": f"{self.gates} * hidden"}
        row = f"n * {size.get(piece, 'hidden')}" if not half else f"({half} * batch + n) * width"
        return f"{row} + {index}"

    def weight(self, name: str, row: str, column: str) -> str:
        access = self.given[name]
        at = f"({row}) * {name}_r + ({column}) * {name}_c"
        return cast(
            load(access.dtype, f"{name}_base", at, self.table.scope(access.buffer)), access.dtype.computed, self.dtype
        )

    def items(self, size: str, body: list[str]) -> list[str]:
        return self.each(size, body, THREADS)

    def initial(self, piece: str, name: str, size: str, half: str = "") -> list[str]:
        """A piece as it is before the first step: the array ``name`` where it is given, else zeros."""
        return self.items(size, [self.leave(piece, self.get(name) if name in self.given else self.zero(), half=half)])

    def final(self, piece: str, name: str, size: str, half: str = "") -> list[str]:
        return self.items(size, self.keep(name, self.have(piece, half=half))) if name in self.made else []


class _Forward(_Walk):
    def walk(self) -> list[str]:
        self.pieces = {"state": 2 * self.width}
        self.pieces |= {"memory": self.hidden} if self.cell.memory else {}
        self.pieces |= {"inner": self.hidden} if self.projected else {}
        z = [f"z{k}" for k in range(self.gates)]
        state = self.have("state", "p", "half")
        deep = "width" if "h" in self.given else "width * minimum(step, 1)"
        after = "inner" if self.projected else "state"
        step = [
            "t = begin + step * onward",
            "half = step & 1",
            *self.items("hidden", [
                *(f"{name} = {self.zero()}" for name in z),
                *loop("p", "0", deep, [
                    f"s = {state}",
                    *(f"{name} += s * {self.weight('weight', self.part(k), 'p')}" for k, name in enumerate(z)),
                ]),
                *self.forward_cell(
                    z, self.have("state", half="half") if not self.projected else self.zero(),
                    self.have("memory") if self.cell.memory else "",
                    lambda value: [self.leave(after, value, half="" if self.projected else "(1 - half)")],
                    lambda value: [self.leave("memory", value)],
                ),
            ]),
            "cuda.syncthreads()",
            *(self._project() if self.projected else []),
        ]  # fmt: skip
        return [
            *self.initial("state", "h", "width", "0"),
            *(self.initial("memory", "c", "hidden") if self.cell.memory else []),
            "cuda.syncthreads()",
            *loop("step", "0", "steps", step),
            *self.final("state", "h_last", "width", "(steps & 1)"),
            *(self.final("memory", "c_last", "hidden") if self.cell.memory else []),
        ]

    def _project(self) -> list[str]:
        """The state after a step, from what the cell made."""
        new = [
            f"value = {self.zero()}",
            *loop("e", "0", "hidden", [f"value += {self.have('inner', 'e')} * {self.weight('projection', 'j', 'e')}"]),
        ]
        body = [*self.if_live(new, [f"value = {self.have('state', half='half')}"]),
                self.leave("state", "value", half="(1 - half)"), *self.keep("hs", "value")]  # fmt: skip
        return [*self.items("width", body), "cuda.syncthreads()"]


class _Backward(_Walk):
    def walk(self) -> list[str]:
        self.pieces = {"dstate": self.width, "inward": self.gates * self.hidden}
        self.pieces |= {"dmemory": self.hidden} if self.cell.memory else {}
        self.pieces |= {"outward": self.width} if self.projected else {}
        arriving = self.have("dstate") + (f" + {self.get('g_hs')}" if "g_hs" in self.given else "")
        cell = self.backward_cell(
            "dinner" if self.projected else "arriving",
            self.have("dmemory") if self.cell.memory else "",
            lambda k, value: [self.leave("inward", value, self.part(k))],
            lambda value: [self.leave("dstate", value)],
            lambda value: [self.leave("dmemory", value)],
        )
        step = ["t = begin + step * onward"]
        if self.projected:
            live = [f"arriving = {arriving}", self.leave("outward", "arriving"), self.leave("dstate", self.zero()),
                    *self.keep("dhs", "arriving")]  # fmt: skip
            beyond = [f"arriving = {arriving}", self.leave("outward", self.zero()), self.leave("dstate", "arriving"),
                      *self.keep("dhs", self.zero())]  # fmt: skip
            inner = f"dinner += {self.have('outward', 'p')} * {self.weight('projection', 'p', 'j')}"
            cell = [f"dinner = {self.zero()}", *loop("p", "0", "width", [inner]), *cell]
            step += [*self.items("width", self.if_live(live, beyond)), "cuda.syncthreads()"]
        else:
            cell = [f"arriving = {arriving}", *cell]
        deep = f"{self.gates} * hidden" + ("" if "dh" in self.made else " * minimum(steps - 1 - step, 1)")
        term = f"sum += {self.have('inward', 'q')} * {self.weight('weight', 'q', 'j')}"
        step += [
            *self.items("hidden", cell),
            "cuda.syncthreads()",
            *self.items("width", [
                f"sum = {self.zero()}", *loop("q", "0", deep, [term]),
                self.leave("dstate", f"{self.have('dstate')} + sum"),
            ]),
            "cuda.syncthreads()",
        ]  # fmt: skip
        return [
            *self.initial("dstate", "g_h", "width"),
            *(self.initial("dmemory", "g_c", "hidden") if self.cell.memory else []),
            "cuda.syncthreads()",
            *loop("step", "0", "steps", step),
            *self.final("dstate", "dh", "width"),
            *(self.final("dmemory", "dc", "hidden") if self.cell.memory else []),
        ]
