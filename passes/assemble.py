"""From a schedule to a program: lower every kernel, hoist what depends on state alone, plan memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count

from engine import schedule as schedule_items
from engine.buffers import Buffer
from engine.dims import Expr, Size
from engine.graph import Graph, Node
from engine.loops import body_of, nested_nodes
from engine.ops.sources import out_of_range
from engine.program import Arg, Block, BoxMap, Call, Check, Kernel, Loop, Lowered, Pointer, Port, Program
from engine.schedule import Access, Bundle, Item, KernelSpec, Schedule
from passes.places import input_buffer, output_buffer, state_buffer
from passes.schedule import check_nodes

Placed = list[tuple[Call, tuple[int, ...]]]
Path = tuple[int, ...]

Lower = Callable[[KernelSpec | Bundle, Collection[str]], Lowered]
"""A backend's lowering of one item; it is told which buffers keep their contents from call to call."""


def assemble(graph: Graph, schedule: Schedule, lower: Lower) -> Program:
    """The program of ``schedule``, its kernels lowered by the backend's ``lower``."""
    lasting = lasting_buffers(graph, schedule)
    line = _Line(lower, lasting, schedule)
    buffers, kernels = line.buffers, line.kernels
    around = {id(c): path for c, path in line.calls}
    prepare, main = hoisted([c for c, _ in line.calls], buffers, lasting, checked=bool(check_nodes(graph)))
    loops = _loops(line.loops, [around[id(c)] for c in main])
    data = {name: n.attrs["value"].tobytes() for name, n in constants(graph) if name in buffers}
    states = [v.node.attrs["name"] for v in graph.state]
    return Program(
        graph.name,
        tuple(Port(v.node.attrs["name"], v.shape, v.dtype, input_buffer(v.node.attrs["name"])) for v in graph.inputs),
        tuple(Port(f"output {i}", v.shape, v.dtype, output_buffer(i)) for i, v in enumerate(graph.outputs)),
        tuple(
            Port(n, v.shape, v.dtype, state_buffer(n), graph.layouts.get(v))
            for n, v in zip(states, graph.state, strict=True)
        ),
        tuple(graph.updates),
        tuple(buffers.values()),
        tuple(main),
        tuple(prepare),
        tuple(kernels.values()),
        graph.assumptions,
        tuple(_check(n) for n in check_nodes(graph)),
        lifetimes(main, buffers.values(), loops),
        {"nodes": len(list(nested_nodes(graph))), "kernels": len(list(schedule.specs)), "steps": len(main)},
        data,
        loops,
    )


def lasting_buffers(graph: Graph, schedule: Schedule) -> set[str]:
    """The buffers whose contents stay from call to call: constants, state that the program only reads, and what kernels
    make of these alone."""
    updated = {state_buffer(name) for name in graph.updates}
    kinds = {b.name: b.kind for b in schedule.buffers}
    found = {name for name, kind in kinds.items() if kind == "const" or (kind == "state" and name not in updated)}
    writers = Counter(access.buffer for spec in schedule.specs for part in _parts(spec) for access in part.writes)
    for spec in schedule.kernels:
        if not isinstance(spec, KernelSpec) or spec.core is not None or not spec.reads:
            continue
        fixed = spec.guard is None and all(isinstance(n, int) for n in spec.axes)
        plain = all(s.op not in ("load_at", "check_index") for s in spec.body)
        own = all(kinds.get(a.buffer) == "temp" and writers[a.buffer] == 1 for a in spec.writes)
        if fixed and plain and own and all(a.buffer in found for a in spec.reads):
            found.update(a.buffer for a in spec.writes)
    return found


def _parts(item: KernelSpec | Bundle) -> tuple[KernelSpec, ...]:
    return item.parts if isinstance(item, Bundle) else (item,)


def constants(graph: Graph, prefix: str = "") -> Iterator[tuple[str, Node]]:
    """The constants by the names that the schedule would give their buffers."""
    for node in graph.nodes:
        body = body_of(node)
        if body is not None:
            yield from constants(body, f"{prefix}{node.name}.")
        elif node.op.name == "constant":
            yield prefix + node.name, node


