"""The process-wide random numbers: counter-based in programs, a NumPy generator for initialisation."""

from __future__ import annotations

import operator
from functools import cached_property

import numpy as np

from engine.dtypes import i64
from engine.errors import TenonError
from engine.state import Cell


class RandomState:
    """``seed`` and ``step`` are state (i64 scalars) of every program that draws random numbers; each call of such a
    program adds one to ``step``. ``generator`` fills parameters and makes random arrays outside of programs."""

    def __init__(self, seed: int = 0):
        self.seed = Cell(np.asarray(seed), i64)
        self.step = Cell(np.zeros((), np.int64), i64)
        self._first = seed

    @cached_property
    def generator(self) -> np.random.Generator:
        """Made when it is first asked for: what NumPy's random numbers import takes a tenth of a start."""
        return np.random.default_rng(self._first)

    def reset(self, seed: int) -> None:
        """Start over from ``seed``. Raises TenonError unless 0 <= seed < 2**63."""
        number = operator.index(seed)
        if not 0 <= number < 2**63:
            raise TenonError(f"a seed lies between 0 and 2**63 - 1, not {seed}")
        self.seed.write(np.asarray(number))
        self.step.write(np.zeros((), np.int64))
        self.generator = np.random.default_rng(number)


default = RandomState()


def seed(n: int) -> None:
    """Seed everything that is random: initialisation, ``rand`` and ``randn``, and dropout in compiled programs.

    PyTorch: torch.manual_seed. Differs: it gives no generator.
    """
    default.reset(n)
