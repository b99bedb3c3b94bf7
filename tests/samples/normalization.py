"""Normalisation: arguments on which ops are tried."""

from __future__ import annotations

from samples import Sample, between, normal

SAMPLES: list[Sample] = [
    Sample("moments", (normal(3, 2, 4),), {"axes": (0, 2)}, lambda t, x, axes: x.mean(axes, True)),
    Sample("moments", (normal(2, 5),), {"axes": (1,)}),
    Sample("standardise", (normal(3, 2, 4), normal(2, 1), between(0.5, 2, 2, 1)), {}, lambda t, x, m, s: (x - m) * s),
    Sample("standardise", (normal(2, 5), normal(2, 1), between(0.5, 2, 2, 1))),
]
