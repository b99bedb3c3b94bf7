"""What a case has to do at least: floating-point operations and bytes, counted from Tenon's graph.

Operations are those of contractions, convolutions, attention and recurrences, as the ops' records count them; all
others are few beside them. Bytes are inputs, state and results, each once: what a step cannot do without, however it is
fused.
"""

from __future__ import annotations

from benchmarks import engines
from benchmarks.models import Case
from engine import costs, dims
from engine.graph import Graph


def of_case(case: Case) -> tuple[int, int]:
    """Operations and bytes of one step of a case."""
    step = engines.tenon_program(case, target="reference")
    (graph,) = (stage for name, stage in step.stages.items() if name == "autodiff")
    return counted(graph, {"B": case.inputs[0].shape[0]})


def counted(graph: Graph, sizes: dict[str, int]) -> tuple[int, int]:
    """Operations and bytes of a graph whose gradients are written out."""
    needed, operations = set(graph.results), 0
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):  # autodiff leaves gradients that nobody asked for
            needed.update(node.inputs)
            if node.op.flops is not None and node.op.kind != "reduce":
                operations += dims.evaluate(node.op.flops(node), sizes)
    moved = [*graph.inputs, *graph.state, *graph.results]
    return operations, sum(dims.evaluate(costs.nbytes(v), sizes) for v in moved)
