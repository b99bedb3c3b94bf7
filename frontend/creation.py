"""Functions that make tensors: arrays outside of tracing, and in a trace nodes, so that sizes may be symbolic."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine import dtypes, rules
from engine.dtypes import DType, as_dtype
from engine.errors import DTypeError, ShapeError
from engine.graph import tracing
from frontend.dispatch import call
from frontend.sizes import SizeLike, plain, plain_shape, sizes_of
from frontend.tensor import Tensor, as_tensor, target_dtype


def tensor(data: Any, dtype: object = None, requires_grad: bool = False) -> Tensor:
    """A tensor with a copy of ``data``. Python floats are f32, ints i64.

    PyTorch: torch.tensor.
    """
    if isinstance(data, Tensor):
        return as_tensor(data, dtype).detach()
    found = as_tensor(data, dtype)
    return Tensor(np.array(found.numpy()), requires_grad=requires_grad)


def full(
    size: SizeLike | tuple[SizeLike, ...] | list[SizeLike],
    fill_value: float,
    dtype: object = None,
    *,
    device: object = None,
) -> Tensor:
    """``fill_value`` everywhere.

    PyTorch: torch.full.
    """
    target_dtype((), None, device)
    shape = plain_shape(size) if isinstance(size, (tuple, list)) else (plain(size),)
    kind = dtypes.of_scalar(fill_value) if dtype is None else as_dtype(dtype)
    if tracing():
        return Tensor.of(rules.full(shape, fill_value, kind))
    return Tensor(np.full(shape, fill_value, kind.numpy))


def zeros(*size: SizeLike | tuple[SizeLike, ...], dtype: object = dtypes.f32, device: object = None) -> Tensor:
    """Zeros: ``zeros(2, 3)`` or ``zeros((2, 3))``.

    PyTorch: torch.zeros.
    """
    return full(sizes_of(size), 0, dtypes.f32 if dtype is None else dtype, device=device)  # type: ignore[arg-type]


def ones(*size: SizeLike | tuple[SizeLike, ...], dtype: object = dtypes.f32, device: object = None) -> Tensor:
    """Ones: ``ones(2, 3)`` or ``ones((2, 3))``.

    PyTorch: torch.ones.
    """
    return full(sizes_of(size), 1, dtypes.f32 if dtype is None else dtype, device=device)  # type: ignore[arg-type]


def empty(*size: SizeLike | tuple[SizeLike, ...], dtype: object = dtypes.f32, device: object = None) -> Tensor:
    """Zeros, as elements that nobody writes have to be something.

    PyTorch: torch.empty. Differs: the elements are 0.
    """
    return zeros(*size, dtype=dtype, device=device)


def full_like(x: Tensor, fill_value: float, dtype: object = None, *, device: object = None) -> Tensor:
    """``fill_value`` in the shape of ``x``, and in its dtype unless one is given.

    PyTorch: torch.full_like.
    """
    return full(x.shape, fill_value, x.dtype if dtype is None else dtype, device=device)


def zeros_like(x: Tensor, dtype: object = None, *, device: object = None) -> Tensor:
    """Zeros in the shape of ``x``, and in its dtype unless one is given.

    PyTorch: torch.zeros_like.
    """
    return full_like(x, 0, dtype, device=device)


def ones_like(x: Tensor, dtype: object = None, *, device: object = None) -> Tensor:
    """Ones in the shape of ``x``, and in its dtype unless one is given.

    PyTorch: torch.ones_like.
    """
    return full_like(x, 1, dtype, device=device)


def empty_like(x: Tensor, dtype: object = None, *, device: object = None) -> Tensor:
    """Zeros in the shape of ``x``, and in its dtype unless one is given.

    PyTorch: torch.empty_like. Differs: the elements are 0.
    """
    return zeros_like(x, dtype, device=device)


def _positions(count: SizeLike, dtype: DType) -> Tensor:
    """0, 1, ... count-1."""
    return call("iota", shape=(plain(count),), axis=0, dtype=dtype)


def arange(start: Any, end: Any = None, step: Any = 1, dtype: object = None, *, device: object = None) -> Tensor:
    """``start``, ``start + step``, ... before ``end``; ``arange(end)`` starts at 0. i64 for integers, else f32.

    Integer bounds may be symbolic sizes if ``step`` is 1.

    PyTorch: torch.arange.
    """
    target_dtype((), None, device)
    if end is None:
        start, end = 0, start
    if step == 0:
        raise ShapeError("arange: the step cannot be 0")
    floating = any(isinstance(v, float) for v in (start, end, step))
    kind = as_dtype(dtype) if dtype is not None else dtypes.f32 if floating else dtypes.i64
    if floating:
        count: SizeLike = max(0, math.ceil((end - start) / step))
        return (_positions(count, dtypes.f64) * float(step) + float(start)).to(kind)
    length = plain(end) - plain(start)
    if not isinstance(length, int):
        if step != 1:
            raise ShapeError(f"arange: the bounds {start} and {end} are symbolic, so the step must be 1, not {step}")
        count = length  # type: ignore[assignment]
    else:
        count = max(0, -(-length // step))
    positions = _positions(count, dtypes.i64)
    positions = positions if step == 1 else positions * step
    return (positions if plain(start) == 0 else positions + start).to(kind)


def linspace(start: float, end: float, steps: int, dtype: object = dtypes.f32, *, device: object = None) -> Tensor:
    """``steps`` evenly spaced numbers from ``start`` to ``end``, both included.

    PyTorch: torch.linspace.
    """
    target_dtype((), None, device)
    if steps < 0:
        raise ShapeError(f"linspace: the number of steps cannot be {steps}")
    if not as_dtype(dtype).is_float:
        raise DTypeError(f"linspace gives floating point numbers, not {as_dtype(dtype)}")
    return Tensor(np.linspace(start, end, steps), dtype)


def logspace(
    start: float, end: float, steps: int, base: float = 10.0, dtype: object = dtypes.f32, *, device: object = None
) -> Tensor:
    """``steps`` numbers from ``base**start`` to ``base**end``, whose logarithms are evenly spaced.

    PyTorch: torch.logspace.
    """
    powers = linspace(start, end, steps, dtypes.f64, device=device).numpy()
    return Tensor(np.power(float(base), powers), dtype)


def tril_indices(row: int, col: int, offset: int = 0) -> Tensor:
    """The rows and columns (2, n) of the elements on and under a diagonal of a matrix, in i64.

    PyTorch: torch.tril_indices.
    """
    return Tensor(np.stack(np.tril_indices(row, offset, col)).astype(np.int64))


def triu_indices(row: int, col: int, offset: int = 0) -> Tensor:
    """The rows and columns (2, n) of the elements on and above a diagonal of a matrix, in i64.

    PyTorch: torch.triu_indices.
    """
    return Tensor(np.stack(np.triu_indices(row, offset, col)).astype(np.int64))


def eye(n: SizeLike, m: SizeLike | None = None, dtype: object = dtypes.f32, *, device: object = None) -> Tensor:
    """Ones on the diagonal of an n by m matrix, zeros elsewhere.

    PyTorch: torch.eye.
    """
    target_dtype((), None, device)
    shape = (plain(n), plain(n if m is None else m))
    rows, columns = (call("iota", shape=shape, axis=axis) for axis in (0, 1))
    return (rows == columns).to(dtype)
