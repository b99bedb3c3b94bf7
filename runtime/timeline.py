"""When a program's kernels ran, as every backend's profile has it."""

from __future__ import annotations

import numpy as np

from engine.records import dataclass


@dataclass(frozen=True)
class Timeline:
    """The kernels of one call: which ``step`` of ``Program.main`` ran on which ``thread``, from ``start`` to ``end``;
    the last thread ``left`` the native code then. Times are seconds, from 0 where the first entered it."""

    step: np.ndarray
    thread: np.ndarray
    start: np.ndarray
    end: np.ndarray
    left: float
