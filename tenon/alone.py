"""One kernel as a program of its own, at given sizes: to run it by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from engine.buffers import Buffer
from engine.dims import Size
from engine.dtypes import DType
from engine.program import Arg, Block, BoxMap, Call, Pointer
from engine.records import dataclass

Place = Callable[[str], tuple[str, int]]


def itself(name: str) -> tuple[str, int]:
    """Every buffer is memory of its own."""
    return name, 0


@dataclass(frozen=True)
class Alone:
    """Calls with numbers for sizes: ``number`` gives them. ``place`` says in which memory a buffer lies, of which
    ``dtypes`` has the dtype, and from which element on. Guards are gone."""

    number: Callable[[Size], int]
    dtypes: Mapping[str, DType]
    place: Place = itself

    def call(self, call: Call) -> Call:
        reads, writes = (tuple(dict.fromkeys(self.place(n)[0] for n in names)) for names in (call.reads, call.writes))
        args, tasks = tuple(map(self.argument, call.args)), self.number(call.tasks)
        return replace(call, args=args, tasks=tasks, reads=reads, writes=writes, guard=None)

    def argument(self, arg: Arg) -> Arg:
        if isinstance(arg, Block):
            return Block(tuple(map(self.argument, arg.args)))
        if isinstance(arg, BoxMap):
            at = self.argument(arg.at)
            assert isinstance(at, Pointer)
            shape, strides = (tuple(map(self.number, sizes)) for sizes in (arg.shape, arg.strides))
            return replace(arg, at=at, shape=shape, strides=strides, window=arg.window and arg.window.at(self.number))
        if not isinstance(arg, Pointer):
            return self.number(arg)
        root, start = self.place(arg.buffer)
        offset = self.number(arg.offset)
        return Pointer(root, offset + start * self.dtypes[root].itemsize if start else offset)

    def buffer(self, buffer: Buffer) -> Buffer:
        return replace(buffer, size=self.number(buffer.size))
