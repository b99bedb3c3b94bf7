"""Activation functions with PyTorch's options, and softmax."""

from __future__ import annotations

from typing import Any

from engine.errors import ShapeError, TenonError
from engine.rules import normal_axis
from frontend import drawing
from frontend.dispatch import call
from frontend.tensor import Operand, Tensor, as_tensor

__all__ = [
    "celu", "elu", "gelu", "glu", "gumbel_softmax", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu",
    "log_softmax", "mish", "prelu", "relu", "relu6", "rrelu", "selu", "silu", "softmax", "softmin", "softplus",
    "softshrink", "swish", "threshold",
]  # fmt: skip

# ``inplace`` is accepted wherever PyTorch has it, and changes nothing: the compiler reuses memory by itself.


def relu(input: Operand, inplace: bool = False) -> Tensor:
    """max(x, 0); NaN stays.

    PyTorch: torch.nn.functional.relu.
    """
    return call("relu", input)


def leaky_relu(input: Operand, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x, or ``negative_slope * x`` below 0.

    PyTorch: torch.nn.functional.leaky_relu.
    """
    return call("leaky_relu", input, negative_slope)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x, or ``weight * x`` below 0: one weight for all, or one for each channel (axis 1). He et al. (2015).

    PyTorch: torch.nn.functional.prelu.
    """
    x, slope = as_tensor(input), as_tensor(weight)
    if slope.numel() != 1:
        if slope.ndim != 1 or x.ndim < 1 or slope.shape[0] != x.shape[min(1, x.ndim - 1)]:
            raise ShapeError(f"prelu: weights {tuple(slope.shape)} do not fit the channels of shape {tuple(x.shape)}")
        slope = slope.reshape(-1, *(1,) * max(0, x.ndim - 2))
    else:
        slope = slope.reshape(())
    return call("leaky_relu", x, slope)


def rrelu(
    input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """A leaky relu whose slope is drawn for each element while training, and in the middle otherwise.

    PyTorch: torch.nn.functional.rrelu.
    """
    x = as_tensor(input)
    if not training:
        return call("leaky_relu", x, (lower + upper) / 2)
    return call("leaky_relu", x, (lower + (upper - lower) * drawing.rand(x.shape)).to(x.dtype))


def elu(input: Operand, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x, or ``alpha * (exp(x) - 1)`` below 0.

    PyTorch: torch.nn.functional.elu.
    """
    return call("elu", input, alpha)


def selu(input: Operand, inplace: bool = False) -> Tensor:
    """A scaled elu that keeps mean and variance.

    PyTorch: torch.nn.functional.selu.
    """
    return call("selu", input)


def celu(input: Operand, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x, or ``alpha * (exp(x / alpha) - 1)`` below 0.

    PyTorch: torch.nn.functional.celu.
    """
    if alpha == 0:
        raise TenonError("celu: alpha cannot be 0")
    return call("celu", input, alpha)


def relu6(input: Operand, inplace: bool = False) -> Tensor:
    """Between 0 and 6.

    PyTorch: torch.nn.functional.relu6.
    """
    return call("relu6", input)


def hardtanh(input: Operand, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """Between ``min_val`` and ``max_val``.

    PyTorch: torch.nn.functional.hardtanh.
    """
    if min_val > max_val:
        raise TenonError(f"hardtanh: min_val {min_val} is greater than max_val {max_val}")
    return call("hardtanh", input, min_val, max_val)


def hardsigmoid(input: Operand, inplace: bool = False) -> Tensor:
    """A sigmoid made of straight lines: relu6(x + 3) / 6.

    PyTorch: torch.nn.functional.hardsigmoid.
    """
    return call("hardsigmoid", input)


def hardswish(input: Operand, inplace: bool = False) -> Tensor:
    """x * hardsigmoid(x).

    PyTorch: torch.nn.functional.hardswish.
    """
    return call("hardswish", input)


def hardshrink(input: Operand, lambd: float = 0.5) -> Tensor:
    """0 between ``-lambd`` and ``lambd``, x elsewhere.

    PyTorch: torch.nn.functional.hardshrink.
    """
    return call("hardshrink", input, lambd)


def softshrink(input: Operand, lambd: float = 0.5) -> Tensor:
    """x nearer to 0 by ``lambd``, and 0 between.

    PyTorch: torch.nn.functional.softshrink.
    """
    if lambd < 0:
        raise TenonError(f"softshrink: lambd must be at least 0, not {lambd}")
    return call("softshrink", input, lambd)


def threshold(input: Operand, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where it is above ``threshold``, else ``value``.

    PyTorch: torch.nn.functional.threshold.
    """
    return call("threshold", input, threshold, value)


def softplus(input: Operand, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta; x itself where ``beta * x`` is above ``threshold``.

    PyTorch: torch.nn.functional.softplus.
    """
    return call("softplus", input, beta, threshold)


def silu(input: Operand, inplace: bool = False) -> Tensor:
    """x * sigmoid(x).

    PyTorch: torch.nn.functional.silu.
    """
    return call("silu", input)


swish = silu


def mish(input: Operand, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x)).

    PyTorch: torch.nn.functional.mish.
    """
    return call("mish", input)


def gelu(input: Operand, approximate: str = "none") -> Tensor:
    """x times the cumulative function of the normal distribution; ``approximate="tanh"`` comes near it.

    PyTorch: torch.nn.functional.gelu.
    """
    if approximate not in ("none", "tanh"):
        raise TenonError(f'gelu: approximate must be "none" or "tanh", not {approximate!r}')
    return call("gelu" if approximate == "none" else "gelu_tanh", input)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half along ``dim``, times the sigmoid of the second: Dauphin et al. (2017).

    PyTorch: torch.nn.functional.glu.
    """
    x = as_tensor(input)
    axis = normal_axis(dim, x.ndim, "glu")
    size = x.shape[axis]
    if not isinstance(size, int) or size % 2:
        raise ShapeError(f"glu: axis {dim} has {size} elements, and must split into two halves")
    before = (slice(None),) * axis
    return x[(*before, slice(0, size // 2))] * call("sigmoid", x[(*before, slice(size // 2, size))])


def softmax(input: Tensor, dim: int, dtype: object = None) -> Tensor:
    """exp(x) / sum of exp(x) along ``dim``.

    PyTorch: torch.nn.functional.softmax. Differs: ``dim`` must be given.
    """
    x = as_tensor(input, dtype)
    return x.softmax(dim)


def log_softmax(input: Tensor, dim: int, dtype: object = None) -> Tensor:
    """x - log of the sum of exp(x) along ``dim``.

    PyTorch: torch.nn.functional.log_softmax. Differs: ``dim`` must be given.
    """
    x = as_tensor(input, dtype)
    return x.log_softmax(dim)


def softmin(input: Tensor, dim: int, dtype: object = None) -> Tensor:
    """softmax(-x) along ``dim``.

    PyTorch: torch.nn.functional.softmin. Differs: ``dim`` must be given.
    """
    return softmax(-as_tensor(input, dtype), dim)


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, dim: int = -1) -> Tensor:
    """softmax((logits + Gumbel noise) / tau); with ``hard`` 1 at its maximum and 0 elsewhere, with the gradient of the
    soft one. Jang, Gu and Poole (2017).

    PyTorch: torch.nn.functional.gumbel_softmax.
    """
    x: Any = as_tensor(logits)
    soft = softmax((x + drawing.gumbel(x.shape).to(x.dtype)) / tau, dim)
    if not hard:
        return soft
    axis = normal_axis(dim, x.ndim, "gumbel_softmax")
    best = soft.argmax(axis, keepdim=True)
    chosen = (call("iota", shape=tuple(soft.shape), axis=axis) == best).to(x.dtype)
    return (chosen - soft).detach() + soft
