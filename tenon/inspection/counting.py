"""`tn.flops` and `tn.memory`: what a model or a program computes and takes, before anything runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from engine import costs, dims
from engine.dims import Size
from engine.errors import TenonError
from engine.graph import Graph, Node, Value
from engine.loops import map_bodies
from engine.op import all_ops
from engine.records import dataclass
from tenon.compiling import compile
from tenon.executable import Executable
from tenon.functions import Function
from tenon.memory import MemoryUse, check_dims
from tenon.specs import as_specs
from tenon.tracing import trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from frontend.nn import Module


def flops(what: Executable | Function | Module | Callable[..., Any], /, *specs: Any, **sizes: int) -> int:
    """The floating-point operations of one call of a compiled program, or of a model or function on inputs of
    ``specs``, with these ``sizes`` of its dims::

        tn.flops(model, tn.spec("B", 1, 28, 28), B=64)
        tn.flops(exe, B=64)

    They are those of the program as it was traced, gradients and updates included: a multiply-add is two, any other
    scalar function of an element one. Nothing is compiled. Raises ShapeError for a dim without a size or one that does
    not exist, TenonError where specs are given beside a program or missing for a model.
    """
    graph = _graph(what, specs)
    check_dims(graph.name, graph.dims(), sizes, "flops")
    return dims.evaluate(costs.total(map(costs.flops, counted(graph).nodes)), sizes)


def memory(what: Executable | Function | Module | Callable[..., Any], /, *specs: Any, **sizes: int) -> MemoryUse:
    """Bytes by class, of a compiled program or of a model or function on inputs of ``specs``, with these ``sizes`` of
    its dims; as ``exe.memory``. A model or function is compiled for it.

    Raises as :func:`flops`.
    """
    return _program(what, specs, lambda made, found: compile(made, *found)).memory(**sizes)


def _graph(what: Any, specs: tuple[Any, ...]) -> Graph:
    found = _program(what, specs, lambda made, given: trace(made, as_specs(given, "flops")))
    return found.graph


def _program(what: Any, specs: tuple[Any, ...], make: Callable[[Any, tuple[Any, ...]], Any]) -> Any:
    """An executable as it is, that of a function, or what ``make`` makes of anything else."""
    found = what.executable if isinstance(what, Function) else what
    if isinstance(found, Executable):
        if specs:
            raise TenonError(f"{found.name} is compiled: its specs are known, and {len(specs)} were given")
        return found
    if not callable(found):
        raise TenonError(f"a compiled program, a model or a function was expected, not {type(found).__name__}")
    return make(found, specs)


def counted(graph: Graph) -> Graph:
    """``graph`` in ops that can be counted: gradients written out, composites without a rule of their own taken apart,
    and nothing that nobody needs."""
    from engine.schedule import Target
    from passes.autodiff import expand_gradients
    from passes.decompose import decompose
    from passes.simplify import remove_dead

    target = Target("a count", frozenset(name for name, op in all_ops().items() if op.flops is not None))

    def apart(inner: Graph) -> Graph:
        return decompose(map_bodies(inner, apart), target)

    return remove_dead(apart(expand_gradients(graph)))


@dataclass(frozen=True)
class Cost:
    """Operations, and bytes read and written at least by a kernel that keeps what lies between."""

    flops: Size
    bytes: Size


def cost_of(nodes: Iterable[Node], graph: Graph) -> Cost:
    """What some nodes of ``graph`` cost together."""
    from passes.views import is_free

    inside = [n for n in nodes if n.op.kind != "view"]
    members = set(inside)
    whole: set[Value] = set()
    parts: list[Size] = []
    for node in inside:
        for position, value in enumerate(node.inputs):
            root = costs.made(value)
            if root.node in members or is_free(root.node):
                continue
            if node.op.kind == "gather" and position == 0:
                parts.append(costs.needed_bytes(node, position))
            else:
                whole.add(root)
    outside = {costs.made(v) for n in graph.nodes if n not in members and n.op.kind != "view" for v in n.inputs}
    outside |= {costs.made(v) for v in graph.results}
    writes = [v for n in inside for v in n.outputs if v in outside]
    flops = costs.total(map(costs.flops, inside))
    return Cost(flops, costs.total([*parts, *map(costs.nbytes, (*whole, *writes))]))
