"""What the passes may know of the CPU backend."""

from __future__ import annotations

from engine.schedule import Target


def target() -> Target:
    """This machine's CPU. Attention has a kernel; softmax and the losses run as fused loops."""
    return Target("cpu", frozenset({"attention", "attention_backward"}), chains=True, turns=True, measures=True)
