"""The process-wide random numbers: counter-based in programs, a NumPy generator for initialisation."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from engine.dtypes import i64
from engine.errors import TenonError
from engine.state import Cell

_BLOCK = 1 << 14
"""Draws made at once: they stay in the cache until they have been rounded to the array's dtype."""


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

    def uniform(self, low: float, high: float, count: int) -> Callable[[np.ndarray], None]:
        """What writes ``count`` uniform draws from [low, high) into an array. The generator moves on now, whether they
        are ever made or not."""
        bits: Any = self.generator.bit_generator
        state = bits.state
        bits.advance(count)  # one step a number of 64 bits
        if state["has_uint32"]:  # it keeps half of a step, which advance drops
            bits.state = bits.state | {key: state[key] for key in ("has_uint32", "uinteger")}

        def fill(array: np.ndarray) -> None:
            own: Any = np.random.PCG64(0)
            own.state = state
            draw, flat = np.random.Generator(own), array.reshape(-1)
            for start in range(0, count, _BLOCK):
                size = min(_BLOCK, count - start)
                flat[start : start + size] = draw.uniform(low, high, size)

        return fill

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