class _Line:
    """The items of a schedule as calls in a line, each with the numbers of the loops around it."""

    def __init__(self, lower: Lower, lasting: Collection[str], schedule: Schedule):
        self.lower, self.lasting = lower, lasting
        self.buffers = {b.name: b for b in schedule.buffers}
        self.kernels: dict[str, Kernel] = {}
        self._labels: set[str] = set()
        self.loops: list[schedule_items.Loop] = []
        self._number = count()
        self.calls = self._flat(schedule.kernels, ())

    def _flat(self, items: Iterable[Item], around: Path) -> Placed:
        found: Placed = []
        for item in items:
            if isinstance(item, schedule_items.Loop):
                inside = (*around, len(self.loops))
                self.loops.append(item)
                found += self._steady_first(self._flat(item.kernels, inside), item, around)
                continue
            lowered = _guarded(_renamed(self.lower(item, self.lasting), next(self._number)), item.guard)
            self.buffers.update((b.name, b) for b in lowered.buffers)
            self.kernels.update((k.key, k) for k in lowered.kernels)
            found += [(replace(c, label=self._unique(c.label, item.name)), around) for c in lowered.calls]
        return found

    def _unique(self, label: str, name: str) -> str:
        """``label``, or where another call has it, with a number behind the ``name`` of the kernel in it."""
        candidates = (label.replace(name, f"{name}_{i}", 1) if i > 1 else label for i in count(1))
        found = next(c for c in candidates if c not in self._labels)
        self._labels.add(found)
        return found

    def _steady_first(self, inside: Placed, loop: schedule_items.Loop, around: Path) -> Placed:
        """The calls of a loop, before it those that would do the same every time: packing of weights."""
        writers = Counter(_chain(self.buffers, w)[-1] for c, _ in inside for w in c.writes)
        moving = set(loop.windows)

        def reads_steadily(name: str) -> bool:
            chain = _chain(self.buffers, name)
            return not writers[chain[-1]] and moving.isdisjoint(chain)

        first, rest = [], []
        for call, path in inside:
            own = all(self.buffers[w].kind == "temp" and writers[w] == 1 for w in call.writes if w in self.buffers)
            plain = len(path) == len(around) + 1 and call.guard is None and not call.indexed
            if plain and call.writes and own and all(map(reads_steadily, call.reads)):
                first.append((call, around))
                writers.subtract(call.writes)
            else:
                rest.append((call, path))
        return first + rest


def _chain(buffers: Mapping[str, Buffer], name: str) -> list[str]:
    """The buffer of that name, what it is a window of, and so on, up to one that is no window."""
    found = [name]
    while name in buffers and buffers[name].kind == "window":
        name = buffers[name].within
        found.append(name)
    return found


def _loops(loops: Sequence[schedule_items.Loop], around: Sequence[Path]) -> tuple[Loop, ...]:
    """The program's loops, ``around`` being the numbers of those around each call."""
    found = []
    for number, loop in enumerate(loops):
        inside = [i for i, path in enumerate(around) if number in path]
        if inside:
            guard = None if loop.guard is None else _byte(loop.guard)
            found.append(Loop(inside[0], inside[-1] + 1, loop.times, loop.windows, guard))
    return tuple(found)


def _renamed(lowered: Lowered, number: int) -> Lowered:
    """Buffers that a backend asks for get names of their own in the program."""
    names = {b.name: f"{b.name}.{number}" for b in lowered.buffers}
    if not names:
        return lowered

    def argument(arg: Arg) -> Arg:
        if isinstance(arg, Pointer):
            return replace(arg, buffer=names.get(arg.buffer, arg.buffer))
        if isinstance(arg, Block):
            return Block(tuple(map(argument, arg.args)))
        if isinstance(arg, BoxMap):
            return replace(arg, at=replace(arg.at, buffer=names.get(arg.at.buffer, arg.at.buffer)))
        return arg

    def call(c: Call) -> Call:
        return replace(
            c,
            args=tuple(map(argument, c.args)),
            reads=tuple(names.get(r, r) for r in c.reads),
            writes=tuple(names.get(w, w) for w in c.writes),
        )

    return Lowered(
        tuple(map(call, lowered.calls)),
        lowered.kernels,
        tuple(replace(b, name=names[b.name]) for b in lowered.buffers),
    )


