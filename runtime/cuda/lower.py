"""From a kernel spec to calls and GPU code: the one place that knows which lowering serves which core."""

from __future__ import annotations

from collections.abc import Collection

from engine.errors import UnsupportedError
from engine.program import Lowered, joined
from engine.schedule import Bundle, Contraction, Conv2d, ConvWeightGrad, KernelSpec, MaxPool2d
from runtime.conv_phases import has_phases, phases
from runtime.conv_taps import has_idle_taps, trimmed
from runtime.cuda.contraction import lower_contraction
from runtime.cuda.conv import lower_conv2d, lower_conv_weight_grad, on_tensor_cores
from runtime.cuda.conv_direct import lower_direct_conv2d, lower_direct_weight_grad
from runtime.cuda.conv_specs import pool_apart
from runtime.cuda.depthwise import is_depthwise, lower_depthwise, lower_depthwise_weight_grad
from runtime.pointwise import as_contraction, gradient_as_contraction, is_pointwise, is_pointwise_gradient


def lower(item: KernelSpec | Bundle, lasting: Collection[str] = ()) -> Lowered:
    """The calls, kernels and buffers for one item of a schedule. ``lasting`` names the buffers whose contents stay from
    call to call. Raises UnsupportedError for an unknown core."""
    if isinstance(item, Bundle):
        raise UnsupportedError(f"CUDA has no kernel for the bundle {item.name}")
    core = item.core
    match core:
        case Contraction():
            return lower_contraction(item)
        case Conv2d() if has_phases(item):
            return joined([lower(phase, lasting) for phase in phases(item)])
        case Conv2d() if has_idle_taps(core):
            return lower(trimmed(item), lasting)
        case Conv2d() if is_depthwise(core):
            return lower_depthwise(item, lower)
        case Conv2d() if is_pointwise(core):
            return lower(as_contraction(item), lasting)
        case Conv2d() if on_tensor_cores(core):
            return lower_conv2d(item, lower)
        case Conv2d():
            return lower_direct_conv2d(item)
        case ConvWeightGrad() if is_depthwise(core):
            return lower_depthwise_weight_grad(item, lower)
        case ConvWeightGrad() if is_pointwise_gradient(core):
            return lower(gradient_as_contraction(item), lasting)
        case ConvWeightGrad() if on_tensor_cores(core):
            return lower_conv_weight_grad(item, lower)
        case ConvWeightGrad():
            return lower_direct_weight_grad(item, lower)
        case MaxPool2d(source=Conv2d()):
            convolution, pool, between = pool_apart(item)
            return joined([Lowered((), (), (between,)), lower(convolution, lasting), lower(pool, lasting)])
        case _:
            raise UnsupportedError(f"CUDA has no kernel for the core {type(core).__name__} of {item.name}")
