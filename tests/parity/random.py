"""Random: what Tenon and PyTorch have in common where each draws its own numbers."""

from __future__ import annotations

from typing import Any

from parity import Case, ModuleCase, distinct, normal
from tenon import F

IMAGES = {"dropout1d": (4, 6, 5), "dropout2d": (3, 6, 4, 5), "dropout3d": (2, 6, 3, 2, 4)}
SHAPES = {"dropout": (5, 7), "alpha_dropout": (5, 7), "feature_alpha_dropout": (3, 6, 4)} | IMAGES


def unchanged(name: str, p: float, training: bool) -> Case:
    """Evaluation changes nothing, nor does a probability of 0."""
    return Case(f"{name}/p={p}, training={training}", lambda x: getattr(F, name)(x, p, training),
                lambda t, x: getattr(t.nn.functional, name)(x, p, training), (normal(*SHAPES[name]),))  # fmt: skip


def nothing_left(name: str) -> Case:
    return Case(f"{name}/p=1", lambda x: getattr(F, name)(x, 1.0, True),
                lambda t, x: getattr(t.nn.functional, name)(x, 1.0, True), (normal(*SHAPES[name]),))  # fmt: skip


def whole_channels(name: str) -> Case:
    """A channel is kept or dropped as a whole: its elements all have one factor, 0 or 1 / (1 - p)."""
    axes = tuple(range(2, len(SHAPES[name])))

    def factors(functional: Any, x: Any) -> Any:
        factor = getattr(functional, name)(x, 0.75, True) / x
        return factor.amax(axes) - factor.amin(axes), factor * (factor - 4)

    return Case(f"{name}/whole channels", lambda x: factors(F, x), lambda t, x: factors(t.nn.functional, x),
                (distinct(*SHAPES[name]),), grads=False, tolerance=10)  # fmt: skip


def shares(functional: Any, x: Any, hard: bool) -> Any:
    """Shares of 1, or with ``hard`` all of it in one place, whatever the noise."""
    found = functional.gumbel_softmax(x, 0.7, hard, dim=1)
    return found.sum(1), (found * (1 - found)).sum(1) if hard else found.sum(1)


CASES: list[Case | ModuleCase] = [
    *(unchanged(name, 0.5, False) for name in SHAPES),
    *(unchanged(name, 0.0, True) for name in SHAPES),
    *(nothing_left(name) for name in ("dropout", *IMAGES)),
    *(whole_channels(name) for name in IMAGES),
    *(Case(f"gumbel_softmax/hard={hard}", lambda x, hard=hard: shares(F, x, hard),
           lambda t, x, hard=hard: shares(t.nn.functional, x, hard), (normal(4, 5, 3),), grads=False)
      for hard in (False, True)),
]  # fmt: skip
