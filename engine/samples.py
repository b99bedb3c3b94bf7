"""Made-up arguments for a graph, the same for the same seed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from engine import dims
from engine.dims import Shape
from engine.dtypes import DType
from engine.errors import TenonError
from engine.graph import Graph

SIZES = (4, 3, 2, 8, 5, 1, 16, 32, 6, 7, 0)
"""What a dim is tried at, in this order."""

Named = dict[str, np.ndarray]


def sample(graph: Graph, seed: int = 0, sizes: Mapping[str, int] | None = None) -> tuple[Named, Named]:
    """Inputs and state for ``graph``: floats in [0, 1) for inputs and [0, 0.1) for state (so that a second moment is no
    negative number), integers 0 or 1 (so that they are labels of any classifier).

    ``sizes`` gives the dims; without, the first sizes that the program's assumptions allow. Raises TenonError
    where none is found.
    """
    random = np.random.default_rng(seed)
    known = find_sizes(graph) if sizes is None else sizes

    def draw(shape: Shape, dtype: DType, scale: float) -> np.ndarray:
        concrete = [dims.evaluate(s, known) for s in shape]
        if dtype.is_float:
            return (random.random(concrete) * scale).astype(dtype.numpy)
        return random.integers(0, 2, concrete).astype(dtype.numpy)

    inputs = {v.node.attrs["name"]: draw(v.shape, v.dtype, 1.0) for v in graph.inputs}
    return inputs, {v.node.attrs["name"]: draw(v.shape, v.dtype, 0.1) for v in graph.state}


def find_sizes(graph: Graph, candidates: Sequence[int] = SIZES, tries: int = 10_000) -> dict[str, int]:
    """Sizes for the graph's dims under which its assumptions hold and no input has a negative size."""
    names = graph.dims()
    sizes = [s for v in graph.inputs for s in v.shape if not isinstance(s, int)]
    equal = (dict(zip(names, [n] * len(names), strict=True)) for n in candidates)
    mixed = (dict(zip(names, ns, strict=True)) for ns in itertools.product(candidates, repeat=len(names)))
    for known in itertools.islice(itertools.chain(equal, mixed), tries):
        if all(a.holds(known) for a in graph.assumptions) and all(dims.evaluate(s, known) >= 0 for s in sizes):
            return known
    raise TenonError(f"no small sizes of {', '.join(names)} satisfy what {graph.name} assumes: give inputs")
