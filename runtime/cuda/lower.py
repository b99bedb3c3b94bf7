"""From a kernel spec to calls and GPU code: the one place that knows which lowering serves which core."""

from __future__ import annotations

from collections.abc import Collection

from engine.errors import UnsupportedError
from engine.program import Lowered
from engine.schedule import Attention, Bundle, Contraction, KernelSpec
from runtime.cuda.attention import lower_attention
from runtime.cuda.bundle import lower_bundle
from runtime.cuda.contraction import lower_contraction
from runtime.cuda.loops import lower_loops
from runtime.cuda.reductions import lower_reduction


def lower(item: KernelSpec | Bundle, lasting: Collection[str] = ()) -> Lowered:
    """The calls, kernels and buffers for one item of a schedule. ``lasting`` names the buffers whose contents stay from
    call to call. Raises UnsupportedError for an unknown core."""
    if isinstance(item, Bundle):
        return lower_bundle(item)
    match item.core:
        case None if item.reduced:
            return lower_reduction(item)
        case None:
            return lower_loops(item)
        case Attention() as core:
            return lower_attention(item, core)
        case Contraction():
            return lower_contraction(item)
    raise UnsupportedError(f"CUDA has no kernel for the core {type(item.core).__name__} of {item.name}")