def _guarded(lowered: Lowered, guard: Access | None) -> Lowered:
    """The same calls, under a guard."""
    if guard is None:
        return lowered
    at = _byte(guard)
    return replace(lowered, calls=tuple(replace(c, guard=at) for c in lowered.calls))


def _byte(guard: Access) -> Pointer:
    return Pointer(guard.buffer, guard.offset * guard.dtype.itemsize)


def hoisted(
    main: list[Call], buffers: dict[str, Buffer], lasting: Collection[str], checked: bool
) -> tuple[list[Call], list[Call]]:
    """Move calls that depend on nothing but state that this program keeps (packing of weights) out of the step: these
    calls, and the rest. ``buffers`` is changed.

    Their results live on as ``packed`` buffers, refreshed when that state changes. A call that takes a symbolic size
    stays: its result changes with the binding. So does one that follows indices, where indices are ``checked``: the
    checks come first. One that is guarded runs in any case.
    """
    writers = Counter(w for c in main for w in c.writes)

    def steady(call: Call) -> bool:
        kept = (buffers[r].kind == "packed" or r in lasting for r in call.reads)
        own = (buffers[w].kind == "temp" and writers[w] == 1 for w in call.writes)
        fixed = not any(isinstance(a, Expr) for a in (call.tasks, *_sizes(call.args)))
        safe = not (call.indexed and checked)
        return bool(call.reads and call.writes) and all(kept) and all(own) and fixed and safe

    prepare: list[Call] = []
    rest: list[Call] = []
    for c in main:
        if steady(c):
            prepare.append(replace(c, guard=None))
            buffers.update((w, replace(buffers[w], kind="packed")) for w in c.writes)
        else:
            rest.append(c)
    return prepare, rest


def _sizes(args: tuple[Arg, ...]) -> Iterator[Size]:
    for arg in args:
        if isinstance(arg, Block):
            yield from _sizes(arg.args)
        elif isinstance(arg, BoxMap):
            yield from arg.sizes
        else:
            yield arg.offset if isinstance(arg, Pointer) else arg


def lifetimes(
    main: Sequence[Call], buffers: Iterable[Buffer], loops: Iterable[Loop] = ()
) -> dict[str, tuple[int, int]]:
    """The first and last step that touches each temporary buffer, directly or through windows. What a loop touches and
    something outside of it too, or only at some of its steps, lives as long as the loop."""
    known = {b.name: b for b in buffers}

    def root(name: str) -> str:
        return _chain(known, name)[-1]

    found: dict[str, tuple[int, int]] = {}
    for step, c in enumerate(main):
        for name in dict.fromkeys(map(root, (*c.touched, *c.writes))):
            if name in known and known[name].kind == "temp":
                found[name] = (found.get(name, (step, step))[0], step)
    for loop in sorted(loops, key=lambda loop: loop.end - loop.first):
        inside = {n for c in main[loop.first : loop.end] for n in (*c.touched, *c.writes)}
        inside |= {loop.guard.buffer} if loop.guard is not None else set()
        moving = {n for n in inside if known.get(n) is not None and known[n].kind == "window"}
        for name in sorted({root(n) for n in inside} & found.keys()):
            first, last = found[name]
            if first < loop.first or last >= loop.end or any(root(n) == name for n in moving):
                found[name] = min(first, loop.first), max(last, loop.end - 1)
    return found


def _check(node: Node) -> Check:
    message = out_of_range("{value}", **node.attrs)
    return Check(message, str(node.location) if node.location else "", node.name)
