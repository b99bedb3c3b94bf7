"""The pipeline: one readable list of passes from a traced graph to a program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from engine import settings
from engine.collecting import no_collecting
from engine.graph import Graph
from engine.loops import map_bodies
from engine.memory import Sizes, plan
from engine.options import DEFAULT, Options
from engine.program import Program
from engine.rewrites import recording
from engine.schedule import PRODUCTS, Conv2d, Item, KernelSpec, Loop, Schedule, Target
from engine.verify import verify
from passes.assemble import Lower, assemble
from passes.autodiff import expand_gradients
from passes.decompose import decompose
from passes.fuse import fuse
from passes.layout import assign_layouts
from passes.legalise import legalise
from passes.loops import hoist
from passes.mixed_precision import mix_precision
from passes.rematerialise import rematerialise
from passes.schedule import schedule
from passes.simplify import compose, relax, remove_dead, simplify, simplify_traced

Observe = Callable[[str, object], None]
Pass = tuple[str, Callable[[Graph], Graph]]


def graph_passes(target: Target, options: Options = DEFAULT, lower: Lower | None = None) -> Iterator[Pass]:
    """The passes over the graph, by name, in order.

    Level 0 lowers every op that is needed by itself; 1 simplifies; 2 chooses layouts and fuses too; 3 rounds otherwise
    where that is faster. Precision is chosen before autodiff: the backward graph then follows the dtypes of the forward
    one, and gradients arrive in those of the parameters. Under a limit of memory values are computed again where
    ``lower`` makes programs that take too much.
    """
    level, limit = options.level, options.limit
    if level >= 1:
        composing = level >= 2 and "attention" in target.claims
        yield "simplify", inside_out(compose if composing else simplify_traced)
    yield from precision_passes(options)
    yield "autodiff", expand_gradients
    if level >= 1:
        yield "simplify", inside_out(simplify)
    # What rounds otherwise may not multiply tile by tile, and without fusion nothing follows a convolution.
    whole = replace(target, measures=target.measures and target.fuses and level == 2)
    yield "decompose", inside_out(lambda graph: decompose(graph, whole))
    yield "legalise", inside_out(lambda graph: legalise(graph, target))
    yield ("simplify", inside_out(simplify)) if level >= 1 else ("dead code", inside_out(remove_dead))
    if level >= 3:
        yield "relax", inside_out(relax)
    yield "hoist", hoist
    if level >= 2:
        # What rounds otherwise may ask for channels-last images: none are turned over on the way then.
        arranged = replace(target, turns=target.turns and level < 3)
        yield "layout", inside_out(lambda graph: assign_layouts(graph, arranged))
    fusing = inside_out(lambda graph: fuse(graph, level >= 2 and target.fuses, target.chains))
    if limit is not None:
        assert lower is not None
        sizes = Sizes(limit.sizes)
        yield (
            "rematerialise",
            lambda graph: rematerialise(
                graph, limit, lambda changed: plan(_finished(fusing(changed), target, options, lower), sizes).arena
            ),
        )
    yield "fuse", fusing


def precision_passes(options: Options) -> Iterator[Pass]:
    """The pass that has products computed in 16 bits, where that is asked for."""
    if options.precision.storage_only:
        yield "precision", inside_out(lambda graph: mix_precision(graph, options.precision))


def inside_out(change: Callable[[Graph], Graph]) -> Callable[[Graph], Graph]:
    """A pass that changes the bodies of loops first, then the graph around them."""

    def run(graph: Graph) -> Graph:
        return change(map_bodies(graph, run))

    return run


@no_collecting()
def compile_graph(
    graph: Graph,
    target: Target,
    lower: Lower,
    options: Options = DEFAULT,
    observe: Observe | None = None,
) -> Program:
    """Run every pass on ``graph`` and lower it; ``observe(name, stage)`` sees each stage as it is made.

    Raises TenonError where the program cannot be made to take less memory than the limit.

    Every graph is verified where ``TENON_VERIFY=1`` is set; to an observer each tells its ``rewrites``.
    """
    checking = settings.get("verify")
    seen = observe or (lambda name, stage: None)
    expanded = False
    for name, run in graph_passes(target, options, lower):
        if observe is None:
            graph = run(graph)
        else:
            with recording() as rewrites:
                graph = run(graph)
            graph = graph.with_(rewrites=tuple(rewrites))
        expanded |= name == "autodiff"
        if checking:
            verify(graph, expanded=expanded)
        seen(name, graph)
    program = _finished(graph, target, options, lower, seen)
    seen("program", program)
    return program


def _finished(
    graph: Graph, target: Target, options: Options, lower: Lower, seen: Observe = lambda name, stage: None
) -> Program:
    """The program of a fused graph."""
    kernels = schedule(graph, target.cuts)
    if options.level >= 3:
        kernels = _mapped(kernels, _relaxed)
    if target.tensor_cores:
        kernels = _mapped(kernels, lambda spec: _as_exact(spec, options.products))
    seen("schedule", kernels)
    return assemble(graph, kernels, lower)


def _mapped(plan: Schedule, change: Callable[[KernelSpec], KernelSpec]) -> Schedule:
    """``plan`` with every kernel changed, those in loops too."""

    def changed(item: Item) -> Item:
        if isinstance(item, Loop):
            return replace(item, kernels=tuple(map(changed, item.kernels)))
        return change(item) if isinstance(item, KernelSpec) else item

    return replace(plan, kernels=tuple(map(changed, plan.kernels)))


def _relaxed(spec: KernelSpec) -> KernelSpec:
    """The same kernel, a convolution by whatever algorithm is fastest."""
    return replace(spec, core=replace(spec.core, relaxed=True)) if isinstance(spec.core, Conv2d) else spec


def _as_exact(spec: KernelSpec, products: str) -> KernelSpec:
    """The same kernel, its products of float32 as exact as was asked for."""
    return replace(spec, products=products) if isinstance(spec.core, PRODUCTS) else spec
