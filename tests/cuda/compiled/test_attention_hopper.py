"""Attention by TMA and wgmma is assembled for Hopper: warpgroups trade registers, nothing is outside of them, and
products run beside the arithmetic between them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from cuda_attention import attention
from cuda_harness import compiled

from runtime.cuda.assembler import disassemble, instructions
from runtime.cuda.attention_hopper import takes
from runtime.cuda.hopper import THREADS
from runtime.cuda.lower import lower

ADDED = np.zeros((1, 1, 300, 300))
CASES: list[tuple[int, dict[str, Any]]] = [
    (64, {}), (64, {"causal": True}), (128, {"causal": True}), (128, {"dtype": "f16"}), (256, {"causal": True}),
    (128, {"given": "mask", "mask": ADDED}), (128, {"given": "mask", "mask": ADDED < 1, "causal": True}),
    (128, {"given": "seed step", "dropout": 0.1, "causal": True}),
    (64, {"given": "mask seed step", "mask": ADDED, "dropout": 0.1}),
]  # fmt: skip
SINGLE: list[tuple[int, dict[str, Any]]] = [
    (features, more | {"dtype": "f32", "products": products})
    for features, more, products in (
        (64, {"causal": True}, "highest"), (128, {"causal": True, "given": "mask", "mask": ADDED < 1}, "highest"),
        (128, {"given": "seed step", "dropout": 0.1, "causal": True}, "highest"), (128, {}, "high"),
    )
]  # fmt: skip
"""Of float32; the last is forward alone."""
BACKWARD = [CASES[i] for i in (1, 2, 5, 7)] + [(64, {"given": "mask", "mask": ADDED})]


def traded(source: str) -> list[int]:
    """The registers that threads which fetch keep, and that those which multiply ask for."""
    return [int(found) for found in re.findall(r"setmaxnreg_(?:dec|inc)\((\d+)\)", source)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("features", "options"),
    [*CASES, *SINGLE, *((f, options | {"backward": True}) for f, options in (*BACKWARD, *SINGLE[:3]))],
)
def test_kernels_fit_registers(features: int, options: dict[str, Any]) -> None:
    case = attention(1, 2, 300, 300, features, features, ratio=2, by_position=True, **{"dtype": "bf16", **options})
    assert takes(case.spec, case.spec.core)
    for kernel in lower(case.spec, architecture="sm_90a").kernels:
        cubin = compiled(kernel, "sm_90a")
        found, needs = instructions(disassemble(cubin.code)), cubin.resources
        assert found["HGMMA"] >= 12 and found["UTMALDG"] > 0 and found["HMMA"] == 0
        # Those that multiply wait until the others have given up as many registers as they ask for: with fewer at the
        # start, for ever.
        few, many = traded(kernel.source)
        assert needs.registers * 3 >= few + 2 * many
        assert needs.occupancy(THREADS, kernel.shared, "sm_90a") == 1
