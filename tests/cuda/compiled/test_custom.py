"""Users' kernels compile for GPUs, and what numba.cuda does not know is a clear error with the kernel's source."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine import op
from engine.dims import dim, product
from engine.dtypes import f32, i64
from engine.errors import CompileError
from engine.schedule import Access, Custom, KernelSpec
from engine.user_kernel import UserKernel
from runtime.cuda.assembler import assemble, disassemble, instructions
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


def ctc(name):
    """A kernel of the CTC loss, of any number of steps, examples and labels, among 30 classes."""
    steps, batch, labels = map(dim, "TNS")
    states = (batch, steps, 2 * labels + 1)
    known = [(steps, batch, 30), (batch, labels), (batch,), (batch,)]
    shapes = (
        [*known, (batch,), states] if name == "ctc_loss" else [(batch,), *known, (batch, steps, 30), states, states]
    )
    dtypes = [i64 if s in known[1:] and i > 0 else f32 for i, s in enumerate(shapes)]
    made = 2 if name == "ctc_loss" else 3
    dtypes[-made:] = [f32] * made
    accesses = [Access(f"b{i}", d, (1,)) for i, d in enumerate(dtypes)]
    core = Custom(op.get(name).kernel, tuple(shapes), (("blank", 0),))
    spec = KernelSpec(name, (product((batch,)),), tuple(accesses[:-made]), tuple(accesses[-made:]), (), core)
    return lower(spec)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", ["ctc_loss", "ctc_loss_grad"])
def test_an_example_of_ctc_has_a_block(name, architecture):
    lowered = ctc(name)
    (call,), (kernel,) = lowered.calls, lowered.kernels
    assert call.tasks == dim("N") and kernel.threads >= 64
    cubin = assemble(to_ptx(kernel, architecture), architecture)
    assert cubin.resources.stack == 0
    assert instructions(disassemble(cubin.code))["BAR"] == 1  # a step
