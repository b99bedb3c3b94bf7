"""The reference backend: the NumPy interpreter behind the executor's interface (``target="reference"``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from engine import interpreter
from engine.errors import ShapeError, StateError, TenonError
from engine.graph import Graph
from engine.state import Cell


class ReferenceExecutor:
    """Runs a graph by the ops' NumPy references. It compiles nothing, and takes any graph without ``grad`` nodes.

    ``cells`` holds the state by name; a call writes the new values into them once everything has been computed, so
    a call that fails leaves them as they were.
    """

    def __init__(self, graph: Graph, cells: Mapping[str, Cell]):
        self.graph = graph
        names = [v.node.attrs["name"] for v in graph.state]
        if missing := [n for n in names if n not in cells]:
            raise StateError(f"the program needs the state {', '.join(missing)}, which does not exist")
        self.cells = {n: cells[n] for n in names}

    def run(
        self, inputs: Mapping[str, object] | Sequence[object], out: Sequence[np.ndarray] | None = None
    ) -> tuple[np.ndarray, ...]:
        """The outputs as fresh arrays, or in ``out``.

        Raises ShapeError, DTypeError, IndexRangeError and TenonError as the compiled executor does.
        """
        outputs, after = interpreter.run(self.graph, inputs, {n: c.array for n, c in self.cells.items()})
        fresh = tuple(np.array(a, order="C") for a in outputs)
        if out is not None:
            _copy_into(out, fresh)
            fresh = tuple(out)
        new = {name: np.array(after[name]) for name in self.graph.updates}  # one may be a view of another's old value
        for name, value in new.items():
            self.cells[name].write(value)
        return fresh


def _copy_into(out: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
    expected = [(a.shape, a.dtype) for a in outputs]
    given = [(a.shape, a.dtype) for a in out]
    if given != expected:
        raise ShapeError(f"out holds arrays of {given}, and the outputs are {expected}")
    if not all(a.flags.writeable for a in out):
        raise TenonError("out holds a read-only array; arrays to write into were expected")
    for target, value in zip(out, outputs, strict=True):
        target[...] = value
