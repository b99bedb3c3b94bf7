"""Reductions with PyTorch's ``dim`` and ``keepdim``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from engine import dims
from engine.dims import shape_text
from engine.errors import DTypeError, ShapeError, UnsupportedError
from engine.rules import normal_axis
from frontend.dispatch import call
from frontend.sizes import as_size, plain, plain_shape, rely_on

if TYPE_CHECKING:
    from frontend.tensor import Tensor

Dims = int | Sequence[int] | None


_NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim"}

F = TypeVar("F", bound=Callable[..., Any])


def numpy_names(function: F) -> F:
    """``function`` that takes ``axis`` for ``dim`` and ``keepdims`` for ``keepdim`` too, as PyTorch's do."""

    @functools.wraps(function)
    def accepting(*args: Any, **kwargs: Any) -> Any:
        if "out" in kwargs:
            name = function.__name__
            raise UnsupportedError(f"np.{name} takes NumPy arrays, not tensors; use x.{name}() or tn.{name}(x)")
        renamed = {_NUMPY_NAMES.get(name, name): value for name, value in kwargs.items()}
        if len(renamed) < len(kwargs):
            raise TypeError(f"{function.__name__}() got dim and axis, or keepdim and keepdims: give one of them")
        return function(*args, **renamed)

    return accepting  # type: ignore[return-value]


class Extremum(NamedTuple):
    """The greatest or least along an axis, and where they are (i64; the first where several are equal)."""

    values: Tensor
    indices: Tensor


def axes_of(dim: Dims, rank: int, op: str) -> tuple[int, ...]:
    """The axes that ``dim`` names, in order: all where it is None or, as in PyTorch, empty. Raises ShapeError."""
    given = () if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    if not given:
        return tuple(range(rank))
    axes = tuple(sorted(normal_axis(d, rank, op) for d in given)) if rank else ()
    if len(set(axes)) != len(axes):
        raise ShapeError(f"{op}: the axes {given} name one axis twice")
    return axes


