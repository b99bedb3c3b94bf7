"""What a pass did to a graph: which values it replaced by which, and the rule that said so.

Rewriters report here while somebody listens; otherwise it costs them a look at an empty list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from engine.records import dataclass


@dataclass(frozen=True)
class Rewrite:
    """The values ``before`` of the node of that name became the values ``after``, by ``rule``: its name, or where the
    pass has but one for each op, the op's. The nodes ``made`` are new."""

    rule: str
    node: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    made: tuple[str, ...] = ()


_listening: ContextVar[list[Rewrite] | None] = ContextVar("listening", default=None)


@contextmanager
def recording() -> Iterator[list[Rewrite]]:
    """Collect the rewrites that happen inside."""
    found: list[Rewrite] = []
    token = _listening.set(found)
    try:
        yield found
    finally:
        _listening.reset(token)


def listeners() -> list[Rewrite] | None:
    """Where to report to, if anywhere."""
    return _listening.get()


def resolved(rewrites: Sequence[Rewrite]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """For each value that was replaced what it is at the end, and the rules on the way, in order."""
    step: dict[str, tuple[str, str]] = {}
    for r in rewrites:
        for old, new in zip(r.before, r.after, strict=True):
            if old != new:
                step[old] = new, r.rule
    found = {}
    for name in step:
        at, rules = name, []
        seen = {name}
        while at in step:
            at, rule = step[at]
            rules.append(rule)
            if at in seen:
                break
            seen.add(at)
        found[name] = at, tuple(dict.fromkeys(rules))
    return found
