"""Filling parameters: PyTorch's schemes, drawn from the generator that ``tn.seed`` seeds.

Each function changes the tensor's elements and returns it. Uniform draws are made when the elements are first asked
for: a model whose weights are loaded draws none. Gains and bounds: Glorot and Bengio (2010), "Understanding
the difficulty of training deep feedforward neural networks"; He et al. (2015), "Delving deep into rectifiers".
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np

from engine.errors import ShapeError, TenonError
from frontend import random
from frontend.nn.parameter import StateTensor

T = TypeVar("T", bound=StateTensor)


def _fill(tensor: T, values: np.ndarray) -> T:
    tensor.cell.write(np.broadcast_to(np.asarray(values, tensor.cell.dtype.numpy), _shape(tensor)))
    return tensor


def _shape(tensor: StateTensor) -> tuple[int, ...]:
    return tensor.cell.shape


def constant_(tensor: T, val: float) -> T:
    """``val`` everywhere.

    PyTorch: torch.nn.init.constant_.
    """
    tensor.cell.fill(lambda array: array.fill(val))
    return tensor


def zeros_(tensor: T) -> T:
    """0 everywhere.

    PyTorch: torch.nn.init.zeros_.
    """
    return constant_(tensor, 0)


def ones_(tensor: T) -> T:
    """1 everywhere.

    PyTorch: torch.nn.init.ones_.
    """
    return constant_(tensor, 1)


def eye_(tensor: T) -> T:
    """The identity matrix.

    PyTorch: torch.nn.init.eye_.
    """
    shape = _shape(tensor)
    if len(shape) != 2:
        raise ShapeError(f"eye_ fills a matrix, not a tensor of shape {shape}")
    return _fill(tensor, np.eye(shape[0], shape[1]))


def uniform_(tensor: T, a: float = 0.0, b: float = 1.0) -> T:
    """Uniform draws from [a, b).

    PyTorch: torch.nn.init.uniform_.
    """
    tensor.cell.fill(random.default.uniform(a, b, math.prod(_shape(tensor))))
    return tensor


def normal_(tensor: T, mean: float = 0.0, std: float = 1.0) -> T:
    """Normal draws.

    PyTorch: torch.nn.init.normal_.
    """
    return _fill(tensor, random.default.generator.normal(mean, std, _shape(tensor)))


def trunc_normal_(tensor: T, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> T:
    """Normal draws, those outside [a, b] drawn again.

    PyTorch: torch.nn.init.trunc_normal_.
    """
    if not a < b or max(a - mean, mean - b) > 4 * std:
        raise TenonError(f"trunc_normal_: [{a}, {b}] must be an interval near the mean {mean} (within 4 * {std})")
    values = random.default.generator.normal(mean, std, _shape(tensor))
    while (outside := (values < a) | (values > b)).any():
        values[outside] = random.default.generator.normal(mean, std, int(outside.sum()))
    return _fill(tensor, values)


def fan_in_and_fan_out(tensor: StateTensor) -> tuple[int, int]:
    """How many inputs an output of this weight (out, in, ...) sums, and how many outputs an input reaches."""
    shape = _shape(tensor)
    if len(shape) < 2:
        raise ShapeError(f"a weight of at least 2 axes has a fan-in and a fan-out, not one of shape {shape}")
    window = math.prod(shape[2:])
    return shape[1] * window, shape[0] * window


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a nonlinearity shrinks its input's deviation, inverted. ``param`` is leaky_relu's slope.

    PyTorch: torch.nn.init.calculate_gain.
    """
    gains = {"tanh": 5.0 / 3, "relu": math.sqrt(2.0), "selu": 0.75}
    linear = ("linear", "sigmoid", "conv1d", "conv2d", "conv3d")
    if nonlinearity in linear:
        return 1.0
    if nonlinearity in gains:
        return gains[nonlinearity]
    if nonlinearity == "leaky_relu":
        return math.sqrt(2.0 / (1 + (0.01 if param is None else param) ** 2))
    known = ", ".join((*linear, *gains, "leaky_relu"))
    raise TenonError(f"calculate_gain: unknown nonlinearity {nonlinearity!r}; expected one of {known}")


