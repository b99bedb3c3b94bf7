"""Recurrences' kernels beside the reference: every cell, both directions, lengths, projections, outputs left out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cuda_harness import check
from cuda_recurrence import recurrence

TOLERANCES = {"bf16": 2e-2, "f16": 3e-3, "f32": 4e-6, "f64": 1e-12}


def checked(cell, *shape, dtype="f32", orders=(0, 3), **options):
    case = recurrence(cell, *shape, dtype=dtype, **options)
    return check(replace(case, tolerance=TOLERANCES[dtype]), orders)


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("rnn_tanh", {}),
        ("rnn_relu", {"given": "h lengths", "reverse": True}),
        ("lstm", {"dtype": "bf16"}),
        ("lstm", {"given": "h c lengths", "reverse": True, "dtype": "f64"}),
        ("lstm", {"given": "h c projection lengths", "width": 4}),
        ("lstm", {"without": ("hs", "cs", "saved")}),
        ("gru", {"given": "bias"}),
        ("gru", {"given": "h bias lengths", "without": ("saved", "hs"), "dtype": "f64"}),
    ],
)
def test_forward(cell, options):
    checked(cell, **options)


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("rnn_tanh", {"given": "hs g_hs"}),
        ("rnn_relu", {"given": "h lengths hs g_hs g_h", "reverse": True}),
        ("lstm", {"given": "hs cs saved g_hs", "dtype": "bf16"}),
        ("lstm", {"given": "h c lengths hs cs saved g_hs g_h g_c", "reverse": True, "dtype": "f64"}),
        ("lstm", {"given": "h c projection lengths hs cs saved g_hs g_h g_c", "width": 4}),
        ("gru", {"given": "hs saved g_hs", "without": ("dh",)}),
        ("gru", {"given": "h lengths hs saved g_h", "dtype": "f64"}),
    ],
)
def test_backward(cell, options):
    checked(cell, backward=True, **options)
