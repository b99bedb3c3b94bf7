"""What tuning found: which candidates of each kernel were measured, and which one a program takes."""

from __future__ import annotations

import json

from engine.errors import TextError
from engine.records import dataclass


@dataclass(frozen=True)
class Finding:
    """A ``question`` of a lowering: its candidates with the seconds that each took, the one that is taken by default
    first, and the number of the one that is ``chosen``."""

    question: str
    candidates: tuple[str, ...]
    seconds: tuple[float, ...]
    chosen: int


@dataclass(frozen=True)
class Tuned:
    """The findings of one kernel, in the order of its questions. ``key`` says what is computed, at which sizes;
    ``kernels`` are those of a program that compute it, by name."""

    key: str
    kernels: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def answers(self) -> dict[str, int]:
        """The number of the chosen candidate, by question, where that is not the default."""
        return {f.question: f.chosen for f in self.findings if f.chosen}


@dataclass(frozen=True)
class Tuning:
    """What was found for one program at ``sizes``, values of its dims. ``place`` is the machine and its threads, in
    words; ``seconds`` is how long it took, ``measured`` how many kernels of ``tuned`` were measured for it: the cache
    knew the others."""

    sizes: tuple[tuple[str, int], ...]
    place: str
    tuned: tuple[Tuned, ...]
    seconds: float = 0.0
    measured: int = 0

    @property
    def answers(self) -> dict[str, dict[str, int]]:
        """Of each kernel that is not lowered by default, by key, its answers."""
        return {t.key: t.answers for t in self.tuned if t.answers}

    @property
    def key(self) -> str:
        """What of it tells programs apart."""
        return "; ".join(f"{key}: {answers}" for key, answers in sorted(self.answers.items()))


def to_json(tuned: tuple[Tuned, ...]) -> str:
    """``tuned`` as compact JSON."""
    lists = [[t.key, t.kernels, [[f.question, f.candidates, f.seconds, f.chosen] for f in t.findings]] for t in tuned]
    return json.dumps(lists, separators=(",", ":"))


def from_json(text: str | bytes) -> tuple[Tuned, ...]:
    """What :func:`to_json` wrote. Raises TextError for anything else."""
    try:
        return tuple(
            Tuned(str(key), tuple(map(str, kernels)), tuple(_finding(*found) for found in findings))
            for key, kernels, findings in json.loads(text)
        )
    except (ValueError, TypeError) as error:
        raise TextError(f"these are no findings of a tuner: {error}") from None


def _finding(question: str, candidates: list[str], seconds: list[float], chosen: int) -> Finding:
    if not (len(candidates) == len(seconds) and chosen in range(len(seconds))):
        raise ValueError(f"candidate {chosen} of {len(candidates)}, with {len(seconds)} times")
    return Finding(str(question), tuple(map(str, candidates)), tuple(map(float, seconds)), chosen)
