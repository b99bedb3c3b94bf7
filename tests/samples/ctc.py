"""Connectionist temporal classification: arguments on which its ops are tried."""

from __future__ import annotations

import numpy as np

from samples import Sample, between, normal

# Lengths below the greatest, equal neighbours (which need a blank between), a target without labels.
TARGETS = np.array([[1, 1, 2], [2, 3, 0], [0, 0, 0]])
LENGTHS = (np.array([5, 3, 4]), np.array([3, 2, 0]))


SAMPLES: list[Sample] = [
    Sample("ctc_loss", (normal(5, 3, 4), TARGETS, *LENGTHS), {"blank": 0}),
    Sample("ctc_loss", (normal(3, 1, 3), np.array([[1, 0]]), np.array([3]), np.array([2])), {"blank": 2}),
    Sample("ctc_loss_grad", (between(0.5, 1, 3), normal(5, 3, 4), TARGETS, *LENGTHS), {"blank": 0}),
]
