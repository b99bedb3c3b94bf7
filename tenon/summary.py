"""A model's layers as a table: what each gives, and how many parameters it has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engine.dims import shape_text
from frontend.nn import Module
from frontend.sizes import plain_shape
from frontend.tensor import Tensor
from tenon.modes import mode
from tenon.specs import as_specs
from tenon.text_format import table
from tenon.tracing import trace


@dataclass
class Layer:
    """A line: the module's path and kind, the shape that it gives, and its own parameters."""

    path: str
    kind: str
    output: str
    trained: int
    frozen: int


@dataclass
class Summary:
    """What :func:`summary` found; printing it shows the table. Counts are of numbers, shared ones counted once."""

    name: str
    layers: list[Layer] = field(default_factory=list)
    trained: int = 0
    frozen: int = 0
    state: int = 0

    def __str__(self) -> str:
        rows = [("layer", "output", "parameters")]
        for layer in self.layers:
            depth = layer.path.count(".") if layer.path else 0
            name = layer.path.rpartition(".")[2]
            label = f"{'  ' * depth}{name} ({layer.kind})" if name else layer.kind
            count = layer.trained + layer.frozen
            rows.append((label, layer.output, f"{count:,}" + (" frozen" if layer.frozen and not layer.trained else "")))
        total = f"{self.trained + self.frozen:,} parameters: {self.trained:,} trained, {self.frozen:,} frozen"
        state = f"; {self.state:,} numbers of other state" if self.state else ""
        return "\n".join([self.name, table(rows), total + state])

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
            trace(model, as_specs(specs, "summary"))
    finally:
        for handle in handles:
            handle.remove()
    seen: set[int] = set()
    for path, module in model.named_modules():
        trained, frozen = _counted(module, seen)
        found.trained += trained
        found.frozen += frozen
        if path or not list(model.children()):
            output = shapes.get(id(module), "not used")
            found.layers.append(Layer(path, type(module).__name__, output, trained, frozen))
    found.state = sum(int(b.numel()) for b in model.buffers())
    return found


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
