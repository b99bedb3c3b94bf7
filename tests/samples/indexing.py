"""Gathers, scatters and windows: arguments on which ops are tried."""

from __future__ import annotations

import numpy as np

from samples import Sample, distinct, integers, normal

_rows = np.array([[0, 2, 2], [1, 0, 2]])
_far = {"axis": 1, "size": 3, "step": 2}

SAMPLES: list[Sample] = [
    Sample("gather", (normal(2, 4), _rows), {"axis": 1}, lambda t, x, i, axis: t.take_along_dim(x, i, axis)),
    Sample("gather", (normal(5, 1, 3), integers(5, 2, 4, 1)), {"axis": 0}),
    Sample("gather", (normal(1, 3, 4), integers(3, 2, 2, 1, dtype="int32")), {"axis": 1}),
    *(
        Sample("scatter", (distinct(2, 4) * 0.7, _rows, distinct(2, 3)), {"axis": 1, "mode": mode},
               lambda t, x, i, s, axis, mode: x.scatter_add(axis, i, s) if mode == "add" else
               x.scatter_reduce(axis, i, s, {"mul": "prod", "max": "amax", "min": "amin"}[mode]))
        for mode in ("add", "mul", "max", "min")
    ),
    Sample("scatter", (normal(3, 2), np.array([[0], [2]]), normal(2, 2)), {"axis": 0, "mode": "set"}),
    Sample("scatter", (normal(5, 1, 3), integers(5, 2, 4, 1), normal(2, 4, 3)), {"axis": 0, "mode": "add"}),
    Sample("scatter", (normal(3, 2), np.array([[0], [2], [0]]), np.array([[0.0, 2.0], [1.5, 0.5], [3.0, 0.0]])),
           {"axis": 0, "mode": "mul"}),
    Sample("window", (normal(2, 8, 3),), _far, lambda t, x, axis, size, step: x.unfold(axis, size, step)),
    Sample("window", (normal(9),), {"axis": 0, "size": 2, "step": 1, "dilation": 3}),
    Sample("overlap_add", (normal(2, 3, 2, 3),), {**_far, "length": 9}),
    Sample("overlap_add", (normal(4, 3),), {"axis": 0, "size": 3, "dilation": 2, "length": 8}),
    Sample("overlap_add", (normal(3, 2, 2),), {"axis": 0, "size": 2, "step": 4, "dilation": 2, "length": 13}),
]  # fmt: skip
