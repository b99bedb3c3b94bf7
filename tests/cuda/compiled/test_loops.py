"""Generated kernels assembled: no stack, no spills, and registers for enough threads at a time."""

from __future__ import annotations

import pytest
from cuda_harness import compiled
from indexed_cases import ALL as INDEXED
from loop_cases import ALL as LOOPS

from runtime.cuda.assembler import disassemble, instructions
from runtime.cuda.lower import lower
from runtime.cuda.toolkit import ARCHITECTURES

REGISTERS = 80
"""With 32 of them 2048 threads fit a multiprocessor, with 64 half as many, with 80 (sorts of float64) 768: enough to
hide the wait for memory."""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("case", [*LOOPS, *INDEXED], ids=lambda c: c.name)
def test_what_it_takes(case, architecture):
    for kernel in lower(case.spec).kernels:
        found = compiled(kernel, architecture).resources
        assert (found.stack, found.spill_stores, found.spill_loads) == (0, 0, 0)
        assert found.registers <= REGISTERS, kernel.source


@pytest.mark.parametrize(
    ("name", "wide"), [("tail of f32", 2), ("rows of a warp", 2), ("rows of any length", 2), ("in place", 1)]
)
def test_accesses_are_of_16_bytes(name, wide):
    case = next(c for c in LOOPS if c.name == name)
    (kernel,) = lower(case.spec).kernels
    text = disassemble(compiled(kernel, "sm_90a").code)
    assert text.count("LDG.E.128") + text.count("LDG.E.ENL2.256") >= wide
    assert instructions(text)["LDL"] == 0
