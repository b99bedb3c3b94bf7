"""Conditionals: arguments on which their ops are tried."""

from __future__ import annotations

import numpy as np

from samples import Sample, normal

SAMPLES: list[Sample] = [
    Sample("merge", (np.array(True), normal(2, 3), normal(3))),
    Sample("merge", (np.array(False), normal(2, 3), normal(2, 1))),
    # On the other side a switch's value is read by nobody, and its gradient is zero.
    Sample("switch", (np.array(True), normal(2, 3)), {"side": True}),
    Sample("switch", (np.array(False), normal(2, 3)), {"side": False}),
]