def _kaiming_std(tensor: StateTensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise TenonError(f"the mode must be fan_in or fan_out, not {mode!r}")
    fan_in, fan_out = fan_in_and_fan_out(tensor)
    fan = fan_in if mode == "fan_in" else fan_out
    return calculate_gain(nonlinearity, a) / math.sqrt(fan) if fan else 0.0


def kaiming_uniform_(tensor: T, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> T:
    """Uniform draws within gain * sqrt(3 / fan) of 0.

    PyTorch: torch.nn.init.kaiming_uniform_.
    """
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: T, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> T:
    """Normal draws of deviation gain / sqrt(fan).

    PyTorch: torch.nn.init.kaiming_normal_.
    """
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity))


def _xavier_std(tensor: StateTensor, gain: float) -> float:
    return gain * math.sqrt(2.0 / sum(fan_in_and_fan_out(tensor)))


def xavier_uniform_(tensor: T, gain: float = 1.0) -> T:
    """Uniform draws within gain * sqrt(6 / (fan_in + fan_out)) of 0.

    PyTorch: torch.nn.init.xavier_uniform_.
    """
    bound = math.sqrt(3.0) * _xavier_std(tensor, gain)
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: T, gain: float = 1.0) -> T:
    """Normal draws of deviation gain * sqrt(2 / (fan_in + fan_out)).

    PyTorch: torch.nn.init.xavier_normal_.
    """
    return normal_(tensor, 0.0, _xavier_std(tensor, gain))


def orthogonal_(tensor: T, gain: float = 1.0) -> T:
    """A matrix with orthonormal rows or columns, whichever are fewer, times ``gain``: Saxe et al. (2014), "Exact
    solutions to the nonlinear dynamics of learning". Axes from 1 on count as one.

    PyTorch: torch.nn.init.orthogonal_.
    """
    shape = _shape(tensor)
    if len(shape) < 2:
        raise ShapeError(f"orthogonal_ fills tensors of at least 2 axes, not one of shape {shape}")
    rows, columns = shape[0], math.prod(shape[1:])
    draws = random.default.generator.normal(size=(max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(draws)
    q *= np.sign(np.diagonal(r))  # makes all of them equally likely: Mezzadri (2007)
    return _fill(tensor, gain * (q.T if rows < columns else q).reshape(shape))


def dirac_(tensor: T, groups: int = 1) -> T:
    """A convolution's weight (out, in, ...) that passes as many channels on as it can: 1 at the window's middle.

    PyTorch: torch.nn.init.dirac_.
    """
    shape = _shape(tensor)
    if not 3 <= len(shape) <= 5 or shape[0] % groups:
        raise ShapeError(f"dirac_ fills weights of 3 to 5 axes whose channels split into {groups} groups, not {shape}")
    values = np.zeros(shape)
    each = shape[0] // groups
    middle = tuple(n // 2 for n in shape[2:])
    for group in range(groups):
        for channel in range(min(each, shape[1])):
            values[(group * each + channel, channel, *middle)] = 1
    return _fill(tensor, values)


def sparse_(tensor: T, sparsity: float, std: float = 0.01) -> T:
    """Normal draws; in each column of a matrix the share ``sparsity`` of elements is 0: Martens (2010), "Deep learning
    via Hessian-free optimization".

    PyTorch: torch.nn.init.sparse_.
    """
    shape = _shape(tensor)
    if len(shape) != 2:
        raise ShapeError(f"sparse_ fills a matrix, not a tensor of shape {shape}")
    generator = random.default.generator
    values = generator.normal(0.0, std, shape)
    empty = math.ceil(sparsity * shape[0])
    for column in values.T:
        column[generator.permutation(shape[0])[:empty]] = 0
    return _fill(tensor, values)
