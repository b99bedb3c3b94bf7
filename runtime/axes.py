"""Simplifying an iteration space: axes of size 1 go, and neighbours that every access walks as one become one."""

from __future__ import annotations

from dataclasses import replace

from engine.dims import Size
from engine.schedule import KernelSpec, Stmt

Strides = tuple[Size, ...]


def groups(axes: Strides, strides: list[Strides], barriers: frozenset[int] = frozenset()) -> list[tuple[int, ...]]:
    """The axes that remain, each as the tuple of axes that it stands for, outermost first.

    ``barriers`` are axes that may not be merged with the one before. A group is one axis whose size is the product
    of its sizes and whose strides are those of its last member.
    """
    found: list[tuple[int, ...]] = []
    for axis, size in enumerate(axes):
        if size == 1:
            continue
        if found and not any(b in barriers for b in range(found[-1][-1] + 1, axis + 1)):
            before = found[-1][-1]
            if all(s[before] == s[axis] * size for s in strides):
                found[-1] += (axis,)
                continue
        found.append((axis,))
    return found


def all_strides(spec: KernelSpec) -> list[Strides]:
    """How the accesses and the indices of ``spec`` move along its axes."""
    return [a.strides for a in (*spec.reads, *spec.writes)] + [s.sizes for s in spec.body if s.op == "index"]


def reordered(spec: KernelSpec, order: tuple[int, ...]) -> KernelSpec:
    """``spec``, which reduces nothing, with its axes in this order."""

    def in_order(values: Strides) -> Strides:
        return tuple(values[axis] for axis in order)

    return replace(
        spec,
        axes=in_order(spec.axes),
        reads=tuple(replace(a, strides=in_order(a.strides)) for a in spec.reads),
        writes=tuple(replace(a, strides=in_order(a.strides)) for a in spec.writes),
        body=tuple(replace(s, sizes=in_order(s.sizes)) if s.op == "index" else s for s in spec.body),
    )


def collapse(spec: KernelSpec) -> KernelSpec:
    """``spec``, whose core (if any) knows nothing of axes, over the fewest of them. Reduced and kept axes never
    merge, nor does a split axis."""
    strides = all_strides(spec)
    barriers = set()
    for axis in range(1, len(spec.axes)):
        if (axis in spec.reduced) != (axis - 1 in spec.reduced):
            barriers.add(axis)
    if spec.split is not None:
        barriers.update((spec.reduced[0], spec.reduced[0] + 1))
    kept = groups(spec.axes, strides, frozenset(barriers))
    if spec.split is not None and (spec.reduced[0],) not in kept:
        kept = sorted([*kept, (spec.reduced[0],)])
    return regroup(spec, kept)


def regroup(spec: KernelSpec, kept: list[tuple[int, ...]]) -> KernelSpec:
    """``spec`` over the axes ``kept``, as :func:`groups` found them."""

    def last(values: Strides) -> Strides:
        return tuple(values[g[-1]] for g in kept)

    def statement(stmt: Stmt) -> Stmt:
        return replace(stmt, sizes=last(stmt.sizes)) if stmt.op == "index" else stmt

    sizes = []
    for group in kept:
        size: Size = 1
        for axis in group:
            size = size * spec.axes[axis]
        sizes.append(size)
    return replace(
        spec,
        axes=tuple(sizes),
        reads=tuple(replace(a, strides=last(a.strides)) for a in spec.reads),
        writes=tuple(replace(a, strides=last(a.strides)) for a in spec.writes),
        body=tuple(statement(s) for s in spec.body),
        reduced=tuple(i for i, g in enumerate(kept) if g[-1] in spec.reduced),
    )
