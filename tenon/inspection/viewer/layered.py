"""Where the boxes of a drawing go: left to right by what waits for what, with few crossings.

The same method as layered.js uses for the page, for pictures that are drawn without a browser.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

_COLUMN, _ROW = 46.0, 16.0
_FAR = 12
"""Over how many columns an edge keeps a way free for itself."""


@dataclass(eq=False)
class Slot:
    """A box of a column, or where an edge passes through it (``item`` is -1); ``y`` is its middle."""

    item: int
    height: float
    y: float = 0.0
    before: list[Slot] = field(default_factory=list)
    after: list[Slot] = field(default_factory=list)


@dataclass(frozen=True)
class Places:
    """The upper left corner of every box, the points on the way of each edge, which of them go far (and straight across
    others), and the size of it all."""

    corners: list[tuple[float, float]]
    ways: list[list[tuple[float, float]]]
    far: list[bool]
    width: float
    height: float


def layered(sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]]) -> Places:
    """Places for boxes of ``sizes`` (width, height) such that each of ``edges``, which lead from lower numbers to
    higher ones, goes from left to right."""
    rank = _ranks(len(sizes), edges)
    columns: list[list[Slot]] = [[] for _ in range(max(rank, default=-1) + 1)]
    slots = [Slot(i, height) for i, (_, height) in enumerate(sizes)]
    for i, slot in enumerate(slots):
        columns[rank[i]].append(slot)
    ways = [_way(slots[a], slots[b], range(rank[a] + 1, rank[b]), columns) for a, b in edges]
    _arrange(columns)

    widths = [max((sizes[s.item][0] for s in column if s.item >= 0), default=0.0) for column in columns]
    left = [0.0, *accumulate(w + _COLUMN for w in widths)]
    every = [s for column in columns for s in column]
    top = min((s.y - s.height / 2 for s in every), default=0.0)
    for slot in every:
        slot.y -= top
    corners = [(left[r] + (widths[r] - w) / 2, s.y - h / 2) for s, r, (w, h) in zip(slots, rank, sizes, strict=True)]
    points = [
        [(left[r] + part, s.y) for r, s in enumerate(way, rank[a] + 1) for part in (0.0, widths[r])]
        for (a, _), way in zip(edges, ways, strict=True)
    ]
    far = [rank[b] - rank[a] > _FAR for a, b in edges]
    return Places(corners, points, far, left[-1] - _COLUMN, max((s.y + s.height / 2 for s in every), default=0.0))


def _ranks(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The column of each box: behind all that it waits for; one that waits for nothing stands before its first user."""
    rank = [0] * count
    users: list[list[int]] = [[] for _ in range(count)]
    waiting = [False] * count
    for a, b in sorted(edges):
        rank[b] = max(rank[b], rank[a] + 1)
        users[a].append(b)
        waiting[b] = True
    for i in reversed(range(count)):
        if users[i] and not waiting[i]:
            rank[i] = min(rank[u] for u in users[i]) - 1
    used = {r: i for i, r in enumerate(sorted(set(rank)))}
    return [used[r] for r in rank]


def _way(a: Slot, b: Slot, between: range, columns: list[list[Slot]]) -> list[Slot]:
    """Link two boxes, through a slot in each of the columns between them unless these are too many."""
    way = [Slot(-1, 4.0) for _ in between] if len(between) < _FAR else []
    for column, slot in zip(between, way, strict=False):
        columns[column].append(slot)
    for one, other in pairwise([a, *way, b]):
        one.after.append(other)
        other.before.append(one)
    return way


def _arrange(columns: list[list[Slot]]) -> None:
    """Order the columns by the middles of what each slot is linked to, then move all near to those."""
    for column in columns:
        _settle(column, lambda s: 0.0)
    for ordering in (True, True, True, True, False, False, False):
        for column in columns:
            _settle(column, lambda s: _middle(s, s.before), ordering)
        for column in reversed(columns):
            _settle(column, lambda s: _middle(s, s.after), ordering)
    for column in columns:
        _settle(column, lambda s: _middle(s, s.before))


def _middle(slot: Slot, linked: Sequence[Slot]) -> float:
    return sum(s.y for s in linked) / len(linked) if linked else slot.y


def _settle(column: list[Slot], wish: Callable[[Slot], float], ordering: bool = False) -> None:
    """Move slots as near as can be to their wishes without overlap: isotonic regression by pooling neighbours."""
    wishes = {id(s): wish(s) for s in column}
    if ordering:
        column.sort(key=lambda s: wishes[id(s)])
    offsets = [0.0]
    for one, other in pairwise(column):
        offsets.append(offsets[-1] + (one.height + other.height) / 2 + _ROW)
    blocks: list[tuple[float, int]] = []  # slots that touch: where they begin to be, and how many they are
    for slot, offset in zip(column, offsets, strict=False):
        mean, count = wishes[id(slot)] - offset, 1
        while blocks and blocks[-1][0] >= mean:
            last, more = blocks.pop()
            mean, count = (mean * count + last * more) / (count + more), count + more
        blocks.append((mean, count))
    starts = [mean for mean, count in blocks for _ in range(count)]
    for slot, start, offset in zip(column, starts, offsets, strict=False):
        slot.y = start + offset
