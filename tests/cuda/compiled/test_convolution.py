"""Convolutions assembled, every tile of the tables: on tensor cores, with nothing outside registers."""

from __future__ import annotations

import pytest
from convolution_cases import BF16, DEPTH, DILATED_GROUPS, F32, MANY, PLAIN, THREE, forward, weight_gradient
from cuda_harness import compiled

from engine.program import Kernel
from runtime.cuda import conv
from runtime.cuda.assembler import disassemble, instructions
from runtime.cuda.lower import lower
from runtime.cuda.tiles import HALF, SINGLE, Choice

TILES = [*((choice, BF16) for choice in HALF), *((choice, F32) for choice in SINGLE)]


def kernel_of(case, name: str) -> Kernel:
    (found,) = (k for k in lower(case.spec).kernels if k.name.startswith(name))
    return found


def check(kernel: Kernel, architecture: str) -> None:
    """What the harness asks of every kernel, and tensor cores."""
    assert instructions(disassemble(compiled(kernel, architecture).code))["HMMA"] > 0


@pytest.mark.parametrize("make, name", [(forward, "conv2d"), (weight_gradient, "conv_weight_grad")])
@pytest.mark.parametrize("choice, dtype", TILES)
def test_every_tile(choice: Choice, dtype, make, name: str, monkeypatch) -> None:
    monkeypatch.setattr(conv, "choose_tile", lambda *sizes: choice.tile)
    kernel = kernel_of(make("tile", MANY, dtype), name)
    for architecture in ("sm_80", "sm_90a"):
        check(kernel, architecture)


@pytest.mark.parametrize("case, name", [
    (forward("", DILATED_GROUPS, BF16), "conv2d"), (weight_gradient("", DILATED_GROUPS), "conv_weight_grad"),
    (forward("", THREE, BF16), "conv2d"), (weight_gradient("", THREE, BF16), "conv_weight_grad"),
])  # fmt: skip
def test_copies_of_every_width_on_hopper(case, name: str) -> None:
    check(kernel_of(case, name), "sm_90a")


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("case", [*DEPTH, *PLAIN], ids=lambda c: c.name)
def test_plain_sums(case, architecture: str) -> None:
    for kernel in lower(case.spec).kernels:
        compiled(kernel, architecture)
