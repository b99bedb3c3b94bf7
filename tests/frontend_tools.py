"""Traced functions run on the reference interpreter, gradients expanded: what the tests of the frontend look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from graph_tools import tensor

from engine import interpreter
from engine.graph import Graph, TensorType
from engine.verify import verify
from frontend.tensor import Tensor
from frontend.trace import Trace
from passes.autodiff import expand_gradients


class Traced:
    """``function`` traced once for inputs x0, x1 ... of the given types. Calling it runs the graph on the cells."""

    def __init__(self, function: Callable[..., Any], *types: TensorType, name: str = "traced"):
        self.trace = Trace(name)
        with self.trace:
            found = function(*(Tensor.of(self.trace.builder.input(f"x{i}", t)) for i, t in enumerate(types)))
            results = found if isinstance(found, tuple) else (found,)
            values = [r.value() for r in results if isinstance(r, Tensor)]
        self.graph: Graph = self.trace.finish(values)
        verify(self.graph)
        self.expanded = expand_gradients(self.graph)

    def __call__(self, *arrays: Any) -> Any:
        cells = self.trace.cells
        before = {name: cells[name].array for name in cells}
        outputs, after = interpreter.run(self.expanded, arrays, before)
        for name in self.graph.updates:
            cells[name].write(after[name])
        return outputs[0] if len(outputs) == 1 else outputs

    def ops(self) -> list[str]:
        return [n.op.name for n in self.graph.nodes if n.op.name != "constant"]


def traced(function: Callable[..., Any], *shapes: tuple[Any, ...], dtype: str = "f32") -> Traced:
    """As :class:`Traced`, all inputs of one dtype."""
    return Traced(function, *(tensor(*shape, dtype=dtype) for shape in shapes))


def close(a: Any, b: Any, tolerance: float = 1e-6) -> None:
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
