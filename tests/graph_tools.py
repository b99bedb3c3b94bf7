"""Small graphs for the tests of passes: traced from a function of values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine import dims, dtypes
from engine.dims import Expr
from engine.graph import Builder, Graph, TensorType, Value


def tensor(*shape: int | str | Expr, dtype: str = "f32") -> TensorType:
    """A type; strings in the shape are dims."""
    return TensorType(tuple(dims.parse(s) if isinstance(s, str) else s for s in shape), dtypes.as_dtype(dtype))


def trace(function: Callable[..., Value | Sequence[Value]], *types: TensorType) -> Graph:
    """The graph of ``function``, whose arguments are inputs called x0, x1 ..."""
    builder = Builder("traced")
    with builder:
        found = function(*(builder.input(f"x{i}", t) for i, t in enumerate(types)))
    return builder.build((found,) if isinstance(found, Value) else found)


def ops(graph: Graph) -> list[str]:
    """The names of the ops in order, constants left out."""
    return [n.op.name for n in graph.nodes if n.op.name != "constant"]
