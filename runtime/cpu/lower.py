"""From a kernel spec to calls and code: the one place that knows which lowering serves which core."""

from __future__ import annotations

from collections.abc import Collection

from engine.errors import UnsupportedError
from engine.program import Lowered, joined
from engine.schedule import (
    Attention,
    Bundle,
    Contraction,
    Conv2d,
    ConvChain,
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
from runtime.choices import pick
from runtime.conv_phases import has_phases, phases
from runtime.conv_taps import has_idle_taps, trimmed
from runtime.cpu.attention import lower_attention
from runtime.cpu.bundle import lower_bundle
from runtime.cpu.contraction import lower_contraction
from runtime.cpu.conv import computed_dtype
from runtime.cpu.conv_chain import lower_conv_chain
from runtime.cpu.conv_direct import lower_conv2d
from runtime.cpu.conv_few import has_few_channels, lower_few_channels
from runtime.cpu.conv_groups import small_groups
from runtime.cpu.conv_groups_grad import lower_groups_grad, small_gradient
from runtime.cpu.conv_inside import lower_inside, reads_inside
from runtime.cpu.conv_inside_grad import is_small, lower_inside_grad
from runtime.cpu.conv_planes import goes_by_planes, lower_planes
from runtime.cpu.conv_pool import lower_conv2d_pool
from runtime.cpu.conv_separable import lower_separable
from runtime.cpu.conv_spread import is_spread, lower_spread
from runtime.cpu.conv_weight_grad import lower_conv_weight_grad
from runtime.cpu.conv_winograd import is_winograd, lower_winograd
from runtime.cpu.custom import lower_custom
from runtime.cpu.depthwise import is_depthwise, lower_depthwise
from runtime.cpu.depthwise_rows import is_by_rows, lower_depthwise_rows
from runtime.cpu.depthwise_rows_grad import is_gradient_by_rows, lower_gradient_by_rows
from runtime.cpu.depthwise_spread import is_spread_depthwise, lower_spread_depthwise
from runtime.cpu.depthwise_weight_grad import is_depthwise_gradient, lower_depthwise_weight_grad
from runtime.cpu.loops import lower_loops
from runtime.cpu.pool import lower_pool
from runtime.cpu.recurrence import lower_recurrence
from runtime.cpu.reduce import lower_reduction
from runtime.cpu.scan import lower_running, lower_scan
from runtime.cpu.scatter import lower_scatter
from runtime.cpu.sort import lower_sort
from runtime.pointwise import as_contraction, gradient_as_contraction, is_pointwise, is_pointwise_gradient

WINOGRAD = {"winograd": True, "sums": False}
IN_PLACE = {"in place": True, "copied": False}
"""Ways of a convolution, of which the first is expected to be faster."""


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
        case Contraction():
            return lower_contraction(item, lasting)
        case Conv2d() if has_phases(item) and is_spread_depthwise(item):
            return lower_spread_depthwise(item)
        case Conv2d() if has_phases(item) and is_spread(item):
            return lower_spread(item)
        case Conv2d() if has_phases(item):
            return joined([lower(phase, lasting) for phase in phases(item)])
        case Conv2d() as core if has_idle_taps(core):
            return lower(trimmed(item), lasting)
        case Conv2d() as core if item.reduced:
            return lower_inside(item) if reads_inside(core, item.axes[0]) else lower_conv2d(item)
        case Conv2d() if is_by_rows(item):
            return lower_depthwise_rows(item)
        case Conv2d() as core if is_depthwise(core):
            return lower_depthwise(item, lasting)
        case Conv2d() as core if core.groups > 1 and small_groups(core, computed_dtype(core)):
            return lower_conv2d(item)
        case Conv2d() if goes_by_planes(item):
            return lower_planes(item)
        case Conv2d() as core if is_pointwise(core) and not core.x.dtype.storage_only:
            return lower_contraction(as_contraction(item), lasting)
        case Conv2d() if has_few_channels(item):
            return lower_few_channels(item, lasting)
        case Conv2d() as core if is_winograd(core, lasting) and pick("algorithm", WINOGRAD):
            return lower_winograd(item)
        case Conv2d() as core if reads_inside(core, item.axes[0]) and pick("image", IN_PLACE):
            return lower_inside(item)
        case Conv2d():
            return lower_conv2d(item)
        case ConvChain() as core if is_depthwise(core.source):
            return lower_separable(item, core, lasting)
        case ConvChain() as core:
            return lower_conv_chain(item, core, lasting)
        case ConvWeightGrad() as core if is_pointwise_gradient(core) and not core.x.dtype.storage_only:
            return lower_contraction(gradient_as_contraction(item), lasting)
        case ConvWeightGrad() as core if is_gradient_by_rows(core):
            return lower_gradient_by_rows(item)
        case ConvWeightGrad() as core if is_depthwise_gradient(core):
            return lower_depthwise_weight_grad(item)
        case ConvWeightGrad() as core if taken := small_gradient(core):
            return lower_groups_grad(item, taken)
        case ConvWeightGrad() as core if is_small(core):
            return lower_inside_grad(item)
        case ConvWeightGrad():
            return lower_conv_weight_grad(item)
        case MaxPool2d(source=Conv2d()) if has_few_channels(item):
            return lower_few_channels(item, lasting)
        case MaxPool2d(source=Conv2d()):
            return lower_conv2d_pool(item)
        case MaxPool2d() | MaxPool2dGrad() | MaxPool2dGather():
            return lower_pool(item)
        case Scatter() as core:
            return lower_scatter(item, core)
        case Scan() as core:
            return lower_scan(item, core)
        case RunningExtremum() as core:
            return lower_running(item, core)
        case Sort() as core:
            return lower_sort(item, core)
        case Recurrence() as core:
            return lower_recurrence(item, core)
        case Attention() as core:
            return lower_attention(item, core)
        case Custom() as core:
            return lower_custom(item, core)
    raise UnsupportedError(f"the CPU has no kernel for the core {type(item.core).__name__} of {item.name}")
