"""What the page of a dump shows, as plain data: stages, kernels, steps, memory and the lines that they come from."""

from __future__ import annotations

import linecache
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from engine import dims
from engine.errors import SourceLocation
from engine.graph import Graph, Node, Value
from engine.loops import body_of
from engine.program import Program
from engine.schedule import Access, Bundle, Item, KernelSpec, Loop, Schedule
from engine.text import node_lines
from engine.text.literals import literals, type_text
from tenon.inspection import listings
from tenon.inspection.costs import StepCost, step_costs
from tenon.inspection.profile import Profile
from tenon.inspection.viewer.homes import homes
from tenon.inspection.viewer.phases import phases

if TYPE_CHECKING:
    from tenon.executable import Executable

_LONGEST_FILE = 4000
"""Lines of a user's file up to which all of it is shown."""
_AROUND = 12
"""How many lines are shown before and after each that made an op, in a longer file."""


def record(executable: Executable, sizes: Mapping[str, int], profile: Profile | None = None) -> dict[str, Any]:
    """All that the page shows of ``executable``, with the dims of these ``sizes``, as what JSON can hold. There are
    times if there is a ``profile`` (of a call with these sizes).

    Nodes, graphs and lines are numbered, and stand once: a node that a pass leaves alone has the same number after it.
    """
    tables = _Tables(sizes)
    graphs = {name: stage for name, stage in executable.stages.items() if isinstance(stage, Graph)}
    stages = [[name, tables.graph(graph), _rules(graph)] for name, graph in graphs.items()]
    found: dict[str, Any] = {
        "name": executable.name,
        "target": executable.target,
        "level": executable.level,
        "sizes": dict(sizes),
        "report": str(executable.report),
        "stages": stages,
        "phases": phases(list(graphs.values())),
        "homes": {name: home for graph in graphs.values() for name, home in homes(graph).items()},
    }
    schedule, program = executable.stages.get("schedule"), executable.stages.get("program")
    if isinstance(schedule, Schedule) and isinstance(program, Program):
        found["kernels"] = [_kernel(spec, loop, tables) for spec, loop in _leaves(schedule.kernels)]
        found |= _steps(program, sizes) | _memory(executable, program, sizes)
        if profile is None:
            _add_costs(found["steps"], step_costs(executable, sizes))
        else:
            found["profile"] = _measured(found["steps"], profile)
    return found | tables.contents()


def _rules(graph: Graph) -> dict[str, Any]:
    """By which rule of the pass that gave ``graph`` each node was made, and what became of those that are gone."""
    kept = {n.name for n in graph.nodes}
    return {
        "made": {name: r.rule for r in graph.rewrites for name in r.made if name in kept},
        "gone": {r.node: [r.rule, *r.after] for r in graph.rewrites if r.node not in kept},
    }


class _Tables:
    """What is numbered: each thing gets the number of the first that was equal to it."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        self.nodes: dict[tuple[Any, ...], int] = {}
        self.graphs: dict[tuple[Any, ...], int] = {}
        self.described: list[dict[str, Any]] = []
        self.locations: dict[tuple[str, int, str, str], int] = {}
        self.ops: dict[str, list[str]] = {}

    def graph(self, graph: Graph) -> int:
        """The number of ``graph``, with the bodies of its loops."""
        lines, inlined = node_lines(graph), literals(graph)
        ports = [[self.node(v.node, graph, "") for v in values] for values in (graph.inputs, graph.state)]
        written = [n for n in graph.nodes if n.outputs[0] not in inlined]
        nodes = [self.node(n, graph, lines[n.name].partition(" = ")[2]) for n in written]
        groups = [[g.name, [n.name for n in g.nodes if n.outputs[0] not in inlined]] for g in graph.groups]
        outputs = [v.name for v in graph.outputs]
        updates = {name: v.name for name, v in graph.updates.items()}
        key = (*map(tuple, ports), tuple(nodes), tuple(outputs), *updates.items(), str(groups))
        if key not in self.graphs:
            self.graphs[key] = len(self.graphs)
            self.described.append(
                {"inputs": ports[0], "state": ports[1], "nodes": nodes, "groups": groups, "outputs": outputs,
                 "updates": updates}
            )  # fmt: skip
        return self.graphs[key]

    def node(self, node: Node, graph: Graph, text: str) -> int:
        inlined = {v.name for v in node.inputs if v.node.is_literal}
        inputs = tuple(v.name for v in node.inputs if v.name not in inlined)
        types = tuple((v.name, type_text(v.type, graph.layouts.get(v)), self.nbytes(v)) for v in node.outputs)
        body = body_of(node)
        inner = None if body is None else self.graph(body)
        title = node.attrs["name"] if node.op.name in ("input", "state") else node.name
        key = (node.name, node.op.name, title, inputs, types, text, self.location(node.location), inner)
        self.ops.setdefault(node.op.name, [node.op.kind, node.op.doc])
        return self.nodes.setdefault(key, len(self.nodes))

    def nbytes(self, value: Value) -> int:
        return dims.evaluate(value.type.size, self.sizes) * value.dtype.itemsize

    def location(self, location: SourceLocation | None) -> int | None:
        if location is None:
            return None
        key = (location.file, location.line, location.function, location.module)
        return self.locations.setdefault(key, len(self.locations))

    def contents(self) -> dict[str, Any]:
        wanted: dict[str, set[int]] = {}
        for file, line, *_ in self.locations:
            wanted.setdefault(file, set()).add(line)
        return {
            "nodes": list(self.nodes),
            "graphs": self.described,
            "locations": list(self.locations),
            "ops": self.ops,
            "files": {file: _lines(file, lines) for file, lines in wanted.items()},
        }


def _lines(file: str, wanted: set[int]) -> dict[int, str]:
    """The lines of a user's file by their number: all, or in a long one those near to the ``wanted``."""
    lines = dict(enumerate((line.rstrip("\n") for line in linecache.getlines(file)), 1))
    if len(lines) <= _LONGEST_FILE:
        return lines
    near = {n for line in wanted for n in range(line - _AROUND, line + _AROUND + 1)}
    return {n: lines[n] for n in sorted(near) if n in lines}


