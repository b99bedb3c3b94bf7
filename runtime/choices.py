"""Questions that a lowering leaves open: it offers candidates, the best by its own estimate first.

Left alone, every question gets its first candidate. Under :func:`answered` it gets the one that the answers name: so a
tuner tries the others, without a word of that in any lowering.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

Questions = dict[str, tuple[str, ...]]
"""The candidates of each question, as texts, in the order in which they were asked."""


class _Dialogue:
    """The answers to the questions of one lowering, and what it has asked so far."""

    def __init__(self, answers: Mapping[str, int]):
        self.answers = answers
        self.asked: Questions = {}


_current: ContextVar[_Dialogue | None] = ContextVar("tenon_choices", default=None)


def pick(question: str, candidates: Mapping[str, T]) -> T:
    """One of ``candidates``, which have names for people: the first, unless an answer says otherwise.

    Whichever is taken, the kernel computes the same, up to the order of its sums where the documentation says so.
    A question that is asked again in the same lowering is another one: ``tile``, ``tile 2``.
    """
    dialogue = _current.get()
    values = list(candidates.values())
    if dialogue is None or len(values) < 2:
        return values[0]
    name, number = question, 1
    while name in dialogue.asked:
        number += 1
        name = f"{question} {number}"
    dialogue.asked[name] = tuple(candidates)
    return values[dialogue.answers.get(name, 0)]


def answered(answers: Mapping[str, int], lower: Callable[[], T]) -> tuple[T, Questions]:
    """What ``lower`` makes with these answers, by question the number of a candidate, and all that it asked."""
    dialogue = _Dialogue(answers)
    token = _current.set(dialogue)
    try:
        return lower(), dialogue.asked
    finally:
        _current.reset(token)
