"""The search behind ``tn.bisect``.

First every graph runs on NumPy, from the trace to the last pass, then the schedule; the first whose results part from
the trace's was made by the pass at fault. If none does, every kernel runs as compiled, alone, on the memory that the
schedule has when it reaches it, beside that kernel on NumPy. If all of these agree, the program as a whole is run: then
it is how the kernels were put together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from engine import interpreter, scheduled, settings
from engine.errors import TenonError
from engine.graph import Graph, Node, Value
from engine.loops import body_of
from engine.program import Program
from engine.records import dataclass
from engine.rewrites import resolved
from engine.schedule import Schedule
from tenon.executable import Executable
from tenon.inspection import reproduce
from tenon.inspection.bisect import Difference
from tenon.inspection.comparing import Worst, moved, worst
from tenon.inspection.costs import named_nodes
from tenon.inspection.one_kernel import Case, KernelRunner, buffer_values, results_of, schedule_memory

Arrays = dict[str, np.ndarray]
Steps = Mapping[str, tuple[str, tuple[str, ...]]]
"""What became of values, and by which rules."""
Write = Callable[[Path, Difference], Path]
SMALL_ENOUGH = 20_000
"""The elements up to which a kernel that is wrong is also run in Python."""


class Search:
    """One program on one set of inputs."""

    def __init__(self, executable: Executable, inputs: Sequence[Any]):
        from passes.autodiff import expand_gradients

        self.executable = executable
        self.stages = _rounded_as_meant(executable)
        self.trace = expand_gradients(self.stages[0][1])
        self.state = {name: np.array(cell.array) for name, cell in executable.cells.items()}
        arrays, self.sizes = interpreter.bind(self.trace, inputs, self.state)
        count = len(self.trace.inputs)
        self.inputs = {v.node.attrs["name"]: a for v, a in zip(self.trace.inputs, arrays[:count], strict=True)}
        self.arrays = arrays
        shifted = moved({str(i): a for i, a in enumerate(arrays)})
        self.shifted = [shifted[str(i)] for i in range(len(arrays))]
        self.expected = _Run.of(self.trace, arrays, self.sizes)
        self.moved = _Run.of(self.trace, self.shifted, self.sizes)

    def run(self) -> tuple[Difference, Write] | None:
        stages = self.stages
        found = self._passes([(n, s) for n, s in stages if isinstance(s, Graph)])
        if found is not None or not isinstance(stages[-1][1], Program):
            return found
        plan = next(s for _, s in stages if isinstance(s, Schedule))
        graph = [s for _, s in stages if isinstance(s, Graph)][-1]
        return self._kernels(graph, plan, stages[-1][1])

    # -- passes

    def _passes(self, stages: Sequence[tuple[str, Graph]]) -> tuple[Difference, Write] | None:
        from passes.autodiff import expand_gradients

        before, run_before = stages[0][1], self.expected
        for name, graph in stages[1:]:
            whole = graph
            if any(n.op.kind == "grad" for n in graph.nodes):
                whole = expand_gradients(graph)
            run = _Run.of(whole, self.arrays, self.sizes)
            wrong = self._results(run.results)
            if wrong is not None:
                difference = self._localised(name, before, run_before, whole, graph, run, wrong)
                return difference, self._writer(before, graph, name)
            before, run_before = graph, run
        return None

    def _writer(self, before: Graph, after: Graph, name: str) -> Write:
        """What writes the script that shows a fault of the pass ``name``."""
        given, at = (self.inputs, self.state), (name, self.executable.options)
        target = self.executable.target
        return partial(reproduce.write_pass, before=before, after=after, given=given, at=at, target=target)

    def _results(self, found: Arrays) -> tuple[str, Worst] | None:
        for name, array in found.items():
            bad = worst(array, self.expected.results[name], self.moved.results[name])
            if bad is not None:
                return name, bad
        return None

    def _localised(
        self,
        name: str,
        before: Graph,
        run_before: _Run,
        whole: Graph,
        after: Graph,
        run: _Run,
        wrong: tuple[str, Worst],
    ) -> Difference:
        """The first value that parts from the one that it was before the pass."""
        shifted = _Run.of(whole, self.shifted, self.sizes)
        steps = resolved(after.rewrites)
        found = _first(before, run_before, whole, run, shifted, steps)
        if found is None:
            value, bad = wrong
            node = _producer(whole, value)
            return Difference("pass", name, value, bad, node.location if node else None)
        old, new, bad = found
        turns: tuple[int, ...] = ()
        while (inside := _first_inside(old.node, new.node, run_before, self.sizes, steps)) is not None:
            old, new, bad, turn, run_before = inside
            turns = (*turns, turn)
        rules = {after: rules for after, rules in steps.values()}
        return Difference(
            "pass", name, new.name, bad, new.node.location, rules.get(new.name, ()), new.node.op.name, turns
        )

    # -- kernels

    def _kernels(self, graph: Graph, plan: Schedule, made: Program) -> tuple[Difference, Write] | None:
        memory = schedule_memory(graph, plan, self.sizes, self.inputs, self.state)
        shapes = buffer_values(graph)
        exe = self.executable
        runner = KernelRunner(graph, plan, made, exe.program, self.sizes, exe.target, exe.options)
        known = dict(named_nodes(graph))
        full = {node: name for name, node in known.items()}
        found: list[tuple[Difference, Write]] = []

        def visit(item: Any, turns: tuple[int, ...]) -> None:
            if found:
                return
            case = runner.run(item, memory)
            order = {n: i for i, n in enumerate(item.nodes)}
            place = {n: order.get(full.get(shapes[n].node, ""), -1) if n in shapes else -1 for n in case.written}
            for name in sorted(case.written, key=place.__getitem__):
                value = shapes.get(name)
                bad = worst(*case.of(name))
                if bad is not None:
                    at = bad if value is None else replace(bad, position=value.position(bad.position[0], self.sizes))
                    line = item.location if turns else (value and value.node.location) or item.location
                    note = f"compiled as {', '.join(dict.fromkeys(k.name for k in case.program.kernels))}"
                    note += _in_python(case, name)
                    what = value.name if value else name
                    nodes = [known[n] for n in item.nodes if n in known]
                    ops = " ".join(n.op.name for n in nodes)
                    lines = tuple(dict.fromkeys(n.location for n in nodes if n.location is not None))
                    d = Difference("kernel", item.name, what, at, line, (), ops, turns, note, lines)
                    found.append((d, partial(reproduce.write_program, saved=case.saved())))
                    return
            memory.arrays.update(case.expected)

        scheduled.run(plan, memory, visit)
        if found:
            return found[0]
        results = results_of(graph, memory)
        wrong = self._results(results)
        if wrong is not None:
            node = _producer(graph, wrong[0])
            d = Difference("pass", "schedule", *wrong, node.location if node else None)
            return d, self._writer(graph, graph, "schedule")
        return self._program(graph, made, results)

    def _program(self, graph: Graph, made: Program, expected: Arrays) -> tuple[Difference, Write] | None:
        program = self.executable.program
        target = self.executable.target
        saved = reproduce.Saved(program, self.inputs, self.state, expected, self.moved.results, target)
        wrong = self._results(reproduce.run_saved(saved))
        if wrong is None:
            return None
        node = _producer(graph, wrong[0])
        note = "each kernel alone is right: it is their order, or the memory that they share"
        apart = replace(saved, program=replace(program, lifetimes={}))
        if self._results(reproduce.run_saved(apart)) is None:
            note = "it is right where no two temporaries share memory: they live longer than was thought"
        elif program.kernels != made.kernels or program.main != made.main:
            note = "it is not what the passes make of it now: it is older, or something has changed since"
        d = Difference("program", program.name, *wrong, node.location if node else None, note=note)
        return d, partial(reproduce.write_program, saved=saved)


@dataclass(frozen=True)
class _Run:
    """What a graph gave: its results by name (``output 0``, ``state weight``), and every value by name."""

    results: Arrays
    values: Arrays

    @classmethod
    def of(cls, graph: Graph, arrays: Sequence[np.ndarray], sizes: Mapping[str, int]) -> _Run:
        values: Arrays = dict(zip((v.name for v in (*graph.inputs, *graph.state)), arrays, strict=True))

        def keep(node: Node, results: tuple[np.ndarray, ...]) -> None:
            values.update(zip((v.name for v in node.outputs), results, strict=True))

        outputs, updates = interpreter.run_bound(graph, arrays, sizes, keep)
        results = {f"output {i}": a for i, a in enumerate(outputs)}
        return cls(results | {f"state {name}": a for name, a in updates.items()}, values)


def _pairs(before: Graph, after: Graph, steps: Steps) -> dict[Value, Value]:
    """For values after a pass what they were before it: those of kept nodes, and those that replace others."""
    old = {v.name: v for n in before.nodes for v in n.outputs}
    new = {v.name: v for n in after.nodes for v in n.outputs}
    found = {v: old[n] for n, v in new.items() if n in old and old[n].node.op is v.node.op and old[n].type == v.type}
    for name, (now, _) in steps.items():
        if name in old and now in new and old[name].type == new[now].type:
            found.setdefault(new[now], old[name])
    return found


def _first(
    before: Graph, run_before: _Run, after: Graph, run: _Run, shifted: _Run, steps: Steps
) -> tuple[Value, Value, Worst] | None:
    """The first value that differs from its partner before the pass, which comes first, and its worst element."""
    pairs = _pairs(before, after, steps)
    for node in after.nodes:
        for v in node.outputs:
            if v not in pairs or pairs[v].name not in run_before.values or v.name not in run.values:
                continue
            expected, value = run_before.values[pairs[v].name], run.values[v.name]
            bad = worst(value, expected, _rounding(expected, value, shifted.values[v.name]))
            if bad is not None:
                return pairs[v], v, bad
    return None


def _first_inside(
    old: Node, new: Node, run: _Run, sizes: Mapping[str, int], steps: Steps
) -> tuple[Value, Value, Worst, int, _Run] | None:
    """As :func:`_first` in the bodies of two loops, with the turn in which it happens and what the old body gave."""
    before, after = body_of(old), body_of(new)
    names = [v.name for v in old.inputs]
    if before is None or after is None or any(n not in run.values for n in names):
        return None
    if [v.type for v in before.inputs] != [v.type for v in after.inputs]:
        return None  # the pass moved something out of the loop: what comes in is not the same
    arrays = [run.values[n] for n in names]
    carries, count = old.attrs["carries"], old.attrs["carries"] + old.attrs["sequences"]
    carry, length = arrays[:carries], interpreter.bound(old.attrs["length"], sizes)
    for turn in range(length):
        at = length - 1 - turn if old.attrs["reverse"] else turn
        given = [*carry, *(x[at] for x in arrays[carries:count]), *arrays[count:]]
        near = moved({str(i): a for i, a in enumerate(given)})
        ran = _Run.of(before, given, sizes)
        again = _Run.of(after, given, sizes)
        shifted = _Run.of(after, list(near.values()), sizes)
        found = _first(before, ran, after, again, shifted, steps)
        if found is not None:
            return *found, turn, ran
        carry = [ran.results[f"output {i}"] for i in range(carries)]
    return None


def _rounding(expected: np.ndarray, value: np.ndarray, shifted: np.ndarray) -> np.ndarray:
    """``expected`` moved by as much as ``value`` moves with its inputs."""
    if value.dtype.kind in "fV" or value.dtype.name == "bfloat16":
        with np.errstate(all="ignore"):
            return expected + (shifted - value)
    return np.where(shifted != value, shifted, expected)


def _in_python(case: Case, name: str) -> str:
    """Whether the kernel's source is wrong, or what was compiled of it; "" where that would take long to find out."""
    if case.target != "cpu" or sum(a.size for a in case.before.values()) > SMALL_ENOUGH:
        return ""
    try:
        with settings.config(jit=False):
            found = reproduce.run_saved(case.saved())[f"state {name}"]
    except TenonError as error:
        return f"; in Python (TENON_JIT=0) it stops: {error.message}"
    if worst(found, *case.of(name)[1:]) is None:
        return "; right in Python (TENON_JIT=0): what is wrong is not its source"
    return "; wrong in Python (TENON_JIT=0) too: it is its source"


def _rounded_as_meant(executable: Executable) -> list[tuple[str, Any]]:
    """The stages from the first that says all that is computed: mixed precision rounds on purpose."""
    stages = list(executable.stages.items())
    return stages[1:] if stages[1][0] == "precision" else stages


def _producer(graph: Graph, result: str) -> Node | None:
    """The node that makes a result of that name."""
    kind, _, name = result.partition(" ")
    value = graph.outputs[int(name)] if kind == "output" else graph.updates[name]
    return value.node
