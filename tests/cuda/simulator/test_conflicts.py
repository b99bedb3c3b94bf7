"""Bank conflicts are counted as the hardware has them."""

from __future__ import annotations

import numpy as np
import pytest

from engine.program import Kernel
from runtime.checked_memory import CheckedMemory
from runtime.cuda.simulator.conflicts import Conflicts
from runtime.cuda.simulator.machine import launch
from runtime.sources import load_source

SOURCE = """\
from runtime.cuda.ptx import *
from runtime.cuda.toolkit import cuda

def kernel(x):
    t = cuda.threadIdx.x
    base = shared_memory()
    {0}
"""


@pytest.mark.parametrize(
    "access, extra",
    [
        ("st_shared_u32(base + 4 * t, t)", 0),
        ("ld_shared_u32(base)", 0),  # one word for all
        ("st_shared_u32(base + 8 * t, t)", 1),
        ("st_shared_u32(base + 128 * t, t)", 31),
        ("st_shared_u32(base + 132 * t, t)", 0),
        ("st_shared_u16(base + 2 * t, t)", 0),
        ("st_shared_v2_u32(base + 8 * t, t, t)", 0),
        ("st_shared_v4_u32(base + 16 * t, t, t, t, t)", 0),
        ("st_shared_v4_u32(base + 128 * t, t, t, t, t)", 4 * 7),
        ("ldmatrix_x4(base + 16 * t)", 0),
        ("ldmatrix_x4(base + 128 * t)", 4 * 7),
        ("ldmatrix_x4(base + 128 * t + 16 * (t % 8))", 0),
        ("ldmatrix_x2(base + 64 * t)", 2 * 3),
        ("cp_async_16(base + 128 * t, x + 16 * t)", 4 * 7),
    ],
)
def test_conflicts(access, extra):
    memory, conflicts = CheckedMemory(), Conflicts()
    function = load_source(Kernel("kernel", "0" * 16, SOURCE.format(access))).kernel
    address = memory.add("x", np.zeros(512, np.uint8))
    launch(function, 1, 32, 8192, [address], memory, conflicts=conflicts)
    assert dict(conflicts.extra) in ({7: extra}, {})
    assert conflicts.extra[7] == extra and conflicts.accesses[7] > 0
