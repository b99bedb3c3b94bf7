"""Give contractions operands of the dtype they compute in, by explicit casts that fusion then absorbs."""

from __future__ import annotations

from engine.dtypes import DType
from engine.graph import Graph, Node, Rewriter, Value, apply
from engine.schedule import Target

_KINDS = frozenset({"contraction", "conv2d", "conv2d_weight_grad"})
_CLAIMED = frozenset({"attention", "attention_backward"})
"""Composites that are made of contractions, where they have not been decomposed."""


def legalise(graph: Graph, target: Target) -> Graph:
    """Every contraction and convolution reads and writes one dtype. Without tensor cores none computes in 16 bits; an
    op behind it that computes in float32 reads the sum before it is rounded, as it does with them."""
    rewriter = Rewriter(graph)
    unrounded: dict[Value, Value] = {}

    def operand(dtype: DType) -> DType:
        return dtype if target.tensor_cores else dtype.computed

    def emit(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if node.op.kind in _KINDS:
            fitting = tuple(_cast(v, operand(node.output.dtype)) for v in inputs)
        elif node.op.name in _CLAIMED:
            fitting = tuple(_cast(v, operand(v.dtype)) if v.dtype.is_float else v for v in inputs)
        else:
            fitting = tuple(unrounded.get(v, v) for v in inputs)
            if fitting == inputs or node.op.kind != "elementwise" or not _same_types(node, fitting):
                return None
            return rewriter.keep(node, fitting)
        if fitting == inputs:
            return None
        found = rewriter.builder.add(node.op, fitting, node.attrs)
        outputs = tuple(_cast(new, old.dtype) for old, new in zip(node.outputs, found, strict=True))
        unrounded.update((out, new) for out, new in zip(outputs, found, strict=True) if out is not new)
        return outputs

    return rewriter.run(emit)


def _cast(value: Value, dtype: DType) -> Value:
    return value if value.dtype == dtype else apply("cast", value, dtype=dtype)


def _same_types(node: Node, inputs: tuple[Value, ...]) -> bool:
    """Whether ``node`` gives values of the same types for these inputs."""
    found = node.op.infer(tuple(v.type for v in inputs), node.attrs)
    return found == tuple(v.type for v in node.outputs)
