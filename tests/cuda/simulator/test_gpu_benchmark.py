"""What is measured on a GPU compiles, runs and is compared: each kind of work at a toy size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import gpu, gpu_engines, gpu_results, gpu_work

GOAL = gpu_work.Goal("copy", 1.0)
WORK = [
    gpu_work.matmul(5, 16, 8, GOAL),
    gpu_work.attention(1, 1, 16, 16, backward=False),
    gpu_work.attention(1, 1, 16, 16, backward=True),
    *(gpu_work.bandwidth(name, 2, 4096) for name in ("add", "softmax", "layer_norm")),
]


@pytest.mark.parametrize("work", WORK, ids=lambda w: w.name)
def test_a_kernel_leaves_its_results_in_state(work):
    found, wanted = (gpu_engines.tenon(work, target).results() for target in ("cuda", "reference"))
    assert gpu_results.disagreement(work, found, wanted) == ""
    found[-1] = np.where(np.arange(found[-1].shape[-1]) < 1, 2, 1) * found[-1]
    assert "is wrong" in gpu_results.disagreement(work, found, wanted)


def test_wrong_results_get_no_figure(monkeypatch):
    work = WORK[0]
    right = gpu_engines.tenon(work)
    peer = replace(right, results=lambda: [r + np.float32(0.5) for r in right.results()])
    monkeypatch.setattr(gpu.gpu_torch, "engines", lambda work: {"eager": peer})
    found = gpu.measure(work, True, 1e12)
    assert not found.seconds and found.verdict.startswith("WRONG: result 0 is wrong: 80 of 80 elements; [0, 0] is")
    assert "WRONG" in gpu_work.table([found])
