"""Activations and other elementwise functions: cases in which Tenon and PyTorch do the same."""

from __future__ import annotations

from parity import Case, ModuleCase, distinct, normal
from tenon import F, nn

CASES: list[Case | ModuleCase] = [
    Case("relu", F.relu, lambda t, x: t.relu(x), (distinct(3, 4),), compiled=True, batched=(0,)),
    Case("softmax", lambda x: F.softmax(x, -1), lambda t, x: t.softmax(x, -1), (normal(3, 4),)),
    ModuleCase("Linear", lambda: nn.Linear(4, 3), lambda t: t.nn.Linear(4, 3), (normal(2, 4),), compiled=True),
]
