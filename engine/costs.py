"""What a node costs: the arithmetic it does, and the bytes it reads. Symbolic where shapes are.

A multiply-add counts as two operations, any other scalar function as one, whatever it takes: ``exp`` too.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine import dims, scalar
from engine.dims import Size
from engine.graph import Node, Value
from engine.loops import body_of


def flops(node: Node) -> Size:
    """The operations of ``node``. A composite op has those that its own rule counts; decompose it first if it has
    none. What only moves data, draws random numbers or was written by a user counts as 0."""
    body = body_of(node)
    if body is not None:
        return node.attrs["length"] * total(flops(n) for n in body.nodes)
    op = node.op
    if op.flops is not None:
        return op.flops(node)
    if op.expression is not None:
        return _functions(op.expression) * node.output.type.size
    if op.kind in ("reduce", "scan"):
        return total(v.type.size for v in node.inputs)
    if op.name == "max_pool2d":
        return dims.product(node.attrs["kernel"]) * node.outputs[0].type.size
    if op.kind == "pool":
        return node.inputs[0].type.size
    return 0


def total(sizes: Iterable[Size]) -> Size:
    """The sum of sizes."""
    found: Size = 0
    for size in sizes:
        found = found + size
    return found


def nbytes(value: Value) -> Size:
    """The bytes of a value."""
    return value.type.size * value.dtype.itemsize


def made(value: Value) -> Value:
    """What ``value`` is a view of, or itself."""
    while value.node.op.kind == "view":
        value = value.node.inputs[0]
    return value


def needed_bytes(node: Node, position: int) -> Size:
    """The bytes of an input that ``node`` reads: of what is gathered from, as many as come out."""
    value = node.inputs[position]
    if node.op.kind == "gather" and position == 0:
        return node.output.type.size * value.dtype.itemsize
    return nbytes(value)


def _functions(expression: str) -> int:
    return sum(i.op != "identity" for i in scalar.instructions(expression))
