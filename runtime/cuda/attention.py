"""Lowering attention on the GPU: which kernels serve which dtype and shape."""

from __future__ import annotations

from engine.dtypes import f64
from engine.program import Lowered
from engine.schedule import Attention, KernelSpec
from runtime.cuda.attention_backward import lower_attention_backward
from runtime.cuda.attention_forward import lower_attention_forward
from runtime.cuda.attention_hopper import takes
from runtime.cuda.attention_hopper_backward import lower_hopper_backward
from runtime.cuda.attention_hopper_forward import lower_hopper_forward
from runtime.cuda.attention_rows import lower_attention_rows
from runtime.cuda.attention_split import lower_attention_split
from runtime.cuda.tiles import by_wgmma

WIDEST = 256
"""The most features whose sums fit a warp's registers, and tiles shared memory."""


def lower_attention(spec: KernelSpec, core: Attention, architecture: str) -> Lowered:
    """The calls for ``spec``, whose core is ``core``; with "sm_90a" they may use TMA and wgmma."""
    if spec.reads[0].dtype == f64 or max(core.features, core.width) > WIDEST:
        return lower_attention_rows(spec, core)
    if core.queries == 1 and not core.backward:
        return lower_attention_split(spec, core)
    if architecture == "sm_90a" and takes(spec, core) and by_wgmma():
        return lower_hopper_backward(spec, core) if core.backward else lower_hopper_forward(spec, core)
    return lower_attention_backward(spec, core) if core.backward else lower_attention_forward(spec, core)
