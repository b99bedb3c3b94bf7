"""What the statements of a kernel's body need of one another, and a kernel without those that nothing needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engine.schedule import LOADS, KernelSpec, Stmt


def following(names: set[str], body: Sequence[Stmt]) -> set[str]:
    """The statements that depend on ``names``."""
    found: set[str] = set()
    for s in body:
        if any(a in names or a in found for a in s.args if isinstance(a, str)):
            found.add(s.name)
    return found


def needed(wanted: set[str], body: Sequence[Stmt], given: set[str]) -> set[str]:
    """The statements, not given nor wanted themselves, that ``wanted`` depend on."""
    found: set[str] = set()
    for s in reversed(body):
        if s.name in wanted or s.name in found:
            found.update(a for a in s.args if isinstance(a, str) and a not in given and a not in wanted)
    return found


def compact(spec: KernelSpec) -> KernelSpec:
    """Drop the reads and writes that no statement names, and statements that nothing needs."""
    stores = [s for s in spec.body if s.op in ("store", "check_index")]
    alive = {s.name for s in stores} | needed({s.name for s in stores}, spec.body, set())
    body = [s for s in spec.body if s.name in alive]
    reads = sorted({s.args[0] for s in body if s.op in LOADS})
    writes = sorted({s.args[0] for s in body if s.op == "store"})
    renumbered = tuple(
        replace(s, args=(reads.index(s.args[0]), *s.args[1:]))
        if s.op in LOADS
        else replace(s, args=(writes.index(s.args[0]), *s.args[1:]))
        if s.op == "store"
        else s
        for s in body
    )
    return replace(
        spec,
        reads=tuple(spec.reads[i] for i in reads),  # type: ignore[index]
        writes=tuple(spec.writes[i] for i in writes),  # type: ignore[index]
        body=renumbered,
    )
