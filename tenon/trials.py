"""Kernels by themselves, on made-up memory of the sizes that a call has: what a tuner times."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from engine.buffers import Buffer
from engine.dims import dim
from engine.dtypes import DType, u8
from engine.memory import Sizes
from engine.program import Loop, Lowered, Port, Program
from engine.state import Cell
from passes.assemble import hoisted, lifetimes
from tenon.alone import Alone

TURNS = "turns"
_DRAWN = 4099
"""Made-up numbers before they repeat: a prime, so that rows differ."""


class Ground:
    """Memory for the kernels of a schedule with these ``buffers``, at ``sizes``; of ``lasting`` ones the contents stay
    from call to call. Floats are of a normal distribution, which no arithmetic finds easier than others; whole numbers
    are 0, a valid index of anything; bools are true."""

    def __init__(self, buffers: Mapping[str, Buffer], sizes: Sizes, lasting: Collection[str]):
        self.buffers, self.sizes, self.lasting = buffers, sizes, lasting
        self._cells: dict[str, Cell] = {}

    def cells(self, program: Program) -> dict[str, Cell]:
        """The state of a program of :meth:`program`."""
        for port in program.state:
            if port.name not in self._cells:
                self._cells[port.name] = _made_up(port.dtype, self.sizes(port.shape[0]))
        return {port.name: self._cells[port.name] for port in program.state}

    def program(self, lowered: Lowered) -> Program | None:
        """What ``lowered`` does in each call of the program that it is part of, as often as its one input, an array of
        bytes, is long; None where it does nothing in a call. All memory counts as state, so that nothing is copied."""
        known = {**self.buffers, **{b.name: b for b in lowered.buffers}}
        prepare, main = hoisted(list(lowered.calls), known, self.lasting, checked=True)
        if not main:
            return None
        names = dict.fromkeys(n for c in lowered.calls for n in (*c.reads, *c.writes) if n in self.buffers)
        alone = Alone(self.sizes, {})
        buffers = [Buffer(n, "state", known[n].dtype, self.sizes(known[n].size)) for n in names]
        ports = tuple(Port(b.name, (b.size,), b.dtype, b.name) for b in buffers)
        turns = dim(TURNS)
        buffers += [alone.buffer(known[b.name]) for b in lowered.buffers]
        buffers.append(Buffer(TURNS, "input", u8, turns))
        main = list(map(alone.call, main))
        loops = (Loop(0, len(main), turns, ()),)
        return Program(
            "trial", (Port(TURNS, (turns,), u8, TURNS),), (), ports,
            tuple(n for n in names if any(n in c.writes for c in main)), tuple(buffers), tuple(main),
            tuple(map(alone.call, prepare)), lowered.kernels, lifetimes=lifetimes(main, buffers, loops), loops=loops,
        )  # fmt: skip


def _made_up(dtype: DType, count: int) -> Cell:
    cell = Cell.empty((count,), dtype)
    if dtype.is_float:
        drawn = np.random.default_rng(0).standard_normal(_DRAWN).astype(dtype.numpy)
        cell.array[...] = np.resize(drawn, count)
    else:
        cell.array[...] = dtype.numpy.kind == "b"
    return cell
