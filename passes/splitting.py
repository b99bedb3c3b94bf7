"""Cut a long reduction into chunks that run in parallel, and a kernel that combines them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from engine import dims
from engine.dims import Size
from engine.schedule import Access, KernelSpec, Stmt
from passes.views import dense


def split_reduction(spec: KernelSpec, chunk: Size, partial: Callable[[str, Access, Size], str]) -> list[KernelSpec]:
    """Cut a long reduction in two kernels: chunks that reduce on their own, and one that combines them.

    The sums then depend on the shapes alone. What follows the reduction moves to the second kernel.
    """
    first = spec.reduced[0]
    chunks = dims.ceil_div(spec.axes[first], chunk)
    kept = [i for i in range(len(spec.axes)) if i not in spec.reduced]
    kept_sizes = tuple(spec.axes[i] for i in kept)
    rounds = [s for s in spec.body if s.op.startswith("reduce_")]
    after = _following({s.name for s in rounds}, spec.body)
    writes: list[Access] = []
    body: list[Stmt] = []
    for s in spec.body:
        if s.name in after or s in rounds:
            if s in rounds:
                body.append(s)
            continue
        if s.op == "store":
            body.append(replace(s, args=(len(writes), s.args[1])))
            writes.append(spec.writes[s.args[0]])  # type: ignore[index]
        else:
            body.append(s)
    layout = dense("", (chunks, *kept_sizes))
    reads = list(spec.reads)
    second: list[Stmt] = []
    for k, s in enumerate(rounds):
        strides: list[Size] = [0] * len(spec.axes)
        for place, i in enumerate(kept):
            strides[i] = layout.strides[1 + place]
        access = Access("", s.dtype, tuple(strides), chunk_stride=layout.strides[0])
        buffer = partial(f"{s.name}_partial{k}", access, chunks)
        body.append(Stmt(f"{s.name}_store", "store", (len(writes), s.name), s.dtype))
        writes.append(replace(access, buffer=buffer))
        reads.append(Access(buffer, s.dtype, (layout.strides[0], *layout.strides[1:])))
        second.append(Stmt(f"{s.name}_part", "load", (len(reads) - 1,), s.dtype))
        second.append(Stmt(s.name, s.op, (f"{s.name}_part",), s.dtype))
    needed = _needed(after, spec.body, {s.name for s in rounds})
    second += [s for s in spec.body if s.name in after or s.name in needed]
    partials = replace(spec, name=f"{spec.name}_partial", writes=tuple(writes), body=tuple(body), split=chunk)
    combine = compact(
        replace(
            spec,
            axes=(chunks, *kept_sizes),
            reads=tuple(_dropped(r, kept) if r.buffer and n < len(spec.reads) else r for n, r in enumerate(reads)),
            writes=tuple(_dropped(w, kept) for w in spec.writes),
            body=tuple(_shifted(s, kept) for s in second),
            reduced=(0,),
            core=None,
        )
    )
    return [compact(partials), combine]


def _dropped(access: Access, kept: list[int]) -> Access:
    return replace(access, strides=(0, *(access.strides[i] for i in kept)))


def _shifted(s: Stmt, kept: list[int]) -> Stmt:
    return replace(s, sizes=(0, *(s.sizes[i] for i in kept))) if s.op == "index" else s


def _following(names: set[str], body: Sequence[Stmt]) -> set[str]:
    """The statements that depend on ``names``."""
    found: set[str] = set()
    for s in body:
        if any(a in names or a in found for a in s.args if isinstance(a, str)):
            found.add(s.name)
    return found


def _needed(wanted: set[str], body: Sequence[Stmt], given: set[str]) -> set[str]:
    """The statements, not given nor wanted themselves, that ``wanted`` depend on."""
    found: set[str] = set()
    for s in reversed(body):
        if s.name in wanted or s.name in found:
            found.update(a for a in s.args if isinstance(a, str) and a not in given and a not in wanted)
    return found


def compact(spec: KernelSpec) -> KernelSpec:
    """Drop the reads and writes that no statement names, and statements that nothing needs."""
    stores = [s for s in spec.body if s.op in ("store", "check_index")]
    alive = {s.name for s in stores} | _needed({s.name for s in stores}, spec.body, set())
    body = [s for s in spec.body if s.name in alive]
    reads = sorted({s.args[0] for s in body if s.op == "load"})
    writes = sorted({s.args[0] for s in body if s.op == "store"})
    renumbered = tuple(
        replace(s, args=(reads.index(s.args[0]),))
        if s.op == "load"
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
