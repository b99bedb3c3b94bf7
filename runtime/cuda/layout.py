"""One piece of a GPU's memory for all that a bound program computes: what is fetched first, then the arena."""

from __future__ import annotations

from engine.memory import Plan, round_up
from engine.program import Program

ERROR_BYTES = 16
_ALIGNMENT = 256
"""What the driver's own allocations start at a multiple of."""


class Layout:
    """Byte offsets in that memory, for ``program`` as it is planned.

    At 0 stands the error word, behind it, by position, the ``outputs``; ``fetched`` bytes hold both. ``guards`` is the
    first of as many bytes as guards may have to be joined. The buffers of ``temps`` overlap where the plan says so.
    ``inputs`` are positions in a piece of their own, which has ``staged`` bytes.
    """

    def __init__(self, program: Program, plan: Plan):
        end = _ALIGNMENT
        self.outputs: list[int] = []
        for port in program.outputs:
            self.outputs.append(end)
            end += round_up(plan.nbytes[port.buffer], _ALIGNMENT)
        self.fetched = end
        self.guards = end
        if any(loop.guard is not None for loop in program.loops):
            end += round_up(len(program.main) + len(program.loops), _ALIGNMENT)
        self.temps = {name: end + offset for name, offset in plan.offsets.items()}
        end += round_up(plan.arena, _ALIGNMENT)
        self.nbytes = end
        self.inputs: list[int] = []
        self.staged = 0
        for port in program.inputs:
            self.inputs.append(self.staged)
            self.staged += round_up(plan.nbytes[port.buffer], _ALIGNMENT)
