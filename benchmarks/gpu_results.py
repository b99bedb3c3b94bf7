"""Whether what an engine computed on a GPU is what another did: a wrong kernel gets no figure.

Elements of a kernel's results may be off by a share of themselves and of the root of their mean square, with which the
rounding of sums goes. Losses of the first steps must agree, and so must their fall, which wrong gradients change.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.gpu_work import Work

_ELEMENTS = {"f32": 1e-4, "bf16": 3e-2}
_LOSSES = {"f32": 2e-3, "bf16": 1e-2}
_FALLS = {"f32": 0.05, "bf16": 0.1}
_NO_FALL = 1e-3
"""A share of the first loss below which its fall says nothing."""


def disagreement(work: Work, got: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> str:
    """What is wrong with the results ``got``; empty where nothing is."""
    ours, theirs = ([np.asarray(a).astype(np.float32) for a in some] for some in (got, expected))
    if work.is_step:
        return _of_losses(work, np.array(ours, np.float64).ravel(), np.array(theirs, np.float64).ravel())
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if found := _of_elements(a, b, _ELEMENTS[work.dtype]):
            return f"result {number} is wrong: {found}"
    return ""


def _of_losses(work: Work, ours: np.ndarray, theirs: np.ndarray) -> str:
    fell, should = ours[0] - ours, theirs[0] - theirs
    near = np.abs(ours - theirs) <= _LOSSES[work.dtype] * np.abs(theirs)
    near &= np.abs(fell - should) <= _FALLS[work.dtype] * np.abs(should) + _NO_FALL * np.abs(theirs[0])
    return "" if near.all() else f"losses are {ours.round(5).tolist()}, not {theirs.round(5).tolist()}"


def _of_elements(ours: np.ndarray, theirs: np.ndarray, share: float) -> str:
    if ours.shape != theirs.shape:
        return f"its shape is {ours.shape}, not {theirs.shape}"
    scale = np.sqrt(np.mean(np.square(theirs), dtype=np.float64))
    wrong = ~(np.abs(ours - theirs) <= share * (np.abs(theirs) + scale))  # NaN is wrong, too
    if not wrong.any():
        return ""
    at = np.unravel_index(int(wrong.argmax()), wrong.shape)
    where = ", ".join(map(str, at))
    return f"{wrong.sum()} of {wrong.size} elements; [{where}] is {ours[at]}, not {theirs[at]}"
