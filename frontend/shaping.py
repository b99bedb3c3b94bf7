"""Functions that rearrange a tensor's axes and join tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from engine import dims
from engine.dims import shape_text
from engine.errors import ShapeError
from engine.rules import normal_axis
from frontend.dispatch import call
from frontend.sizes import Shape, SizeLike, as_size, plain, plain_shape, sizes_of

if TYPE_CHECKING:
    from frontend.tensor import Tensor


def reshape(x: Tensor, shape: Sequence[SizeLike]) -> Tensor:
    """The elements of ``x`` in row-major order under ``shape``, in which one size may be -1: whatever is left.

    Raises ShapeError where the number of elements differs; with symbolic sizes every call checks it.

    PyTorch: torch.reshape.
    """
    return call("reshape", x, shape=_completed(x, plain_shape(shape)))


def _completed(x: Tensor, shape: dims.Shape) -> dims.Shape:
    if -1 not in shape:
        return shape
    given = plain_shape(x.shape)
    known = dims.product(s for s in shape if s != -1)
    if sum(1 for s in shape if s == -1) > 1:
        raise ShapeError(f"reshape: only one size can be -1, not several as in {shape_text(shape)}")
    if known == 0:
        raise ShapeError(f"reshape: -1 in {shape_text(shape)} could be any size, because another one is 0")
    rest = dims.product(given) // known
    completed = tuple(rest if s == -1 else s for s in shape)
    dims_differ = dims.product(completed) - dims.product(given)
    if isinstance(dims_differ, int) and dims_differ != 0:
        raise ShapeError(
            f"a tensor of shape {shape_text(given)} cannot be reshaped to {shape_text(shape)}: "
            f"{dims.product(given)} elements do not divide by {known}"
        )
    return completed


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The axes ``start_dim`` to ``end_dim`` (inclusive) as one.

    PyTorch: torch.flatten.
    """
    if x.ndim == 0:
        return reshape(x, (1,))
    first, last = normal_axis(start_dim, x.ndim, "flatten"), normal_axis(end_dim, x.ndim, "flatten")
    if first > last:
        raise ShapeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    middle = Shape(plain_shape(x.shape[first : last + 1])).numel()
    return reshape(x, (*x.shape[:first], middle, *x.shape[last + 1 :]))


def unflatten(x: Tensor, dim: int, sizes: Sequence[SizeLike]) -> Tensor:
    """Axis ``dim`` split into ``sizes``, one of which may be -1.

    PyTorch: torch.unflatten.
    """
    axis = normal_axis(dim, x.ndim, "unflatten")
    parts = list(plain_shape(sizes))
    if parts.count(-1) == 1:
        known = dims.product(s for s in parts if s != -1)
        if known == 0:
            raise ShapeError(f"unflatten: -1 in {shape_text(tuple(parts))} could be any size, because another one is 0")
        parts[parts.index(-1)] = plain(x.shape[axis]) // known
    return reshape(x, (*x.shape[:axis], *map(as_size, parts), *x.shape[axis + 1 :]))


def permute(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Output axis ``i`` is input axis ``axes[i]``.

    PyTorch: torch.permute.
    """
    if len(axes) != x.ndim:
        raise ShapeError(f"permute: {tuple(axes)} is not an order of the {x.ndim} axes of {shape_text(tuple(x.shape))}")
    return call("permute", x, axes=tuple(normal_axis(a, x.ndim, "permute") for a in axes))


def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    """``x`` with two axes swapped.

    PyTorch: torch.transpose.
    """
    a, b = normal_axis(dim0, x.ndim, "transpose"), normal_axis(dim1, x.ndim, "transpose")
    axes = list(range(x.ndim))
    if axes:
        axes[a], axes[b] = b, a
    return permute(x, axes)


def squeeze(x: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Without the axes of size 1: all of them, or those in ``dim`` that have it.

    PyTorch: torch.squeeze.
    """
    if dim is None:
        chosen = {i for i, size in enumerate(x.shape) if isinstance(size, int)}
    else:
        given = (dim,) if isinstance(dim, int) else tuple(dim)
        chosen = {normal_axis(d, x.ndim, "squeeze") for d in given} if x.ndim else set()
    return reshape(x, tuple(size for i, size in enumerate(x.shape) if i not in chosen or size != 1))


def unsqueeze(x: Tensor, dim: int) -> Tensor:
    """With a new axis of size 1 at ``dim``.

    PyTorch: torch.unsqueeze.
    """
    axis = normal_axis(dim, x.ndim + 1, "unsqueeze")
    return reshape(x, (*x.shape[:axis], 1, *x.shape[axis:]))


def expand(x: Tensor, *sizes: SizeLike | Sequence[SizeLike]) -> Tensor:
    """``x`` repeated along new leading axes and along axes of size 1; -1 keeps an axis as it is.

    PyTorch: torch.Tensor.expand.
    """
    wanted = sizes_of(sizes)
    own = plain_shape(x.shape)
    extra = len(wanted) - x.ndim
    if extra < 0 or -1 in wanted[:extra]:
        raise ShapeError(f"expand: {shape_text(wanted)} does not give a size for each axis of {shape_text(own)}")
    shape = tuple(own[i - extra] if s == -1 else s for i, s in enumerate(wanted))
    return call("broadcast_to", x, shape=shape)


def concat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors joined along an axis.

    PyTorch: torch.cat.
    """
    parts = _several("concat", tensors)
    return call("concat", *parts, axis=normal_axis(dim, parts[0].ndim, "concat"))


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis.

    PyTorch: torch.stack.
    """
    parts = _several("stack", tensors)
    first = plain_shape(parts[0].shape)
    for other in (plain_shape(x.shape) for x in parts[1:]):
        known = [(a, b) for a, b in zip(first, other, strict=False) if isinstance(a, int) and isinstance(b, int)]
        if len(first) != len(other) or any(a != b for a, b in known):
            raise ShapeError(f"stack: the shapes {shape_text(first)} and {shape_text(other)} must be equal")
    return concat([unsqueeze(x, dim) for x in parts], normal_axis(dim, parts[0].ndim + 1, "stack"))


def _several(name: str, tensors: Sequence[Tensor]) -> list[Tensor]:
    from frontend.tensor import as_tensor

    if not isinstance(tensors, (list, tuple)) or not tensors:
        raise ShapeError(f"{name} takes a list of at least one tensor, not {tensors!r:.80}")
    return [as_tensor(x) for x in tensors]


def matmul(a: Tensor | np.ndarray, b: Tensor | np.ndarray) -> Tensor:
    """The matrix product, as ``np.matmul``: a 1-D operand is a row on the left and a column on the right, and axes
    before the last two broadcast.

    PyTorch: torch.matmul.
    """
    from frontend.tensor import as_tensor

    a, b = as_tensor(a), as_tensor(b)
    if a.ndim == 0 or b.ndim == 0:
        raise ShapeError("matmul takes tensors of at least 1 axis, and got a scalar; multiply with *")
    left = unsqueeze(a, 0) if a.ndim == 1 else a
    right = unsqueeze(b, 1) if b.ndim == 1 else b
    out = call("matmul", left, right)
    if b.ndim == 1:
        out = reshape(out, out.shape[:-1])
    if a.ndim == 1:
        out = reshape(out, (*out.shape[:-2], out.shape[-1]) if b.ndim > 1 else out.shape[:-1])
    return out
