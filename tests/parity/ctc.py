"""CTC: cases in which Tenon and PyTorch do the same, behind a log_softmax."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity import Case, ModuleCase, integers, normal
from tenon import F, nn

X = normal(7, 3, 5)
TARGETS = np.array([[1, 2, 2], [3, 1, 0], [4, 4, 4]])
JOINED = np.array([1, 2, 2, 3, 1, 4])
INPUTS, LENGTHS = np.array([7, 5, 6]), np.array([3, 2, 1])
IMPOSSIBLE = (np.array([3, 2, 6]), np.array([3, 2, 1]))


def case(name: str, *arrays: np.ndarray, grads: bool = True, compiled: bool = False, **options: Any) -> Case:
    return Case(
        f"ctc_loss/{name}",
        lambda x, *rest: F.ctc_loss(x.log_softmax(-1), *rest, **options),
        lambda t, x, *rest: t.nn.functional.ctc_loss(x.log_softmax(-1), *rest, **options),
        arrays,
        grads=grads,
        compiled=compiled,
    )


CASES: list[Case | ModuleCase] = [
    case("mean", X, TARGETS, INPUTS, LENGTHS, compiled=True),
    case("sum", X, TARGETS, INPUTS, LENGTHS, reduction="sum"),
    case("none", X, TARGETS, INPUTS, LENGTHS, reduction="none"),
    case("blank is last", X, TARGETS % 4, INPUTS, LENGTHS, blank=4),
    case("targets in one axis", X, JOINED, INPUTS, LENGTHS, compiled=True),
    case("no labels", X, TARGETS, INPUTS, np.array([0, 2, 0]), reduction="none"),
    case("one example", X[:, 0], TARGETS[0], np.array(7), np.array(3)),
    case("one example, none", X[:, 0], TARGETS[0][:2], np.array(6), np.array(2), reduction="none"),
    case("impossible", X, TARGETS, *IMPOSSIBLE, reduction="none", grads=False),
    case("impossible and zero", X, TARGETS, *IMPOSSIBLE, reduction="none", zero_infinity=True, compiled=True),
    case("impossible and zero, mean", X, TARGETS, *IMPOSSIBLE, zero_infinity=True),
    case("large logits", X * 50, TARGETS, INPUTS, LENGTHS),
    case("one step", normal(1, 2, 3), np.array([[1], [2]]), np.array([1, 1]), np.array([1, 1])),
    case("many steps", normal(40, 2, 6), integers(5, 2, 12) + 1, np.array([40, 33]), np.array([12, 9])),
    ModuleCase("CTCLoss", lambda: nn.CTCLoss(blank=1, zero_infinity=True),
               lambda t: t.nn.CTCLoss(blank=1, zero_infinity=True), (X, TARGETS + (TARGETS == 1), INPUTS, LENGTHS),
               grads=False),
]  # fmt: skip
