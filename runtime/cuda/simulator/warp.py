"""What a warp's 32 threads execute together: shuffles, votes, ldmatrix and mma, on what each of them gives.

The layouts of fragments are those of the PTX ISA, section "Matrix fragments for mma": ``GROUP`` and ``TEAM`` are its
groupID and threadID_in_group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from runtime.cuda.simulator.thread import LANES, Thread

_LANE = np.arange(LANES)
GROUP, TEAM = _LANE >> 2, _LANE & 3


def shuffle(lanes: Sequence[Thread], given: list[tuple[Any, int]], source: Callable[[int, int], int]) -> list[Any]:
    """Each lane's value from the lane ``source(lane, its operand)``, or its own where that is not in the warp."""
    sources = [source(i, int(operand)) for i, (_, operand) in enumerate(given)]
    return [given[s if 0 <= s < LANES else i][0] for i, s in enumerate(sources)]


def ballot(lanes: Sequence[Thread], given: list[int]) -> list[int]:
    """A bit for each lane whose predicate is not zero."""
    return [sum(1 << i for i, predicate in enumerate(given) if predicate)] * LANES


def ldmatrix(lanes: Sequence[Thread], given: list[int], matrices: int, transposed: bool) -> list[tuple[int, ...]]:
    """``matrices`` of 8 x 8 elements of 16 bits; lane i of the first 8 * matrices has the address of a row of 16 bytes.
    Lane i gets two neighbours of row i / 4 of each, or of column i / 4 where ``transposed``."""
    count = 8 * matrices
    shared = lanes[0].block.shared
    rows = shared.load_rows(lanes[:count], given[:count])
    tiles = rows.view(np.uint16).reshape(matrices, 8, 8)
    if transposed:
        tiles = tiles.transpose(0, 2, 1)
    words = np.ascontiguousarray(tiles).view(np.uint32)[:, GROUP, TEAM].T
    return [tuple(row) for row in words.tolist()]


# Where the elements of a lane's registers lie: (row, column) of A (16 x k), B (k x 8) and C (16 x 8).
C = (np.stack([GROUP, GROUP, GROUP + 8, GROUP + 8], 1), np.stack([2 * TEAM, 2 * TEAM + 1] * 2, 1))
A16 = (
    np.stack([GROUP, GROUP, GROUP + 8, GROUP + 8] * 2, 1),
    np.stack([2 * TEAM, 2 * TEAM + 1] * 2 + [2 * TEAM + 8, 2 * TEAM + 9] * 2, 1),
)
B16 = (np.stack([2 * TEAM, 2 * TEAM + 1, 2 * TEAM + 8, 2 * TEAM + 9], 1), np.stack([GROUP] * 4, 1))
A32 = (np.stack([GROUP, GROUP + 8] * 2, 1), np.stack([TEAM, TEAM, TEAM + 4, TEAM + 4], 1))
B32 = (np.stack([TEAM, TEAM + 4], 1), np.stack([GROUP] * 2, 1))


def mma(lanes: Sequence[Thread], given: list[tuple[Any, ...]], kind: str) -> list[tuple[np.float32, ...]]:
    """``D = A B + C`` of a 16 x k and a k x 8 matrix; k is 16 for "f16" and "bf16", 8 for "tf32". Products and sums are
    taken in float64 and rounded once."""
    words = np.array([[int(x) & 0xFFFFFFFF for x in g[:6]] for g in given], np.uint32)
    c = np.zeros((16, 8))
    c[C] = np.array([g[6:] for g in given], np.float32)
    at_a, at_b, k = (A32, B32, 8) if kind == "tf32" else (A16, B16, 16)
    values = elements(words, kind)
    a, b = np.zeros((16, k)), np.zeros((k, 8))
    a[at_a], b[at_b] = values[:, : at_a[0].shape[1]], values[:, at_a[0].shape[1] :]
    d = (a @ b + c).astype(np.float32)[C]
    return [tuple(row) for row in d]


def elements(words: np.ndarray, kind: str) -> np.ndarray:
    """The numbers in 32-bit words, the lower half first: two of "f16" or "bf16", or one of "tf32", of whose 23 bits
    behind the point the tensor cores take 10."""
    if kind == "tf32":
        return (words & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)
    halves = np.ascontiguousarray(words).view(np.uint16)
    if kind == "f16":
        return halves.view(np.float16).astype(np.float64)
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
