"""From a kernel spec to calls and GPU code: the one place that knows which lowering serves which core."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from engine.errors import UnsupportedError
from engine.program import Lowered, joined
from engine.schedule import (
    Attention,
    Bundle,
    Contraction,
    Conv2d,
    ConvWeightGrad,
    Custom,
    KernelSpec,
    MaxPool2d,
    MaxPool2dGather,
    MaxPool2dGrad,
    Recurrence,
    RunningExtremum,
    Scan,
    Scatter,
    Sort,
)
from runtime.conv_phases import has_phases, phases
from runtime.conv_taps import has_idle_taps, trimmed
from runtime.cuda.attention import lower_attention
from runtime.cuda.bundle import lower_bundle
from runtime.cuda.contraction import lower_contraction
from runtime.cuda.conv import lower_conv2d, lower_conv_weight_grad, on_tensor_cores
from runtime.cuda.conv_direct import lower_direct_conv2d, lower_direct_weight_grad
from runtime.cuda.conv_specs import pool_apart
from runtime.cuda.custom import lower_custom
from runtime.cuda.depthwise import is_depthwise, lower_depthwise, lower_depthwise_weight_grad
from runtime.cuda.loops import lower_loops
from runtime.cuda.pool import lower_pool
from runtime.cuda.recurrence import lower_recurrence
from runtime.cuda.reductions import lower_reduction
from runtime.cuda.scan import lower_scan
from runtime.cuda.scatter import lower_scatter
from runtime.cuda.sort import lower_sort
from runtime.pointwise import as_contraction, gradient_as_contraction, is_pointwise, is_pointwise_gradient


def lower(item: KernelSpec | Bundle, lasting: Collection[str] = (), architecture: str = "sm_80") -> Lowered:
    """The calls, kernels and buffers for one item of a schedule. ``lasting`` names the buffers whose contents stay from
    call to call, ``architecture`` what the code is for: with "sm_90a" products may use TMA and wgmma, which others do
    not have. Raises UnsupportedError for an unknown core."""
    if isinstance(item, Bundle):
        return lower_bundle(item)
    again = partial(lower, lasting=lasting, architecture=architecture)
    match item.core:
        case None if item.reduced:
            return lower_reduction(item)
        case None:
            return lower_loops(item)
        case Attention() as core:
            return lower_attention(item, core, architecture)
        case Recurrence() as core:
            return lower_recurrence(item, core, architecture)
        case Contraction():
            return lower_contraction(item, again, architecture)
        case Conv2d() if has_phases(item):
            return joined([again(phase) for phase in phases(item)])
        case Conv2d() as core if has_idle_taps(core):
            return again(trimmed(item))
        case Conv2d() as core if is_depthwise(core):
            return lower_depthwise(item, again)
        case Conv2d() as core if is_pointwise(core) and (_is_one_product(item) or not on_tensor_cores(core)):
            return again(as_contraction(item))
        case Conv2d() as core if on_tensor_cores(core):
            return lower_conv2d(item, again, architecture)
        case Conv2d():
            return lower_direct_conv2d(item)
        case ConvWeightGrad() as core if is_depthwise(core):
            return lower_depthwise_weight_grad(item, again)
        case ConvWeightGrad() as core if is_pointwise_gradient(core):
            return again(gradient_as_contraction(item))
        case ConvWeightGrad() as core if on_tensor_cores(core):
            return lower_conv_weight_grad(item, again, architecture)
        case ConvWeightGrad():
            return lower_direct_weight_grad(item, again)
        case MaxPool2d(source=Conv2d()):
            convolution, pool, between = pool_apart(item)
            return joined([Lowered((), (), (between,)), again(convolution), again(pool)])
        case (MaxPool2d() | MaxPool2dGrad() | MaxPool2dGather()) as core:
            return lower_pool(item, core)
        case Scatter() as core:
            return lower_scatter(item, core)
        case (Scan() | RunningExtremum()) as core:
            return lower_scan(item, core)
        case Sort() as core:
            return lower_sort(item, core)
        case Custom() as core:
            return lower_custom(item, core)
    raise UnsupportedError(f"CUDA has no kernel for the core {type(item.core).__name__} of {item.name}")


def _is_one_product(spec: KernelSpec) -> bool:
    """Whether a pointwise convolution multiplies all its pixels at once. Where they lie apart, as with a stride, it
    would be a product a row of them; the kernel of convolutions finds its way among all."""
    return len(as_contraction(spec).axes) == 2
