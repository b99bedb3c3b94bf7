"""How a program is explained: from what its passes made, and from what was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine import dims
from engine.dtypes import f32
from engine.graph import Graph, Node, Value
from engine.loops import body_of, nested_nodes
from engine.program import Call, Program
from tenon import backends
from tenon.inspection.costs import named_nodes, only_moves
from tenon.inspection.explanation import (
    Advice,
    Code,
    Copy,
    Explanation,
    Fused,
    KeptApart,
    Layout,
    Precision,
    Recomputed,
)
from tenon.inspection.profile import NO_LINE, Profile, Row
from tenon.inspection.profiling import is_native

if TYPE_CHECKING:
    from engine.graph import Group
    from tenon.executable import Executable

_MUCH = 0.05
"""The share of a call from which on something is worth a word."""

_NEAR, _FAR = 0.7, 0.5
"""The parts of the machine's ceiling above which a kernel is as good as can be, and below which it is not good."""

_ALONE = 1.2
"""Threads, on average, below which a kernel counts as running on one."""


def explained(executable: Executable, inputs: Sequence[Any]) -> Explanation:
    """See tn.explain."""
    program = executable.program
    graph = executable.stages["fuse"]
    assert isinstance(graph, Graph)
    profile = executable.profile(*inputs) if inputs else None
    sizes = profile.sizes if profile else {}
    copies = tuple(_copies(program, dict(named_nodes(graph)), sizes, set(graph.dims()) <= sizes.keys()))
    code = tuple(_code(executable))
    return Explanation(
        name=executable.name,
        level=executable.level,
        nodes=len(executable.graph.nodes),
        steps=len(program.main),
        fused=tuple(_fused(g) for g in _groups(graph)),
        kept_apart=tuple(_kept_apart(graph)),
        recomputed=tuple(_recomputed(graph)),
        copies=copies,
        layouts=tuple(_layouts(graph)),
        precision=_precision(executable),
        tuning=executable.tuning,
        program_from_cache=executable.report.from_cache,
        code=code,
        advice=tuple(_advice(executable, profile, code)),
        profile=profile,
    )


def _groups(graph: Graph) -> Iterator[Group]:
    yield from graph.groups
    for node in graph.nodes:
        body = body_of(node)
        if body is not None:
            yield from _groups(body)


def _fused(group: Group) -> Fused:
    ops = tuple(n.op.name for n in group.nodes if n.op.kind not in ("view", "source", "index"))
    return Fused(group.name, ops, _lines(group.nodes))


def _lines(nodes: Iterable[Node]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(n.location) for n in nodes if n.location is not None)) or (NO_LINE,)


def _kept_apart(graph: Graph) -> Iterator[KeptApart]:
    from passes.fuse import REFUSALS, kept_apart

    for pair in kept_apart(graph):
        yield KeptApart(pair.first.name, pair.second.name, pair.rule, REFUSALS[pair.rule])


def _recomputed(graph: Graph) -> Iterator[Recomputed]:
    """Values that are computed from the same by the same ops in several kernels."""
    known: dict[Value, Any] = {v: v for v in (*graph.inputs, *graph.state)}
    home = {n: g.name for g in graph.groups for n in g.nodes}
    alike: dict[Any, list[Node]] = {}
    numbers: dict[Any, int] = {}
    for node in graph.nodes:
        if node.op.kind == "source" or body_of(node) is not None:
            known.update((v, v) for v in node.outputs)
            continue
        key = (node.op.name, repr(node.attrs), tuple(known[v] for v in node.inputs))
        number = numbers.setdefault(key, len(numbers))
        known.update((v, (number, v.index)) for v in node.outputs)
        if node.op.kind != "view" and node in home:
            alike.setdefault(number, []).append(node)
    for nodes in alike.values():
        kernels = tuple(dict.fromkeys(home[n] for n in nodes))
        if len(nodes) > 1:
            yield Recomputed(nodes[0].op.name, _lines(nodes)[0], kernels)


def _copies(program: Program, nodes: Mapping[str, Node], sizes: Mapping[str, int], known: bool) -> Iterator[Copy]:
    buffers = {b.name: b for b in program.buffers}
    updated = {f"state.{name}" for name in program.updates}

    def nbytes(call: Call) -> int | None:
        if not known:
            return None
        found = [buffers[w] for w in call.writes]
        return sum(dims.evaluate(b.size, sizes) * b.dtype.itemsize for b in found)

    for call in program.prepare:
        if only_moves(call.label):
            why = "the kernel reads it in that order"
            yield Copy(call.label, _named(call.reads, nodes), why, "when the state changes", nbytes(call))
    for call in program.main:
        if not only_moves(call.label):
            continue
        if not call.label.startswith("pack "):
            why = _why_copied(call, nodes)
        elif updated.intersection(call.reads):
            why = "the kernel reads it in that order, and this program changes it at every call"
        else:
            why = "the kernel reads it in that order"
        yield Copy(call.label, _named(call.reads, nodes), why, "every call", nbytes(call))


