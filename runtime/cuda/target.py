"""What the passes may know of the CUDA backend."""

from __future__ import annotations

from engine.schedule import Target


def target() -> Target:
    """A GPU with tensor cores. Attention has kernels; softmax and the losses run as fused loops."""
    return Target("cuda", frozenset({"attention", "attention_backward"}), tensor_cores=True, cuts=False)
