"""Where the code of a program's kernels came from."""

from __future__ import annotations

from collections.abc import Mapping

from engine.records import dataclass


@dataclass(frozen=True)
class Report:
    """Where the code came from: kernels compiled, loaded from the cache, and already in this process; the driver counts
    as one. ``seconds`` is the time it all took, ``took`` that of each compiled kernel, and ``known`` those that were in
    this process, by their keys."""

    compiled: int
    loaded: int
    shared: int
    seconds: float
    took: Mapping[str, float]
    known: frozenset[str]
