"""How the channels of small groups share a vector: the lanes hold the inputs of several groups.

A convolution of small groups is that of single channels with more sums: every lane has one for each output of its
group, and what the lanes of a group have found is added up once, at the end.
"""

from __future__ import annotations

from engine.records import dataclass


@dataclass(frozen=True)
class GroupLanes:
    """Groups of ``inputs`` and ``outputs`` channels in a vector of ``lanes``; the smaller number divides the other."""

    inputs: int
    outputs: int
    lanes: int

    @property
    def count(self) -> int:
        """The groups of a vector."""
        return self.lanes // self.inputs

    @property
    def run(self) -> int:
        """How many sums of a group one vector of them has after another: those of as many outputs."""
        return min(self.inputs, self.outputs)

    def fold(self) -> list[list[tuple[int, list[int]]]]:
        """The sums of all outputs: a list for every ``run`` outputs of a group, of which vector of sums, and which
        lanes of that, are to be added up; the results are ``run`` of one group after the other."""
        run = self.run
        return [
            [
                (q, [g * self.inputs + block + (p - q) % run for g in range(self.count) for p in range(run)])
                for q in range(first, first + run)
                for block in range(0, self.inputs, run)
            ]
            for first in range(0, self.outputs, run)
        ]

    def spread(self, q: int) -> list[int]:
        """For every lane the place of its group's output ``q`` among the outputs of the groups."""
        return [min(lane // self.inputs, self.count - 1) * self.outputs + q for lane in range(self.lanes)]
