"""Kernels of attention by TMA and wgmma, for their tests in the simulator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cuda_attention import attention
from cuda_harness import Case, compare, reference, simulate

from engine.errors import TenonError
from engine.program import Lowered
from runtime.cuda.attention_hopper import takes
from runtime.cuda.lower import lower
from runtime.cuda.simulator.conflicts import Conflicts

TOLERANCES = {"bf16": 2e-2, "f16": 3e-3, "f32": 2e-6}
"""By the dtype of the operands, to which weights are rounded too."""
ROUNDED = 2e-3
"""Of float32 that is multiplied as tf32, whose lower bits are left out."""


def lowered(*shape: int, dtype: str = "bf16", **options: Any) -> tuple[Case, Lowered]:
    """A case, and its kernels with one block each, which does all of the work."""
    tolerance = ROUNDED if options.get("products") == "high" else TOLERANCES[dtype]
    case = replace(attention(*shape, dtype=dtype, **options), tolerance=tolerance)
    assert takes(case.spec, case.spec.core)
    found = lower(case.spec, architecture="sm_90a")
    assert all("hopper" in kernel.name for kernel in found.kernels)
    return case, replace(found, calls=tuple(replace(c, tasks=1) for c in found.calls))


def checked(*shape: int, order: int = 3, **options: Any) -> list[Conflicts]:
    case, made = lowered(*shape, **options)
    return run(case, made, order)


def run(case: Case, made: Lowered, order: int) -> list[Conflicts]:
    arrays = {name: a.copy() for name, a in case.arrays.items()}
    counted = simulate(made, arrays, case.values, order)
    compare(case, arrays, reference(case))
    return counted


def mask(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape) < 0.7


def assert_found(pair: tuple[Case, Lowered], number: int, right: str, wrong: str) -> None:
    """With ``wrong`` in the place of ``right`` in kernel ``number``, an error is raised or numbers are wrong."""
    case, made = pair
    kernel = made.kernels[number]
    assert right in kernel.source
    changed = replace(kernel, source=kernel.source.replace(right, wrong))
    broken = replace(made, kernels=tuple(changed if k is kernel else k for k in made.kernels))
    with pytest.raises((TenonError, AssertionError)):
        for order in (4, 0, 1):
            run(case, broken, order)
