"""Sorting and scans: arguments on which ops are tried."""

from __future__ import annotations

import numpy as np

from samples import Sample, between, distinct, normal

SAMPLES: list[Sample] = [
    Sample("sort", (distinct(2, 5),), {"axis": 1}, lambda t, x, axis: t.sort(x, axis)[0]),
    Sample("sort", (distinct(4, 2),), {"axis": 0, "descending": True},
           lambda t, x, axis, descending: t.sort(x, axis, descending)[0]),
    Sample("cummax", (distinct(3, 5),), {"axis": 1}, lambda t, x, axis: t.cummax(x, axis)[0]),
    Sample("cummin", (distinct(5, 2),), {"axis": 0}, lambda t, x, axis: t.cummin(x, axis)[0]),
    Sample("linear_scan", (np.ones(()), normal(2, 5)), {"axis": 1}),
    Sample("linear_scan", (between(-1, 1, 4, 3), normal(4, 3)), {"axis": 0}),
    Sample("linear_scan", (between(-1, 1, 3), normal(2, 4, 3)), {"axis": 1, "reverse": True}),
    Sample("linear_scan", (between(-1, 1, 5, 1), normal(2, 5, 2)), {"axis": 1, "reverse": True}),
]  # fmt: skip
