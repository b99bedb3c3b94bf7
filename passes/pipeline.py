"""The pipeline: one readable list of passes from a traced graph to a program."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from engine.graph import Graph
from engine.program import Program
from engine.schedule import Target
from engine.verify import verify
from passes.assemble import Lower, assemble
from passes.autodiff import expand_gradients
from passes.decompose import decompose
from passes.fuse import fuse
from passes.layout import assign_layouts
from passes.legalise import legalise
from passes.schedule import schedule
from passes.simplify import relax, remove_dead, simplify

Observe = Callable[[str, object], None]
Pass = tuple[str, Callable[[Graph], Graph]]


def graph_passes(target: Target, level: int = 2) -> Iterator[Pass]:
    """The passes over the graph, by name, in order.

    Level 0 lowers every op that is needed by itself; 1 simplifies; 2 chooses layouts and fuses too; 3 rounds otherwise
    where that is faster.
    """
    if level >= 1:
        yield "simplify", simplify
    yield "autodiff", expand_gradients
    if level >= 1:
        yield "simplify", simplify
    yield "decompose", lambda graph: decompose(graph, target)
    yield "legalise", legalise
    yield ("simplify", simplify) if level >= 1 else ("dead code", remove_dead)
    if level >= 3:
        yield "relax", relax
    if level >= 2:
        yield "layout", lambda graph: assign_layouts(graph, target)
    yield "fuse", lambda graph: fuse(graph, merging=level >= 2 and target.fuses)


def compile_graph(
    graph: Graph, target: Target, lower: Lower, level: int = 2, observe: Observe | None = None
) -> Program:
    """Run every pass on ``graph`` and lower it; ``observe(name, stage)`` sees each stage as it is made.

    Every graph is verified where ``TENON_VERIFY=1`` is set.
    """
    checking = os.environ.get("TENON_VERIFY") == "1"
    seen = observe or (lambda name, stage: None)
    expanded = False
    for name, run in graph_passes(target, level):
        graph = run(graph)
        expanded |= name == "autodiff"
        if checking:
            verify(graph, expanded=expanded)
        seen(name, graph)
    plan = schedule(graph)
    seen("schedule", plan)
    program = assemble(graph, plan, lower)
    seen("program", program)
    return program
