"""From a kernel spec to calls and GPU code: the one place that knows which lowering serves which core."""

from __future__ import annotations

from collections.abc import Collection

from engine.errors import UnsupportedError
from engine.program import Lowered
from engine.schedule import Attention, Bundle, Contraction, KernelSpec
from runtime.cuda.attention import lower_attention
from runtime.cuda.contraction import lower_contraction


def lower(item: KernelSpec | Bundle, lasting: Collection[str] = ()) -> Lowered:
    """The calls, kernels and buffers for one item of a schedule. ``lasting`` names the buffers whose contents stay from
    call to call. Raises UnsupportedError for an unknown core."""
    if isinstance(item, Bundle):
        raise UnsupportedError(f"CUDA has no kernel for the bundle {item.name}")
    core = item.core
    match core:
        case Attention():
            return lower_attention(item, core)
        case Contraction():
            return lower_contraction(item)
        case _:
            raise UnsupportedError(f"CUDA has no kernel for the core {type(core).__name__} of {item.name}")
