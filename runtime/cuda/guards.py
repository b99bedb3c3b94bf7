"""The kernel that joins two guards: a loop's, and that of a step in it."""

from __future__ import annotations

from engine.program import Kernel, Pointer, Program
from runtime.cuda.emit import kernel
from runtime.emit import ArgTable


def joined_guards() -> Kernel:
    """Run under the outer guard, it copies the inner one, which nobody may have written where the outer says no, to a
    byte that was zero before."""
    table = ArgTable()
    table.declare(inner=Pointer("inner"), joined=Pointer("joined"))
    lines = ["if cuda.threadIdx.x == 0:", "    store_bool(joined, 0, load_bool(inner, 0, 0), 0)"]
    return kernel("joined_guards", lines, table, 32)


def has_joined_guards(program: Program) -> bool:
    """Whether a step of ``program`` may have two guards."""
    return any(loop.guard is not None for loop in program.loops)
