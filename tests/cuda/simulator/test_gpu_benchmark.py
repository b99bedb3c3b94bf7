"""What is measured on a GPU compiles and runs: each kind of kernel at a toy size."""

from __future__ import annotations

import numpy as np
import pytest

import tenon as tn
from benchmarks import gpu_engines, gpu_work
from frontend import functional as F
from frontend import nn

GOAL = gpu_work.Goal("copy", 1.0)
WORK = [
    gpu_work.matmul(5, 16, 8, GOAL),
    gpu_work.attention(1, 1, 16, 16, backward=False),
    gpu_work.attention(1, 1, 16, 16, backward=True),
    *(gpu_work.bandwidth(name, 2, 4096) for name in ("add", "softmax", "layer_norm")),
]


@pytest.mark.parametrize("work", WORK, ids=lambda w: w.name)
def test_a_kernel_leaves_its_result_in_state(work):
    made = []

    def state(*shape):
        made.append(nn.Buffer(gpu_engines._array(shape, work.dtype)))
        return made[-1]

    exe = tn.compile(gpu_engines._kernel(work, tn, F, state), target="cuda")
    before = [b.numpy().copy() for b in made]
    assert exe() is None
    changed = [not np.array_equal(a, b.numpy()) for a, b in zip(before, made, strict=True)]
    assert any(changed) and not any(np.isnan(b.numpy().astype(np.float32)).any() for b in made)


def test_the_gpt_is_one_that_pytorch_has_too():
    work = gpu_work.Work("gpt", "gpt", (2, 4, 16, 2, 1, 11), GOAL)
    model = gpu_engines.gpt_of(nn, F, work)
    tokens = gpu_engines._tokens(work)[0]
    assert tn.compile(model.eval(), tn.spec(2, 4, dtype="i64"))(tokens).shape == (2, 4, 11)
