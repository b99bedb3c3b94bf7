"""Random numbers by counting: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as
1, 2, 3; SC 2011).

A draw is a pure function of where it is used, so it is the same on every backend, at every optimisation level and
for every number of threads:

    key     = (seed mod 2**32, seed div 2**32)
    counter = (index mod 2**32, index div 2**32, stream, step mod 2**32)

with ``seed`` of 64 bits, ``index`` the logical (row-major) element index, ``stream`` the number that the random op
got while tracing, and ``step`` the run's counter. A uniform f32 is the top 24 bits of word 0 times 2**-24; a uniform
f64 is the top 53 bits of words 0 and 1 (word 0 above) times 2**-53. Both lie in [0, 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.dtypes import DType, f64

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF
_WORD = 32


def philox4x32(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """The block of four 32-bit words for each counter: u64[..., 4], every entry below 2**32, to the same shape."""
    c0, c1, c2, c3 = np.moveaxis(np.asarray(counter, np.uint64), -1, 0)
    return np.stack(_rounds(c0, c1, c2, c3, *key), axis=-1)


def _rounds(c0: Any, c1: Any, c2: Any, c3: Any, k0: int, k1: int) -> tuple[Any, Any, Any, Any]:
    """The words of one block, or arrays of them, u64."""
    for _ in range(ROUNDS):
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = p1 >> _WORD ^ c1 ^ k0, p1 & _LOW, p0 >> _WORD ^ c3 ^ k1, p0 & _LOW
        k0, k1 = k0 + WEYL[0] & _LOW, k1 + WEYL[1] & _LOW
    return c0, c1, c2, c3


def uniform_reference(seed: int, step: int, stream: int, index: np.ndarray, dtype: DType) -> np.ndarray:
    """The uniform draws in [0, 1) for an array of element indices; f64 where ``dtype`` is f64, else f32."""
    index = np.asarray(index).astype(np.uint64)
    c2, c3 = (np.full(index.shape, v & _LOW, np.uint64) for v in (stream, step))
    word, below = _rounds(index & _LOW, index >> _WORD, c2, c3, seed & _LOW, seed >> _WORD & _LOW)[:2]
    if dtype == f64:
        return ((word << _WORD | below) >> 11).astype(np.float64) * 2.0**-53
    return (word >> 8).astype(np.float32) * np.float32(2.0**-24)


def uniform_scalar(seed: int, step: int, stream: int, index: int, dtype: DType) -> np.floating:
    """The draw for one element index: sooner than an array of one."""
    counter = (index & _LOW, index >> _WORD & _LOW, stream & _LOW, step & _LOW)
    word, below = _rounds(*counter, seed & _LOW, seed >> _WORD & _LOW)[:2]
    if dtype == f64:
        return np.float64(((word << _WORD | below) >> 11) * 2.0**-53)
    return np.float32((word >> 8) * 2.0**-24)
