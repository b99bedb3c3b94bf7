"""A kernel that a user has written for an op: source text that stands alone, and how it is called."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UserKernel:
    """``source`` defines ``functions``, and the numbers and modules that they refer to. The last of them is the kernel.
    It takes the inputs and then the outputs as C-contiguous arrays, with ``ranged`` then ``lo`` and ``hi``, and the
    attributes by name.

    With ``ranged`` it fills ``out[lo:hi]`` of each output, and threads share the outputs' first axis.
    """

    source: str
    functions: tuple[str, ...]
    ranged: bool
