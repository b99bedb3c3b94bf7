"""Running a schedule on NumPy, kernel by kernel: what compiled kernels are held to, each on the same memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from engine import dims
from engine.buffers import Buffer
from engine.dims import Size
from engine.dtypes import DType
from engine.errors import VerifyError
from engine.random import uniform_reference
from engine.scalar import VOCABULARY
from engine.schedule import Access, Along, Bundle, Item, KernelSpec, Loop, Schedule, Stmt, core_operands

Turns = tuple[int, ...]


class Memory:
    """The buffers of a schedule as flat arrays, ``arrays``; windows stand where the loops around have moved them."""

    def __init__(self, buffers: Iterable[Buffer], sizes: Mapping[str, int], given: Mapping[str, np.ndarray]):
        self.sizes = sizes
        self.buffers = {b.name: b for b in buffers}
        self.arrays: dict[str, np.ndarray] = {}
        for b in self.buffers.values():
            if b.name in given:
                self.arrays[b.name] = np.array(given[b.name], b.dtype.numpy).reshape(-1)
            elif b.kind != "window":
                self.arrays[b.name] = np.zeros(self.size(b.size), b.dtype.numpy)
        self.starts: dict[str, int] = {}

    def size(self, size: Size) -> int:
        return dims.evaluate(size, self.sizes)

    def place(self, name: str) -> tuple[str, int]:
        """The buffer that holds ``name``, itself unless it is a window, and the element at which it starts there."""
        start = 0
        while name in self.starts:
            start += self.starts[name]
            name = self.buffers[name].within
        return name, start

    def move(self, window: str, turn: int) -> None:
        b = self.buffers[window]
        self.starts[window] = self.size(b.start) + self.size(b.step) * (turn % 2 if b.alternates else turn)

    def view(self, access: Access, axes: Sequence[int], first: int = 0) -> np.ndarray:
        """The elements of ``access`` along ``axes``, of extent 1 where they do not move, ``first`` elements further on.

        Raises VerifyError where they lie outside the buffer."""
        root, start = self.place(access.buffer)
        array = self.arrays[root]
        strides = [self.size(s) for s in access.strides]
        extents = [n if s or not n else 1 for n, s in zip(axes, strides, strict=True)]
        start += self.size(access.offset) + first
        if 0 in extents:
            return np.empty(extents, array.dtype)
        reach = [s * (n - 1) for s, n in zip(strides, extents, strict=True)]
        low, high = start + sum(min(r, 0) for r in reach), start + sum(max(r, 0) for r in reach)
        if low < 0 or high >= array.size:
            raise VerifyError(f"{access.buffer} is read or written at elements {low} to {high} of {array.size}")
        steps = [s * array.itemsize for s in strides]
        return np.lib.stride_tricks.as_strided(array[start:], extents, steps)

    def gather(self, access: Access, axes: Sequence[int], further: np.ndarray, first: int = 0) -> np.ndarray:
        """Where the elements of ``access`` lie in its buffer, each ``further`` on. Raises VerifyError as view does."""
        root, start = self.place(access.buffer)
        at = further + (start + self.size(access.offset) + first)
        for i, (n, s) in enumerate(zip(axes, access.strides, strict=True)):
            if s != 0:
                along = [1] * len(axes)
                along[i] = n
                at = at + (np.arange(n) * self.size(s)).reshape(along)
        if at.size and not (at.min() >= 0 and at.max() < self.arrays[root].size):
            raise VerifyError(f"{access.buffer} has {self.arrays[root].size} elements, and {at.max()} is asked for")
        return at

    def over(self, arrays: Mapping[str, np.ndarray]) -> Memory:
        """The same buffers, as far as ``arrays`` has them, with windows where they are now."""
        twin = Memory((), self.sizes, {})
        twin.buffers, twin.starts, twin.arrays = self.buffers, dict(self.starts), dict(arrays)
        return twin


Visit = Callable[[KernelSpec | Bundle, Turns], None]


def run(schedule: Schedule, memory: Memory, visit: Visit | None = None) -> None:
    """Run every kernel on ``memory``, in order. With ``visit(kernel, turns)`` that is to do so, in these turns of the
    loops around it."""
    _run(schedule.kernels, memory, (), visit or (lambda item, turns: execute(item, memory)))


def _run(items: Iterable[Item], memory: Memory, turns: Turns, visit: Visit) -> None:
    for item in items:
        if item.guard is not None and not memory.view(item.guard, ()):
            continue
        if isinstance(item, Loop):
            for turn in range(memory.size(item.times)):
                for window in item.windows:
                    memory.move(window, turn)
                _run(item.kernels, memory, (*turns, turn), visit)
        else:
            visit(item, turns)


def execute(item: KernelSpec | Bundle, memory: Memory) -> None:
    """Run one kernel on ``memory``; its checks of indices pass silently."""
    with np.errstate(all="ignore"):
        for spec in item.parts if isinstance(item, Bundle) else (item,):
            _execute(spec, memory)


def reads(item: KernelSpec | Bundle) -> set[str]:
    """The buffers that a kernel may read, by the names in its spec."""
    found: set[str] = set()
    for spec in item.parts if isinstance(item, Bundle) else (item,):
        found |= {a.buffer for a in spec.reads}
        found |= {a.buffer for a in core_operands(spec.core)}
    return found


def writes(item: KernelSpec | Bundle) -> set[str]:
    """The buffers that a kernel writes, by the names in its spec."""
    return {a.buffer for spec in (item.parts if isinstance(item, Bundle) else (item,)) for a in spec.writes}


def _execute(spec: KernelSpec, memory: Memory) -> None:
    from engine import scheduled_cores

    axes = [memory.size(n) for n in spec.axes]
    if isinstance(spec.core, Along):
        scheduled_cores.along(spec, spec.core, memory, axes)
        return
    core = None if spec.core is None else scheduled_cores.values(spec, spec.core, memory, axes)
    if spec.split is None:
        Points(spec, memory, axes, core).store(spec.body)
        return
    first, chunk = spec.reduced[0], memory.size(spec.split)
    for number, begin in enumerate(range(0, axes[first], chunk)):
        extents = list(axes)
        extents[first] = min(chunk, axes[first] - begin)
        Points(spec, memory, extents, core, {first: begin}, number).store(spec.body)


class Points:
    """The values of a body at all points of a space at once: arrays of its rank, of extent 1 where they are the same
    along an axis. ``begin`` says where axes start that are walked in part, ``chunk`` which part it is."""

    def __init__(
        self,
        spec: KernelSpec,
        memory: Memory,
        axes: Sequence[int],
        core: Callable[[int], np.ndarray] | None,
        begin: Mapping[int, int] | None = None,
        chunk: int = 0,
    ):
        self.spec, self.memory, self.axes, self.core, self.chunk = spec, memory, list(axes), core, chunk
        self.begin = dict(begin or {})
        self.values: dict[str, np.ndarray] = {}

    def run(self, body: Iterable[Stmt]) -> np.ndarray:
        """Every statement's value; returns the last. Stores are left out."""
        value = np.zeros(())
        for s in body:
            if s.op not in ("store", "check_index"):
                value = self.values[s.name] = self._value(s)
        return value

    def store(self, body: Sequence[Stmt]) -> None:
        """Run the body, then write what it stores."""
        self.run(body)
        for s in body:
            if s.op == "store":
                access = self.spec.writes[int(s.args[0])]
                target = self.memory.view(access, self.axes, self._first(access))
                if target.size:
                    target[...] = self.values[str(s.args[1])].astype(target.dtype)

    def _first(self, access: Access) -> int:
        moved = sum(start * self.memory.size(access.strides[a]) for a, start in self.begin.items())
        return moved + self.chunk * self.memory.size(access.chunk_stride)

    def _value(self, s: Stmt) -> np.ndarray:
        wide = s.dtype.computed.numpy
        size = self.memory.size
        match s.op:
            case "load":
                access = self.spec.reads[int(s.args[0])]
                return np.array(self.memory.view(access, self.axes, self._first(access)), wide)
            case "load_at":
                access = self.spec.reads[int(s.args[0])]
                further = self._argument(s.args[1]).astype(np.int64) * size(s.sizes[0])
                at = self.memory.gather(access, self.axes, further, self._first(access))
                return self.memory.arrays[self.memory.place(access.buffer)[0]][at].astype(wide)
            case "core":
                assert self.core is not None
                return self.core(int(s.args[0])).astype(wide)
            case "const":
                return self._scalar(np.asarray(s.args[0]).astype(wide))
            case "size":
                return self._scalar(np.asarray(size(s.sizes[0]), np.int64))
            case "cast":
                return self._argument(s.args[0]).astype(s.dtype.numpy).astype(wide)
            case "index":
                return self._index(s)
            case "uniform":
                seed, step = (int(self._argument(a).reshape(-1)[0]) for a in s.args[:2])
                return uniform_reference(seed, step, int(s.args[2]), self._argument(s.args[3]), s.dtype)
            case "reduce_argmax" | "reduce_argmin":
                return self._position(s)
            case op if op.startswith("reduce_"):
                return self._reduced(op.removeprefix("reduce_"), self._argument(s.args[0]), s.dtype)
        found = VOCABULARY[s.op].numpy(*(self._argument(a) for a in s.args))
        return np.asarray(found).astype(wide)

    def _argument(self, arg: object) -> np.ndarray:
        return self.values[arg] if isinstance(arg, str) else self._scalar(np.asarray(arg))

    def _scalar(self, value: np.ndarray) -> np.ndarray:
        return value.reshape([1] * len(self.axes))

    def _index(self, s: Stmt) -> np.ndarray:
        found = self._scalar(np.zeros((), np.int64))
        for i, (n, factor) in enumerate(zip(self.axes, s.sizes, strict=True)):
            if factor != 0:
                along = [1] * len(self.axes)
                along[i] = n
                numbers = np.arange(n) + self.begin.get(i, 0)
                found = found + (numbers * self.memory.size(factor)).reshape(along)
        return found

    def _whole(self, value: np.ndarray) -> np.ndarray:
        """``value`` with the full extent of the reduced axes."""
        extents = [n if i in self.spec.reduced else value.shape[i] for i, n in enumerate(self.axes)]
        return np.broadcast_to(value, extents)

    def _reduced(self, name: str, value: np.ndarray, dtype: DType) -> np.ndarray:
        function: Any = {
            "sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min, "mean": np.mean, "variance": np.var,
        }[name]  # fmt: skip
        options: dict[str, Any] = {"axis": tuple(self.spec.reduced), "keepdims": True}
        if name not in ("max", "min"):
            options["dtype"] = dtype.computed.numpy
        return np.asarray(function(self._whole(value), **options))

    def _position(self, s: Stmt) -> np.ndarray:
        """Of the first extremum along the reduced axes, NaN first, the value of the second argument."""
        value, index = (self._whole(self._argument(a)) for a in s.args)
        kept = [i for i in range(len(self.axes)) if i not in self.spec.reduced]
        value, index = np.broadcast_arrays(value, index)
        lines = [np.transpose(a, (*kept, *self.spec.reduced)) for a in (value, index)]
        shape = lines[0].shape[: len(kept)]
        value, index = (a.reshape(*shape, -1) for a in lines)
        best = (np.argmax if s.op == "reduce_argmax" else np.argmin)(value, -1)
        found = np.take_along_axis(index, best[..., None], -1)[..., 0]
        extents = [1 if i in self.spec.reduced else found.shape[kept.index(i)] for i in range(len(self.axes))]
        return found.reshape(extents)


def without_reduction(spec: KernelSpec) -> KernelSpec:
    """``spec`` as far as the body inside a core is concerned, which has axes of its own."""
    return replace(spec, reduced=(), split=None)
