"""From a schedule to a program: lower every kernel, hoist what depends on state alone, plan memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace

from engine.buffers import Buffer
from engine.dims import Expr, Size
from engine.graph import Graph, Node
from engine.ops.sources import out_of_range
from engine.program import Arg, Block, Call, Check, Kernel, Lowered, Pointer, Port, Program
from engine.schedule import Access, Bundle, KernelSpec, Schedule
from passes.schedule import check_nodes, input_buffer, output_buffer, state_buffer

Lower = Callable[[KernelSpec | Bundle, Collection[str]], Lowered]
"""A backend's lowering of one item; it is told which buffers keep their contents from call to call."""


def assemble(graph: Graph, schedule: Schedule, lower: Lower) -> Program:
    """The program of ``schedule``, its kernels lowered by the backend's ``lower``."""
    buffers = {b.name: b for b in schedule.buffers}
    kernels: dict[str, Kernel] = {}
    main: list[Call] = []
    updated = {state_buffer(name) for name in graph.updates}
    lasting = {b.name for b in schedule.buffers if b.kind == "const" or (b.kind == "state" and b.name not in updated)}
    for number, item in enumerate(schedule.kernels):
        lowered = _guarded(_renamed(lower(item, lasting), number), item.guard)
        buffers.update((b.name, b) for b in lowered.buffers)
        kernels.update((k.key, k) for k in lowered.kernels)
        main.extend(lowered.calls)
    prepare, main = _hoist(main, buffers, lasting, checked=bool(check_nodes(graph)))
    constants = {
        n.name: n.attrs["value"].tobytes() for n in graph.nodes if n.op.name == "constant" and n.name in buffers
    }
    states = [v.node.attrs["name"] for v in graph.state]
    return Program(
        graph.name,
        tuple(Port(v.node.attrs["name"], v.shape, v.dtype, input_buffer(v.node.attrs["name"])) for v in graph.inputs),
        tuple(Port(f"output {i}", v.shape, v.dtype, output_buffer(i)) for i, v in enumerate(graph.outputs)),
        tuple(Port(n, v.shape, v.dtype, state_buffer(n)) for n, v in zip(states, graph.state, strict=True)),
        tuple(graph.updates),
        tuple(buffers.values()),
        tuple(main),
        tuple(prepare),
        tuple(kernels.values()),
        graph.assumptions,
        tuple(_check(n) for n in check_nodes(graph)),
        lifetimes(main, buffers.values()),
        {"nodes": len(graph.nodes), "kernels": len(schedule.kernels), "steps": len(main)},
        constants,
    )


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
    at = Pointer(guard.buffer, guard.offset * guard.dtype.itemsize)
    return replace(lowered, calls=tuple(replace(c, guard=at) for c in lowered.calls))


def _hoist(
    main: list[Call], buffers: dict[str, Buffer], lasting: set[str], checked: bool
) -> tuple[list[Call], list[Call]]:
    """Move calls that depend on nothing but state that this program keeps (packing of weights) out of the step.

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
        else:
            yield arg.offset if isinstance(arg, Pointer) else arg


def lifetimes(main: Iterable[Call], buffers: Iterable[Buffer]) -> dict[str, tuple[int, int]]:
    """The first and last step that touches each temporary buffer."""
    temporary = {b.name for b in buffers if b.kind == "temp"}
    found: dict[str, tuple[int, int]] = {}
    for step, c in enumerate(main):
        for name in (*c.touched, *c.writes):
            if name in temporary:
                found[name] = (found.get(name, (step, step))[0], step)
    return found


def _check(node: Node) -> Check:
    message = out_of_range("{value}", **node.attrs)
    return Check(message, str(node.location) if node.location else "", node.name)
