"""A model's layers as a table: what each gives, its parameters, and what it computes and moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engine.costs import total
from engine.dims import Size, shape_text
from engine.graph import Graph, Node
from frontend.nn import Module
from frontend.sizes import plain_shape
from frontend.tensor import Tensor
from tenon.inspection.counting import Cost, cost_of, counted
from tenon.modes import mode
from tenon.specs import as_specs
from tenon.text_format import count_text, table
from tenon.tracing import trace


@dataclass
class Layer:
    """A line: the module's path and kind, the shape that it gives, its own parameters, and what it does itself, without
    the modules that it calls: floating-point operations, and the bytes that it reads and writes at least."""

    path: str
    kind: str
    output: str
    trained: int
    frozen: int
    flops: Size = 0
    bytes: Size = 0


@dataclass
class Summary:
    """What :func:`summary` found; printing it shows the table. Counts are of numbers, shared ones counted once.
    ``flops`` and ``bytes`` are those of all layers, and of the model outside of them; where an input's size is a dim
    they depend on it."""

    name: str
    layers: list[Layer] = field(default_factory=list)
    trained: int = 0
    frozen: int = 0
    state: int = 0
    flops: Size = 0
    bytes: Size = 0

    def __str__(self) -> str:
        rows = [("layer", "output", "parameters", "flops", "bytes")]
        for layer in self.layers:
            depth = layer.path.count(".") if layer.path else 0
            name = layer.path.rpartition(".")[2]
            label = f"{'  ' * depth}{name} ({layer.kind})" if name else layer.kind
            count = layer.trained + layer.frozen
            frozen = " frozen" if layer.frozen and not layer.trained else ""
            rows.append((label, layer.output, f"{count:,}{frozen}", count_text(layer.flops), count_text(layer.bytes)))
        parameters = f"{self.trained + self.frozen:,} parameters: {self.trained:,} trained, {self.frozen:,} frozen"
        state = f"; {self.state:,} numbers of other state" if self.state else ""
        work = f"{count_text(self.flops)} floating-point operations, {count_text(self.bytes)} bytes read and written"
        return "\n".join([self.name, table(rows), parameters + state, work])

    __repr__ = __str__


def summary(model: Module, *specs: Any) -> Summary:
    """The layers of ``model``, with the shapes that they give for inputs of ``specs``.

    Sizes may be symbolic: ``tn.summary(model, tn.spec("B", 1, 28, 28))``. Layers that learn their sizes from an input
    have them afterwards. The model is traced in evaluation mode; nothing is compiled. Raises TenonError for what is no
    spec, and whatever the model raises on such inputs.
    """
    found = Summary(type(model).__name__)
    shapes: dict[int, str] = {}

    def note(module: Module, args: Any, output: Any) -> None:
        shapes[id(module)] = _shape(output)

    handles = [m.register_forward_hook(note) for m in model.modules()]
    try:
        with mode(model, training=False):
            graph = counted(trace(model, as_specs(specs, "summary")).graph)
    finally:
        for handle in handles:
            handle.remove()
    costs = _costs(graph)
    seen: set[int] = set()
    for path, module in model.named_modules():
        trained, frozen = _counted(module, seen)
        found.trained += trained
        found.frozen += frozen
        if path or not list(model.children()):
            output = shapes.get(id(module), "not used")
            own = costs.get(f"{found.name}.{path}" if path else found.name, Cost(0, 0))
            found.layers.append(Layer(path, type(module).__name__, output, trained, frozen, own.flops, own.bytes))
    found.flops = total(cost.flops for cost in costs.values())
    found.bytes = total(cost.bytes for cost in costs.values())
    found.state = sum(int(b.numel()) for b in model.buffers())
    return found


def _costs(graph: Graph) -> dict[str, Cost]:
    """What each module does itself, by its path from the model's class; what belongs to none under an empty one."""
    nodes: dict[str, list[Node]] = {}
    for node in graph.nodes:
        nodes.setdefault(node.location.module if node.location else "", []).append(node)
    return {path: cost_of(own, graph) for path, own in nodes.items()}


def _shape(output: Any) -> str:
    if isinstance(output, Tensor):
        return shape_text(plain_shape(output.shape))
    if isinstance(output, dict):
        output = tuple(output.values())
    return ", ".join(map(_shape, output)) if isinstance(output, (tuple, list)) else type(output).__name__


def _counted(module: Module, seen: set[int]) -> tuple[int, int]:
    """The numbers in a module's own parameters that are trained, and that are not."""
    counts = [0, 0]
    for _, p in module.named_parameters(recurse=False):
        if id(p) not in seen:
            seen.add(id(p))
            counts[not p.requires_grad] += int(p.numel())
    return counts[0], counts[1]
