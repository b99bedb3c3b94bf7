"""Attention: arguments on which its ops are tried."""

from __future__ import annotations

from typing import Any

import numpy as np

from samples import Sample, normal

BATCH, HEADS, QUERIES, KEYS, FEATURES, WIDTH = 2, 2, 3, 4, 2, 3


def attention(given: dict[str, np.ndarray], groups: int = HEADS, **options: Any) -> list[Sample]:
    """Attention, and its gradient at sums of exponentials that some other scores gave."""
    attrs = {"given": " ".join(given), "scale": 0.7, **options}
    q = normal(BATCH, HEADS, QUERIES, FEATURES)
    k, v = normal(BATCH, groups, KEYS, FEATURES), normal(BATCH, groups, KEYS, WIDTH)
    g, lse, delta = normal(BATCH, HEADS, QUERIES, WIDTH), normal(BATCH, HEADS, QUERIES), normal(BATCH, HEADS, QUERIES)
    more = tuple(given.values())
    return [
        Sample("attention", (q, k, v, *more), attrs),
        Sample("attention_backward", (q, k, v, g, lse, delta, *more), attrs),
    ]


SEEN = np.array([[True, True, False, True], [True, False, True, False], [False, True, True, True]])

SAMPLES: list[Sample] = [
    *attention({}),
    *attention({"mask": SEEN[None, None], "offset": np.array([1, 0])}, groups=1, causal=True),
    *attention({"mask": normal(BATCH, 1, 1, KEYS), "seed": np.array(5), "step": np.array(2)}, dropout=0.4, stream=3),
]
