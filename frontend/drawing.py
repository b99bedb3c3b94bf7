"""Random tensors. In a program draws are counted (Philox): the same after the same ``tn.seed``, at every optimisation
level and thread count, new ones in each call. Elsewhere they come from the generator that ``tn.seed`` seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine import dims, dtypes
from engine.dtypes import as_dtype
from engine.errors import DTypeError, ShapeError, TenonError
from engine.graph import apply, tracing
from frontend import random
from frontend.dispatch import call
from frontend.sizes import SizeLike, sizes_of
from frontend.trace import current_trace

if TYPE_CHECKING:
    from frontend.tensor import Tensor

Size = SizeLike | Sequence[SizeLike] | dims.Shape


def rand(*size: Size, dtype: object = dtypes.f32) -> Tensor:
    """Uniform draws from [0, 1).

    PyTorch: torch.rand.
    """
    from frontend.tensor import Tensor

    shape, kind = sizes_of(size), as_dtype(dtype)
    drawn = dtypes.f64 if kind == dtypes.f64 else dtypes.f32
    if not tracing():
        return Tensor(random.default.generator.random(shape, drawn.numpy), kind)
    seed, step, stream = current_trace("a random number").random_stream()
    return Tensor.of(apply("random_uniform", seed, step, stream=stream, shape=shape, dtype=drawn)).to(kind)


def randn(*size: Size, dtype: object = dtypes.f32) -> Tensor:
    """Draws from the standard normal distribution: in a program by the transform of Box and Muller (1958).

    PyTorch: torch.randn.
    """
    from frontend.tensor import Tensor

    shape, kind = sizes_of(size), as_dtype(dtype)
    if not tracing():
        return Tensor(random.default.generator.standard_normal(shape), kind)
    drawn = dtypes.f64 if kind == dtypes.f64 else dtypes.f32
    radius = call("sqrt", call("log", _above_zero(shape, drawn)) * -2.0)
    return (radius * call("cos", rand(shape, dtype=drawn) * (2 * math.pi))).to(kind)


def _above_zero(shape: Any, dtype: object = dtypes.f32) -> Tensor:
    """Uniform draws from (0, 1], of which a logarithm can be taken."""
    return 1.0 - rand(shape, dtype=dtype)


def rand_like(x: Tensor, dtype: object = None) -> Tensor:
    """Uniform draws in the shape and dtype of ``x``.

    PyTorch: torch.rand_like.
    """
    return rand(x.shape, dtype=x.dtype if dtype is None else dtype)


def randn_like(x: Tensor, dtype: object = None) -> Tensor:
    """Normal draws in the shape and dtype of ``x``.

    PyTorch: torch.randn_like.
    """
    return randn(x.shape, dtype=x.dtype if dtype is None else dtype)


def normal(mean: Any = 0.0, std: Any = 1.0, size: Any = None, dtype: object = dtypes.f32) -> Tensor:
    """Draws from normal distributions; without ``size`` in the shape of ``mean`` and ``std``, of which one is a tensor.

    PyTorch: torch.normal.
    """
    if size is None:
        shapes = [tuple(v.shape) for v in (mean, std) if hasattr(v, "shape")]
        if not shapes:
            raise ShapeError("normal: size is needed where mean and std are numbers")
        size = max(shapes, key=len)
    return randn(size, dtype=dtype) * std + mean


def uniform(low: float = 0.0, high: float = 1.0, size: Any = (), dtype: object = dtypes.f32) -> Tensor:
    """Uniform draws from [low, high)."""
    return rand(size, dtype=dtype) * (high - low) + low


def bernoulli(input: Tensor, p: float | None = None) -> Tensor:
    """1 with the probability that ``input`` gives for each element (or ``p`` for all), else 0, in its dtype.

    PyTorch: torch.bernoulli.
    """
    from frontend.tensor import as_tensor

    x = as_tensor(input)
    if not x.dtype.is_float and p is None:
        raise DTypeError(f"bernoulli takes probabilities, not {x.dtype}")
    return (rand(x.shape) < (x if p is None else p)).to(x.dtype)


def randint(low: int, high: Any = None, size: Any = None, dtype: object = dtypes.i64) -> Tensor:
    """Whole numbers from ``low`` to ``high - 1``: ``randint(high, size)`` starts at 0. The chance of each differs from
    the others' by less than ``(high - low) / 2**53``.

    PyTorch: torch.randint.
    """
    if size is None:
        low, high, size = 0, low, high
    if not low < high:
        raise TenonError(f"randint: there is no whole number from {low} to {high} - 1")
    if high - low >= 2**53:
        raise TenonError(f"randint: the range {low} to {high} is too wide; below 2**53 numbers were expected")
    return (call("floor", rand(size, dtype=dtypes.f64) * float(high - low)).long() + low).to(dtype)


def randperm(n: int, dtype: object = dtypes.i64) -> Tensor:
    """The numbers 0 to n-1 in random order.

    PyTorch: torch.randperm.
    """
    return call("sort", rand((n,), dtype=dtypes.f64), axis=0)[1].to(dtype)


def gumbel(size: Any, dtype: object = dtypes.f32) -> Tensor:
    """Draws from the standard Gumbel distribution: -log(-log(u))."""
    return -call("log", exponential(size, dtype))


def exponential(size: Any, dtype: object = dtypes.f32) -> Tensor:
    """Draws from the standard exponential distribution: -log(u)."""
    # Never 0, so that a logarithm of it is finite.
    return call("maximum", -call("log", _above_zero(size, dtype)), 1e-30)


def multinomial(input: Tensor, num_samples: int, replacement: bool = False) -> Tensor:
    """``num_samples`` class indices (i64) for each row of weights: (C) gives (S), (N, C) gives (N, S).

    Without ``replacement`` no class comes twice: the greatest of log-weights plus Gumbel noise (Kool et al., 2019,
    "Stochastic beams and where to find them").

    PyTorch: torch.multinomial.
    """
    from frontend.tensor import as_tensor

    weights = as_tensor(input)
    if weights.ndim not in (1, 2) or not weights.dtype.is_float:
        raise ShapeError(f"multinomial takes weights (C) or (N, C), not {weights.dtype} of {tuple(weights.shape)}")
    classes = weights.shape[-1]
    if isinstance(classes, int) and not replacement and num_samples > classes:
        raise TenonError(f"multinomial: {num_samples} samples without replacement from {classes} classes")
    logs = call("log", weights)
    if not replacement:
        noisy = logs + gumbel(logs.shape).to(logs.dtype)
        order = call("sort", noisy, axis=weights.ndim - 1, descending=True)[1]
        return order[..., :num_samples]
    shape = (*weights.shape[:-1], num_samples, classes)
    return (logs.unsqueeze(-2) + gumbel(shape).to(logs.dtype)).argmax(-1)
