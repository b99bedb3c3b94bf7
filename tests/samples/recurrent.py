"""Recurrences: arguments on which their ops are tried."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.cells import CELLS
from engine.ops.recurrent import GRAD_GIVEN
from samples import Sample, normal

LENGTHS = np.array([2, 1])
STEPS, BATCH, HIDDEN, PROJECTED = 2, 2, 2, 1


def recurrence(name: str, given: str, reverse: bool = False, projected: bool = False) -> list[Sample]:
    """A recurrence, and its gradient at what it gives."""
    cell, more = CELLS[name], given.split()
    width = PROJECTED if projected else HIDDEN
    known: dict[str, np.ndarray] = {
        "x": normal(STEPS, BATCH, cell.gates * HIDDEN), "weight": normal(cell.gates * HIDDEN, width) * 0.5,
        "h": normal(BATCH, width), "c": normal(BATCH, HIDDEN), "bias": normal(cell.gates * HIDDEN),
        "projection": normal(width, HIDDEN), "lengths": LENGTHS,
    }  # fmt: skip
    attrs: dict[str, Any] = {"given": given, "reverse": reverse}
    arrays = tuple(known[n] for n in ("x", "weight", *more))
    shapes = {"hs": width, "cs": HIDDEN, "saved": len(cell.saved) * HIDDEN, "g_hs": width}
    known |= {n: normal(STEPS, BATCH, size) for n, size in shapes.items() if size}
    known |= {"g_h": normal(BATCH, width), "g_c": normal(BATCH, HIDDEN)}
    wanted = {*more, "hs", "g_hs", "g_h"} | ({"cs", "g_c"} if cell.memory else set()) | {"saved"} & known.keys()
    names = [n for n in GRAD_GIVEN if n in wanted]
    grads = Sample(f"{name}_grad", (known["weight"], *(known[n] for n in names)), attrs | {"given": " ".join(names)})
    return [Sample(name, arrays, attrs), grads]


SAMPLES: list[Sample] = [
    *recurrence("rnn_tanh", "h lengths"),
    *recurrence("rnn_relu", "", reverse=True),
    *recurrence("lstm", ""),
    *recurrence("lstm", "h c lengths", reverse=True),
    *recurrence("lstm", "h c projection lengths", projected=True),
    *recurrence("gru", "bias"),
    *recurrence("gru", "h bias lengths", reverse=True),
]
