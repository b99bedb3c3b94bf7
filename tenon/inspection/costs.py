"""What each step of a program computes and moves, told from the graph that it was made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from engine import costs, dims
from engine.graph import Graph, Node, Value
from engine.loops import body_of
from engine.program import Call, Program
from engine.records import dataclass
from passes.views import is_free

if TYPE_CHECKING:
    from tenon.executable import Executable


@dataclass(frozen=True)
class StepCost:
    """One step of ``Program.main``: what it is called, the graph's nodes that it computes (or makes ready for), and
    what it takes to run it once: ``flops`` operations, and ``bytes`` that it reads and writes at least."""

    name: str
    kernel: str
    nodes: tuple[Node, ...]
    flops: int
    bytes: int


def step_costs(executable: Executable, sizes: Mapping[str, int]) -> list[StepCost]:
    """The steps of ``executable.program.main``, in order, with the dims of these ``sizes``. Runs the passes at first
    use.

    Operations are counted by engine/costs.py. A step that packs, or adds up what another has summed in parts, counts
    none. Bytes are those of each buffer that a step touches, or of the part of it that its nodes read.
    """
    from engine.memory import Sizes, plan

    program = executable.program
    graph = executable.stages["fuse"]
    assert isinstance(graph, Graph)
    found = plan(program, Sizes(sizes))
    nodes = dict(named_nodes(graph))
    counter = _Counter(sizes, found.nbytes)
    calls = _as_named_by_passes(executable)
    members = [tuple(nodes[name] for name in call.nodes if name in nodes) for call in calls]
    kernels = {kernel.key: kernel.name for kernel in program.kernels}
    tasks = [dims.evaluate(call.tasks, sizes) for call in calls]
    flops = _shared_out(calls, [counter.flops(m) for m in members], tasks)
    return [
        StepCost(call.label, kernels[call.kernel], m, f, counter.bytes(call, m))
        for call, m, f in zip(calls, members, flops, strict=True)
    ]


def named_nodes(graph: Graph, prefix: str = "") -> Iterator[tuple[str, Node]]:
    """Every node by the name that kernels know it by: those in the body of a loop after the loop's."""
    for node in graph.nodes:
        body = body_of(node)
        if body is not None:
            yield from named_nodes(body, f"{prefix}{node.name}.")
        yield prefix + node.name, node


def _as_named_by_passes(executable: Executable) -> tuple[Call, ...]:
    """The steps of the program, with the names that nodes have in this process: one from the cache may be of a graph
    that computes the same under other names."""
    again = executable.stages["program"]
    assert isinstance(again, Program)
    steps = executable.program.main
    same = [c.label for c in again.main] == [c.label for c in steps]
    return again.main if same else steps


def only_moves(label: str) -> bool:
    """Whether the step of that name only lays out weights or data for others, and computes nothing."""
    return _unnumbered(label) == "copy" or label.startswith("pack ")


def _unnumbered(label: str) -> str:
    """The name of a step without the number that tells it from others of the same name."""
    return re.sub(r"_\d+$", "", label)


def _sums_parts(label: str) -> bool:
    """Whether the step of that name does the work of its nodes, of which another adds up the results."""
    gradient = "weight_grad" in label and label.endswith((" tiles", " images"))
    return gradient or _unnumbered(label).endswith("_partial")


def _shared_out(calls: Sequence[Call], flops: Sequence[int], tasks: Sequence[int]) -> list[int]:
    """What each step does of the operations of its nodes, which it may share with others: where a sum is made in parts
    these do them all, and steps that divide the work among them (by phases, or by images) count as equal, if they have
    tasks at all."""
    doing: dict[tuple[str, ...], list[int]] = {}
    for i, call in enumerate(calls):
        lays_out = only_moves(call.label) or (call.label.endswith(" tiles") and not _sums_parts(call.label))
        if call.nodes and tasks[i] and not lays_out:
            doing.setdefault(call.nodes, []).append(i)
    found = [0] * len(calls)
    for steps in doing.values():
        working = [i for i in steps if _sums_parts(calls[i].label)] or steps
        for i in working:
            found[i] = flops[i] // len(working)
    return found


class _Counter:
    """Counts with the dims at ``sizes``, buffers having ``nbytes``."""

    def __init__(self, sizes: Mapping[str, int], nbytes: Mapping[str, int]):
        self.sizes = sizes
        self.nbytes = nbytes

    def flops(self, nodes: Iterable[Node]) -> int:
        return sum(dims.evaluate(costs.flops(n), self.sizes) for n in nodes if body_of(n) is None)

    def bytes(self, call: Call, nodes: tuple[Node, ...]) -> int:
        """Of each buffer all, save where the nodes read a smaller part of the value that lies in it."""
        read: dict[str, int] = {}
        for node in nodes:
            for position, value in enumerate(node.inputs):
                root = costs.made(value)
                if not is_free(root.node):
                    part = dims.evaluate(costs.needed_bytes(node, position), self.sizes)
                    name = _buffer_of(root)
                    read[name] = read.get(name, 0) + part
        total = sum(min(self.nbytes[b], read.get(b, self.nbytes[b])) for b in call.reads if b in self.nbytes)
        return total + sum(self.nbytes[b] for b in call.writes if b in self.nbytes)


def _buffer_of(root: Value) -> str:
    """The buffer that a value most likely lies in: that of its own name."""
    kind = root.node.op.name
    return f"{kind}.{root.node.attrs['name']}" if kind in ("input", "state") else root.name
