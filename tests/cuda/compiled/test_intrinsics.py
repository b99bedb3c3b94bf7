"""Every intrinsic compiles and assembles, and integers take no more bits than they need."""

from __future__ import annotations

import pytest
from intrinsic_cases import IntrinsicCase, cases

from engine.errors import CompileError, UnsupportedError
from engine.program import Kernel
from runtime.cuda.assembler import assemble
from runtime.cuda.toolkit import to_ptx


@pytest.mark.parametrize("case", cases(), ids=lambda c: c.name)
def test_an_intrinsic_assembles(case: IntrinsicCase):
    architecture = "sm_90a" if case.hopper else "sm_80"
    text = to_ptx(case.kernel, architecture)
    assert f".entry {case.kernel.name}(" in text and f".maxntid {case.threads}" in text
    resources = assemble(text, architecture).resources
    assert resources.stack == resources.spill_stores == resources.shared == 0


def test_integers_are_narrowed_to_what_an_intrinsic_takes():
    source = """\
from runtime.cuda.ptx import shared_memory, st_shared_u32
from runtime.cuda.toolkit import cuda

def narrow(n):
    t = cuda.threadIdx.x
    st_shared_u32(shared_memory() + (t & 31) * 4 + (t >> 5) * 128, t)
"""
    text = to_ptx(Kernel("narrow", "0", source, threads=64), "sm_90a")
    assert ".target sm_90a" in text and "mul.lo.s64" not in text and "add.s64" not in text


def test_what_does_not_compile_is_shown():
    source = "def wrong(a):\n    return a.nothing\n"
    with pytest.raises(CompileError, match=r"kernel 'wrong' does not compile for sm_80(.|\n)*2     return a.nothing"):
        to_ptx(Kernel("wrong", "1", source, threads=32), "sm_80")
    with pytest.raises(UnsupportedError, match="'sm_x' is not an architecture"):
        to_ptx(Kernel("wrong", "1", source, threads=32), "sm_x")
