"""Every op, on the samples that the CPU is tried on, as a program in the simulator, beside the interpreter."""

from __future__ import annotations

import pytest
from cuda_programs import OP_SAMPLES, check_op


@pytest.mark.parametrize("name", OP_SAMPLES)
def test_an_op_in_float32_is_the_interpreters(name):
    check_op(OP_SAMPLES[name])