# --- kernels and steps -------------------------------------------------------------------------------------


def _leaves(items: tuple[Item, ...], loop: str = "") -> Iterator[tuple[KernelSpec | Bundle, str]]:
    """Each kernel, with the loops that it runs in."""
    for item in items:
        if isinstance(item, Loop):
            inside = f"{item.name} x {item.times}"
            yield from _leaves(item.kernels, f"{loop}, {inside}" if loop else inside)
        else:
            yield item, loop


def _kernel(spec: KernelSpec | Bundle, loop: str, tables: _Tables) -> dict[str, Any]:
    parts = spec.parts if isinstance(spec, Bundle) else (spec,)
    return {
        "name": spec.name,
        "nodes": spec.nodes,
        "kind": "bundle" if isinstance(spec, Bundle) else _kind(spec),
        "space": "; ".join(dict.fromkeys(_space(p) for p in parts)),
        "loop": loop,
        "location": tables.location(spec.location),
        "reads": list(dict.fromkeys(a.buffer for p in parts for a in (*_inputs(p.core), *p.reads))),
        "writes": list(dict.fromkeys(a.buffer for p in parts for a in p.writes)),
        "text": "\n".join(listings.item_lines(spec)),
    }


def _inputs(core: object) -> Iterator[Access]:
    """What a core reads by itself."""
    if is_dataclass(core):
        for field in fields(core):
            value = getattr(core, field.name)
            if isinstance(value, Access):
                yield value
            elif field.name == "source":
                yield from _inputs(value)


def _kind(spec: KernelSpec) -> str:
    if spec.core is not None:
        return type(spec.core).__name__
    return "reduce" if spec.reduced else "loop"


def _space(spec: KernelSpec) -> str:
    """The iteration space, ``64 x B x 16 x 16``, reduced axes in brackets."""
    axes = (f"[{size}]" if i in spec.reduced else str(size) for i, size in enumerate(spec.axes))
    return " × ".join(axes) or "1"


def _steps(program: Program, sizes: Mapping[str, int]) -> dict[str, Any]:
    from engine.memory import Sizes

    names, size = listings.kernel_names(program), Sizes(sizes)
    main, prepare = (
        [
            {"label": c.label, "code": names[c.kernel], "tasks": size(c.tasks), "reads": c.reads, "writes": c.writes,
             "scratch": c.scratch, "nodes": c.nodes}
            for c in calls
        ]
        for calls in (program.main, program.prepare)
    )  # fmt: skip
    loops = [[loop.first, loop.end, size(loop.times)] for loop in program.loops]
    return {"steps": main, "prepare": prepare, "loops": loops}


def _add_costs(steps: list[dict[str, Any]], costs: Sequence[StepCost]) -> None:
    """Tell each step what it computes and moves."""
    for step, cost in zip(steps, costs, strict=True):
        step |= {"flops": cost.flops, "bytes": cost.bytes}


def _measured(steps: list[dict[str, Any]], profile: Profile) -> dict[str, Any]:
    """What was measured of a call; each step is told how long it takes, and what it waits for."""
    for step, row in zip(steps, profile.steps, strict=True):
        step |= {"flops": row.flops, "bytes": row.bytes, "seconds": row.seconds, "threads": row.threads,
                 "fraction": row.fraction, "limit": row.limit}  # fmt: skip
    whole = {"seconds": profile.seconds, "barriers": profile.barriers, "overhead": profile.overhead}
    return {"calls": profile.calls, "machine": vars(profile.machine), **whole}


# --- memory ------------------------------------------------------------------------------------------------


def _memory(executable: Executable, program: Program, sizes: Mapping[str, int]) -> dict[str, Any]:
    from engine.memory import Sizes, plan

    found = plan(program, Sizes(sizes))
    end = len(program.main)
    returned = {port.buffer for port in program.outputs}
    buffers = []
    for b in program.buffers:
        first, last = program.lifetimes.get(b.name, (0, end))
        entry = {"name": b.name, "kind": b.kind, "dtype": str(b.dtype), "nbytes": found.nbytes[b.name]}
        if b.kind == "temp":
            entry |= {"offset": found.offsets[b.name], "first": first, "last": end if b.name in returned else last}
        buffers.append(entry)
    use = executable.memory(**sizes)
    return {"buffers": buffers, "arena": found.arena, "memory": vars(use) | {"total": use.total}}