def _extreme(op: str, x: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    _need_elements(op, x, axes_of(dim, x.ndim, op))
    return _reduce(op, x, dim, keepdim)


def _need_elements(op: str, x: Tensor, axes: Sequence[int]) -> None:
    """Nothing has no extremum, so each of ``axes`` has elements in every call."""
    shape = plain_shape(x.shape)
    for a in axes:
        rely_on((shape[a] - 1,), f"{op}: axis {a} of {shape_text(shape)} is empty, and an empty {op} has no value")


def _reduce(op: str, x: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    return call(op, x, axes=axes_of(dim, x.ndim, op), keepdims=keepdim)


@numpy_names
def sum(x: Tensor, dim: Dims = None, keepdim: bool = False, dtype: object = None) -> Tensor:
    """The sum over ``dim``; integers and bools in i64. The sum of nothing is 0.

    PyTorch: torch.sum.
    """
    return _reduce("sum", x if dtype is None else x.to(dtype), dim, keepdim)


@numpy_names
def prod(x: Tensor, dim: Dims = None, keepdim: bool = False, dtype: object = None) -> Tensor:
    """The product over ``dim``; integers and bools in i64. The product of nothing is 1.

    PyTorch: torch.prod.
    """
    return _reduce("prod", x if dtype is None else x.to(dtype), dim, keepdim)


@numpy_names
def mean(x: Tensor, dim: Dims = None, keepdim: bool = False, dtype: object = None) -> Tensor:
    """The mean over ``dim``, in floating point; NaN over nothing.

    PyTorch: torch.mean. Differs: the mean of integers is f64, as NumPy's.
    """
    return _reduce("mean", x if dtype is None else x.to(dtype), dim, keepdim)


@numpy_names
def any(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether any element is not zero.

    PyTorch: torch.any.
    """
    return _reduce("any", x, dim, keepdim)


@numpy_names
def all(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether no element is zero.

    PyTorch: torch.all.
    """
    return _reduce("all", x, dim, keepdim)


@numpy_names
def amax(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The greatest over ``dim``; NaN wins. Equal ones share the gradient. Raises ShapeError over nothing.

    PyTorch: torch.amax.
    """
    return _extreme("max", x, dim, keepdim)


@numpy_names
def amin(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The least over ``dim``; NaN wins. Equal ones share the gradient. Raises ShapeError over nothing.

    PyTorch: torch.amin.
    """
    return _extreme("min", x, dim, keepdim)


def _position(op: str, x: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    _need_elements(op, x, axes_of(dim, x.ndim, op))
    if dim is None:
        found = call(op, x.reshape(-1), axis=0)
        return found.reshape((1,) * x.ndim) if keepdim else found
    return call(op, x.reshape(1) if x.ndim == 0 else x, axis=normal_axis(dim, x.ndim or 1, op), keepdims=keepdim)


@numpy_names
def argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The first position (i64) of the greatest along ``dim``, or in the flattened tensor.

    PyTorch: torch.argmax.
    """
    return _position("argmax", x, dim, keepdim)


@numpy_names
def argmin(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The first position (i64) of the least along ``dim``, or in the flattened tensor.

    PyTorch: torch.argmin.
    """
    return _position("argmin", x, dim, keepdim)


def extremum(op: str, x: Tensor, other: object, keepdim: bool) -> Tensor | Extremum:
    """PyTorch's ``max`` and ``min``: of everything, along an axis with positions, or elementwise with a tensor."""
    from frontend.tensor import Tensor

    if other is None:
        return _extreme(op, x, None, keepdim)
    if isinstance(other, Tensor):
        return call(f"{op}imum", x, other)
    if not isinstance(other, int):
        raise ShapeError(f"{op} takes one axis as an integer, or another tensor, not {other!r}; see also a{op}")
    if x.ndim == 0:
        return Extremum(x, _position(f"arg{op}", x, other, keepdim))
    # Read where the position says, so that of several equal ones that one has the gradient.
    axis = normal_axis(other, x.ndim, op)
    position = _position(f"arg{op}", x, axis, True)
    found = Extremum(call("gather", x, position, axis=axis), position)
    return found if keepdim else Extremum(*(part.squeeze(axis) for part in found))


@numpy_names
def max(x: Tensor, dim: int | Tensor | None = None, keepdim: bool = False) -> Tensor | Extremum:
    """The greatest element; along an axis the greatest and their positions; with a tensor the greater of each pair.

    Along an axis the gradient goes to the position that is given; otherwise equal ones share it.

    PyTorch: torch.max.
    """
    return extremum("max", x, dim, keepdim)


@numpy_names
def min(x: Tensor, dim: int | Tensor | None = None, keepdim: bool = False) -> Tensor | Extremum:
    """The least element; along an axis the least and their positions; with a tensor the lesser of each pair.

    Along an axis the gradient goes to the position that is given; otherwise equal ones share it.

    PyTorch: torch.min.
    """
    return extremum("min", x, dim, keepdim)


@numpy_names
def var(
    x: Tensor, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: int = 1
) -> Tensor:
    """The variance: squared distances from the mean, summed and divided by ``n - correction``.

    ``unbiased=False`` is PyTorch's older way to write ``correction=0``.

    PyTorch: torch.var.
    """
    if not x.dtype.is_float:
        raise DTypeError(f"var takes floating point tensors, not {x.dtype}")
    less = correction if unbiased is None else int(unbiased)
    axes = axes_of(dim, x.ndim, "var")
    count = dims.product(plain(x.shape[a]) for a in axes)
    square = call("square", x - mean(x, axes, keepdim=True))
    rest = count - less
    return sum(square, axes, keepdim) / (as_size(rest) if not isinstance(rest, int) or rest > 0 else 0)


@numpy_names
def std(
    x: Tensor, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: int = 1
) -> Tensor:
    """The square root of the variance.

    PyTorch: torch.std.
    """
    return _root(var(x, dim, unbiased, keepdim, correction=correction))


def _root(total: Tensor) -> Tensor:
    """The square root of a sum of squares. That of 0 has no slope; with PyTorch's, 0, no NaN comes of it."""
    none = total == 0
    return call("where", none, 0, call("sqrt", call("where", none, 1, total)))


@numpy_names
def logsumexp(x: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """The logarithm of the sum of exp(x), without overflow.

    PyTorch: torch.logsumexp.
    """
    axes = axes_of(dim, x.ndim, "logsumexp")
    if len(axes) == 1:
        return call("logsumexp", x, axis=axes[0], keepdims=keepdim)
    rest = tuple(i for i in range(x.ndim) if i not in axes)
    joined = x.permute((*rest, *axes)).reshape((*(x.shape[i] for i in rest), -1))
    found = call("logsumexp", joined, axis=len(rest), keepdims=False)
    return found.reshape(tuple(1 if i in axes else s for i, s in enumerate(x.shape))) if keepdim else found


@numpy_names
def norm(x: Tensor, p: Any = 2, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """``sum(|x|**p) ** (1/p)`` over ``dim`` (all where None): of ``p`` "fro" the 2-norm, inf the greatest magnitude,
    -inf the least, 0 the number of elements that are not zero.

    PyTorch: torch.norm.
    """
    p = 2 if p in ("fro", None) else float(p)
    axes = axes_of(dim, x.ndim, "norm")
    size = call("abs", x)
    if p in (float("inf"), -float("inf")):
        return (amax if p > 0 else amin)(size, axes, keepdim)
    if p == 0:
        return sum((x != 0).to(x.dtype), axes, keepdim)
    if p == 1:
        return sum(size, axes, keepdim)
    if p == 2:
        return _root(sum(call("square", x), axes, keepdim))
    # A power below 1 has no slope at 0, and neither has the root of 0; PyTorch's gradient is 0 in both places.
    nothing = size == 0
    least = 0.0 if p > 0 else float("inf")
    total = sum(call("where", nothing, least, call("where", nothing, 1, size) ** p), axes, keepdim)
    none = total == 0
    return call("where", none, 0, call("where", none, 1, total) ** (1 / p))


def dist(x: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The ``p``-norm of ``x - other``.

    PyTorch: torch.dist.
    """
    return norm(x - other, p)


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0) -> Tensor:
    """The ``p``-norm distance of every row of ``x1`` (..., P, M) from every row of ``x2`` (..., R, M): (..., P, R).

    PyTorch: torch.cdist. Differs: with ``p=inf`` equal distances share the gradient.
    """
    from frontend.tensor import as_tensor

    a, b = as_tensor(x1), as_tensor(x2)
    if a.ndim < 2 or b.ndim < 2:
        shapes = f"{shape_text(plain_shape(a.shape))} and {shape_text(plain_shape(b.shape))}"
        raise ShapeError(f"cdist takes tensors of at least 2 axes, not shapes {shapes}")
    return norm(a.unsqueeze(-2) - b.unsqueeze(-3), p, -1)


class Range(NamedTuple):
    """The least and the greatest."""

    min: Tensor
    max: Tensor


@numpy_names
def aminmax(x: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Range:
    """The least and the greatest over ``dim``; NaN wins.

    PyTorch: torch.aminmax.
    """
    return Range(amin(x, dim, keepdim), amax(x, dim, keepdim))


@numpy_names
def var_mean(
    x: Tensor, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: int = 1
) -> tuple[Tensor, Tensor]:
    """The variance and the mean.

    PyTorch: torch.var_mean.
    """
    return var(x, dim, unbiased, keepdim, correction=correction), mean(x, dim, keepdim)


@numpy_names
def std_mean(
    x: Tensor, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: int = 1
) -> tuple[Tensor, Tensor]:
    """The standard deviation and the mean.

    PyTorch: torch.std_mean.
    """
    return std(x, dim, unbiased, keepdim, correction=correction), mean(x, dim, keepdim)


@numpy_names
def count_nonzero(x: Tensor, dim: Dims = None) -> Tensor:
    """How many elements are not zero (i64).

    PyTorch: torch.count_nonzero.
    """
    return sum(x != 0, dim)


@numpy_names
def nansum(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The sum of what is not NaN.

    PyTorch: torch.nansum.
    """
    return sum(call("where", call("isnan", x), 0, x), dim, keepdim)


@numpy_names
def nanmean(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The mean of what is not NaN.

    PyTorch: torch.nanmean.
    """
    there = call("not_", call("isnan", x))
    return nansum(x, dim, keepdim) / sum(there, dim, keepdim).to(x.dtype)
