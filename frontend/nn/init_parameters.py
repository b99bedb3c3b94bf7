"""New parameters of layers, filled as PyTorch fills them."""

from __future__ import annotations

import math

from engine import dtypes
from engine.dtypes import as_dtype
from engine.state import Cell
from frontend.nn import init
from frontend.nn.parameter import Parameter

__all__ = ["new_parameter", "fill_as_pytorch"]


def new_parameter(shape: tuple[int, ...], dtype: object, order: tuple[int, ...] | None = None) -> Parameter:
    """A parameter that holds anything, its axes in memory in this order."""
    kind = dtypes.f32 if dtype is None else as_dtype(dtype)
    return Parameter(Cell.empty(shape, kind, order))


def fill_as_pytorch(weight: Parameter, bias: Parameter | None) -> None:
    """Weights and bias uniform within 1 / sqrt(fan_in): what PyTorch's Linear and Conv2d start from."""
    init.kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        fan_in, _ = init.fan_in_and_fan_out(weight)
        bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
        init.uniform_(bias, -bound, bound)
