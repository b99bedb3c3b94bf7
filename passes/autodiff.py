"""Reverse-mode differentiation: every ``grad`` node becomes the nodes that compute it.

The rules are part of the op records; this is the walk that applies them. ``grad`` nodes are expanded in graph order, so
one that differentiates through another finds plain nodes there, and gradients of gradients need nothing more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engine import dims
from engine.errors import VerifyError
from engine.graph import Builder, Graph, Node, Rewriter, Value, apply
from engine.loops import map_bodies
from engine.op import Op, gradients_of
from engine.rules import full
from passes.loops import join_loops


def expand_gradients(graph: Graph) -> Graph:
    """``graph`` without ``grad`` nodes. New nodes carry the source line of the forward node that they differentiate.

    A value that ``y`` does not depend on, or only through ops without a gradient, has zeros for its gradient.
    """
    graph = map_bodies(graph, expand_gradients)
    rewriter = Rewriter(graph, _Expanding)

    def emit(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if node.op.kind != "grad":
            return None
        y, *wrt = inputs
        return _gradients(rewriter.builder, y, wrt)

    return join_loops(rewriter.run(emit))


class _Expanding(Builder):
    """A builder that expands a gradient at once where a gradient rule asks for one itself."""

    def add(self, op: Op, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> tuple[Value, ...]:
        if op.kind != "grad":
            return super().add(op, inputs, attrs)
        op.infer(tuple(v.type for v in inputs), attrs)
        return _gradients(self, inputs[0], inputs[1:])


def _gradients(builder: Builder, y: Value, wrt: Sequence[Value]) -> tuple[Value, ...]:
    """dy/dv for each v of ``wrt``, added to the builder's graph."""
    gradients: dict[Value, Value] = {y: full(y.shape, 1, y.dtype)}
    wanted = _depending_on(wrt, builder.nodes)
    for node in reversed(tuple(builder.nodes)):
        flowing = [gradients.get(v) for v in node.outputs]
        if all(g is None for g in flowing) or not any(v in wanted for v in node.outputs):
            continue
        with builder.at(node.location), dims.recording(builder.assumptions):
            for v, g in zip(node.inputs, gradients_of(node, flowing), strict=True):
                if g is not None and v in wanted:
                    g = _like(g, v, node)
                    gradients[v] = apply("add", gradients[v], g) if v in gradients else g
    return tuple(gradients[v] if v in gradients else full(v.shape, 0, v.dtype) for v in wrt)


def _depending_on(sources: Sequence[Value], nodes: Iterable[Node]) -> set[Value]:
    """``sources`` and the float values that depend on them through differentiable ops."""
    found = set(sources)
    for node in nodes:
        if node.op.gradient is not None and any(v in found for v in node.inputs):
            found.update(v for v in node.outputs if v.dtype.is_float)
    return found


def _like(gradient: Value, value: Value, node: Node) -> Value:
    """``gradient`` in the type of ``value``. Sizes that differ are ones that the graph assumes to be equal."""
    if len(gradient.shape) != len(value.shape):
        raise VerifyError(
            f"the gradient rule of {node.op.name} gives {gradient.type} for the input {value}", node.location
        )
    if gradient.shape != value.shape:
        gradient = apply("reshape", gradient, shape=value.shape)
    if gradient.dtype != value.dtype:
        gradient = apply("cast", gradient, dtype=value.dtype)
    return gradient
