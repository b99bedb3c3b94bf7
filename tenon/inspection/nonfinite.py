"""``tn.check_nan``: the first op of a program that makes a NaN or an infinity."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine import interpreter
from engine.errors import SourceLocation
from engine.graph import Node, Value
from engine.records import dataclass
from tenon.executable import Executable


@dataclass(frozen=True)
class NonFinite:
    """``value`` (NaN or an infinity) at ``position`` of what ``op`` gave as the value ``name``, traced at ``location``;
    ``count`` elements of it are not finite. ``op`` is ``input`` or ``state`` where it came in from outside."""

    op: str
    name: str
    value: float
    position: tuple[int, ...]
    count: int
    location: SourceLocation | None

    def __str__(self) -> str:
        at = f"[{', '.join(map(str, self.position))}]"
        return (
            f"{self.op} gave {self.value} at {self.name}{at} ({self.count} in all), {self.location or 'no line known'}"
        )


def check_nan(executable: Executable, *inputs: Any) -> NonFinite | None:
    """The first op whose result holds a NaN or an infinity though all that it read was finite; None where none does.

    The traced graph runs on NumPy, gradients included, with the state as it is, which stays so. Whatever is not finite
    before any op (an input, a parameter) is named itself. Constants are meant as they are: a mask of ``-inf`` is no
    fault. Raises what the inputs' checks raise.
    """
    from passes.autodiff import expand_gradients

    graph = expand_gradients(executable.graph)
    state = {name: np.array(cell.array) for name, cell in executable.cells.items()}
    arrays, sizes = interpreter.bind(graph, inputs, state)
    for port, array in zip((*graph.inputs, *graph.state), arrays, strict=True):
        if found := _fault(port.node.op.name, port, array):
            return found
    infinite: set[Value] = set()
    faults: list[NonFinite] = []

    def look(node: Node, results: tuple[np.ndarray, ...]) -> None:
        for v, array in zip(node.outputs, results, strict=True):
            found = _fault(node.op.name, v, array)
            if found is not None:
                infinite.add(v)
                if node.inputs and infinite.isdisjoint(node.inputs):
                    faults.append(found)

    interpreter.run_bound(graph, arrays, sizes, look)
    return faults[0] if faults else None


def _fault(op: str, v: Value, array: np.ndarray) -> NonFinite | None:
    if not v.dtype.is_float:
        return None
    bad = ~np.isfinite(array)
    if not bad.any():
        return None
    position = tuple(int(i) for i in np.argwhere(bad)[0])
    name = v.node.attrs["name"] if op in ("input", "state") else v.name
    return NonFinite(op, name, float(array[position]), position, int(bad.sum()), v.node.location)
