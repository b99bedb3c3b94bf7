"""Whole programs on a GPU: every op on the samples that the CPU is tried on, and the first models' training."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_programs import MODELS, OP_SAMPLES, check_op, check_seed

import tenon as tn
from engine.errors import DeviceMemoryError


@pytest.mark.parametrize("name", OP_SAMPLES)
def test_an_op_in_float32_is_the_interpreters(name: str) -> None:
    check_op(OP_SAMPLES[name])


@pytest.mark.parametrize("name", MODELS)
def test_a_seeds_training_is_the_cpus(name: str) -> None:
    check_seed(name)


def test_too_little_memory_is_said_before_anything_runs() -> None:
    exe = tn.compile(lambda x: x.unsqueeze(1) + x, tn.spec("N"), target="cuda")
    with pytest.raises(DeviceMemoryError, match=r"needs [\d,]+ bytes on cuda:0"):
        exe(np.zeros(1 << 20, np.float32))  # 4 TB of results
    assert exe(np.zeros(2, np.float32)).shape == (2, 2)


def test_a_profile_has_every_step() -> None:
    exe = tn.compile(lambda x: (x * x).sum(), tn.spec("N"), target="cuda")
    found = exe.profile(np.ones(1000, np.float32))
    assert len(found.steps) == len(exe.program.main) and found.seconds > 0