def _named(names: Iterable[str], nodes: Mapping[str, Node]) -> str:
    """What lies in buffers: state and inputs by name, else the op and the line that made it."""
    found = []
    for name in names:
        node = nodes.get(name.partition("_for_")[0])
        made = node is not None and f"{node.op.name} of {node.location or NO_LINE}"
        found.append(made or name.removeprefix("state.").removeprefix("input."))
    return ", ".join(found)


def _why_copied(call: Call, nodes: Mapping[str, Node]) -> str:
    reader = nodes.get(call.writes[0].partition("_for_")[2])
    if reader is not None:
        return f"{reader.op.name} of {reader.location or NO_LINE} reads it in another order"
    ops = {nodes[n].op.name for n in (*call.nodes, *call.writes) if n in nodes}
    if "identity" in ops:
        return "its readers want another layout"
    if "reshape" in ops:
        return "a reshape joins or splits axes that do not lie side by side"
    return "a reader needs it in other memory"


def _layouts(graph: Graph) -> Iterator[Layout]:
    orders: dict[tuple[int, ...], list[Value]] = {}
    for value, order in graph.layouts.items():
        orders.setdefault(order, []).append(value)
    for order, values in orders.items():
        modules = dict.fromkeys(v.node.location.module for v in values if v.node.location is not None)
        yield Layout(order, tuple(v.name for v in values), tuple(filter(None, modules)))


def _precision(executable: Executable) -> Precision | None:
    from passes.mixed_precision import is_exact, is_product

    dtype = executable.options.precision
    mixed = executable.stages.get("precision")
    if not isinstance(mixed, Graph):
        return None
    nodes = list(nested_nodes(mixed))
    products = Counter(n.op.name for n in nodes if is_product(n) and n.outputs[0].dtype == dtype)
    exact = Counter(n.op.name for n in nodes if is_exact(n) and n.outputs[0].dtype == f32)
    return Precision(str(dtype), products, exact)


def _code(executable: Executable) -> Iterator[Code]:
    backend = backends.compiling(executable.target)
    origin = executable.origin
    for kernel in executable.program.kernels:
        seconds = origin.took.get(kernel.key)
        if seconds is not None:
            why = backend.why_compiled(kernel) or "the cache does not say why"
        elif not is_native(executable):
            why = "it runs in Python"
        elif kernel.key in origin.known:
            why = "another program of this process has the same"
        else:
            why = "the cache had it"
        yield Code(kernel.name, seconds is not None, why, seconds or 0.0)


def _advice(executable: Executable, profile: Profile | None, code: tuple[Code, ...]) -> Iterator[Advice]:
    if executable.level < 2:
        yield Advice(f"level 2: level {executable.level} fuses nothing and chooses no layouts")
    elif executable.level == 2:
        yield Advice("level=3, if results may be rounded otherwise: it takes short cuts that level 2 does not")
    if executable.options.autotune and executable.tuning is None:
        yield Advice("a first call: autotune=True waits for the sizes of one")
    if any(c.compiled and c.why.startswith("disabled") for c in code):
        yield Advice("a compile cache: there is none, so every start compiles all kernels")
    whole = {n.op.name for n in nested_nodes(executable.graph) if n.op.kernel and not n.op.kernel.ranged}
    for name in sorted(whole):
        yield Advice(f"lo and hi for the kernel of {name}, if its entries do not need one another: one thread runs it")
    if profile is None:
        yield Advice("more is known once it has run: tn.explain(exe, *inputs)")
        return
    yield from sorted(_measured(profile), key=lambda a: -(a.share or 0.0))


def _measured(profile: Profile) -> Iterator[Advice]:
    """What a profile shows, the kernels one by one."""
    threads = profile.machine.threads
    share = profile.barriers / profile.seconds
    if share > _MUCH:
        yield Advice(f"cores for all {threads} threads: for {share:.0%} of a call none of them ran a kernel", share)
    share = profile.overhead / profile.seconds
    if share > _MUCH:
        yield Advice(
            f"larger inputs: {share:.0%} of a call is the overhead of calling it, whatever its inputs are", share
        )
    moving = [s for s in profile.steps if only_moves(s.name)]
    share = sum(s.seconds for s in moving) / profile.seconds
    if share > _MUCH:
        most = max(moving, key=lambda s: s.seconds)
        yield Advice(f"fewer copies: {share:.0%} of a call only moves data, most of it in {most.name}", share)
    near, alone, slow = [], [], []
    for row in profile.by_kernel:
        if row.fraction > _NEAR:
            near.append(row)
        elif threads > 1 and row.threads < _ALONE:
            alone.append(row)
        elif row.fraction < _FAR:
            slow.append(row)

    def told(rows: list[Row], text: str) -> Iterator[Advice]:
        share = sum(row.seconds for row in rows) / profile.seconds
        if share > _MUCH:
            longest = ", ".join(row.name for row in rows[:3])
            yield Advice(text.format(share=share, longest=longest), share)

    yield from told(alone, "more to do at once: {share:.0%} of a call runs on one thread, longest {longest}")
    yield from told(
        slow, f"better kernels: {{share:.0%}} of a call is below {_FAR:.0%} of the ceiling, longest {{longest}}"
    )
    yield from told(
        near, f"nothing but less work for {{share:.0%}} of a call, which is above {_NEAR:.0%} of the ceiling"
    )
