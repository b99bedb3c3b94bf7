"""Users' kernels compile for GPUs, and what numba.cuda does not know is a clear error with the kernel's source."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.dtypes import f32
from engine.errors import CompileError
from engine.schedule import Access, Custom, KernelSpec
from engine.user_kernel import UserKernel
from runtime.cuda.assembler import assemble
from runtime.cuda.lower import lower
from runtime.cuda.toolkit import ARCHITECTURES, to_ptx


def halves(x, out, lo, hi):
    for i in range(lo, hi):
        out[i] = math.sqrt(x[i]) / 2


def ordered(x, out):
    out[:] = np.sort(x)


def kernel_of(function, ranged):
    core = Custom(UserKernel(function, ranged), ((9,), (9,)), ())
    spec = KernelSpec("mine", (9,), (Access("x", f32, (1,)),), (Access("y", f32, (1,)),), (), core)
    return lower(spec).kernels[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_users_kernel_compiles(architecture):
    cubin = assemble(to_ptx(kernel_of(halves, True), architecture), architecture)
    assert cubin.resources.stack == 0


def test_what_a_gpu_cannot_do_is_said():
    with pytest.raises(CompileError, match=r"'custom_mine' does not compile for sm_80: (.|\n)*np\.sort\(x\)"):
        to_ptx(kernel_of(ordered, False), "sm_80")
