"""Choosing elements by masks: masks that a trace knows become indices, others keep shapes as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from engine import dtypes
from engine.dims import shape_text
from engine.errors import DTypeError, ShapeError, UnsupportedError
from frontend.dispatch import call, is_tensor
from frontend.sizes import plain, plain_shape, rely_on

if TYPE_CHECKING:
    from frontend.tensor import Tensor

Positions = tuple[np.ndarray, ...]


def is_mask(entry: Any) -> bool:
    """Whether it is a tensor of booleans."""
    return is_tensor(entry) and dtypes.as_dtype(entry.dtype) == dtypes.bool_


def known_mask(mask: Any, op: str) -> np.ndarray:
    """The elements of a mask. Raises UnsupportedError for one that is known only when the program runs, DTypeError for
    what is no mask."""
    from frontend.tensor import as_tensor

    found = as_tensor(mask)
    if found.dtype != dtypes.bool_:
        raise DTypeError(f"{op} takes a mask of bool, not of {found.dtype}")
    if found.is_symbolic:
        raise UnsupportedError(
            f"{op}: how many elements a mask chooses is known only when the program runs, so no shape can say it; use "
            "where(mask, a, b), or multiply by the mask before a sum"
        )
    return found.numpy()


def positions(mask: np.ndarray, sizes: tuple[Any, ...], op: str) -> Positions:
    """Where a mask over axes of ``sizes`` is true: one vector of indices for each axis. Raises ShapeError."""
    for axis, (given, size) in enumerate(zip(mask.shape, sizes, strict=True)):
        reason = f"{op}: axis {axis} of a mask has {given} elements, and the tensor there {size}"
        rely_on((plain(size) - given, given - plain(size)), reason)
    return np.nonzero(mask)


def masked_fill(x: Tensor, mask: Tensor, value: Any) -> Tensor:
    """``value`` (a number, in the dtype of ``x``) where the mask is true, else ``x``; the two broadcast together.

    PyTorch: torch.masked_fill.
    """
    from frontend.tensor import as_tensor

    x = as_tensor(x)
    if not is_mask(mask):
        raise DTypeError(f"masked_fill takes a mask of bool, not of {as_tensor(mask).dtype}")
    return call("where", mask, as_tensor(value, x.dtype), x)


def masked_select(x: Tensor, mask: Tensor) -> Tensor:
    """The elements at which the mask is true, in row-major order; the two broadcast together. The mask must be known
    while tracing: it decides the shape. Raises UnsupportedError otherwise.

    PyTorch: torch.masked_select. Differs: in a traced function the mask is a constant.
    """
    from frontend.tensor import as_tensor

    chosen = known_mask(mask, "masked_select")
    x = as_tensor(x)
    shape = plain_shape(x.shape)
    if all(isinstance(n, int) for n in shape):
        both = np.broadcast_shapes(shape, chosen.shape)
        return x.broadcast_to(both).reshape(-1)[np.broadcast_to(chosen, both).reshape(-1)]
    if chosen.ndim != x.ndim:
        raise ShapeError(f"masked_select: a mask {chosen.shape} for a tensor of shape {shape_text(shape)}")
    return x[chosen]


def masked_scatter(x: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """``x`` with the elements of ``source``, in row-major order, in place of those at which the mask is true. Raises
    IndexRangeError where ``source`` has too few.

    PyTorch: torch.masked_scatter.
    """
    from frontend.running import cumsum
    from frontend.tensor import as_tensor

    x, source = as_tensor(x), as_tensor(source).reshape(-1)
    wide = call("broadcast_to", as_tensor(mask), shape=plain_shape(x.shape)).reshape(-1)
    number = call("where", wide, cumsum(wide.long(), 0), 0)  # of those chosen so far; 0 for what stays
    number = call("check_index", number, limit=plain(source.numel()) + 1)
    found = call("gather", call("pad", source, low=(1,), high=(0,), step=(1,)), number, axis=0)
    return call("where", wide, found.to(x.dtype), x.reshape(-1)).reshape(x.shape)


def nonzero(x: Tensor, *, as_tuple: bool = False) -> Any:
    """Where elements are not 0: (count, axes), or with ``as_tuple`` a vector of indices for each axis. Outside of
    traces, and of constants. Raises UnsupportedError.

    PyTorch: torch.nonzero.
    """
    from frontend.tensor import Tensor, as_tensor

    found = np.nonzero(known_mask(call("ne", as_tensor(x), 0), "nonzero"))
    return tuple(map(Tensor, found)) if as_tuple else Tensor(np.stack(found, axis=-1))


def argwhere(x: Tensor) -> Tensor:
    """As :func:`nonzero`.

    PyTorch: torch.argwhere.
    """
    return nonzero(x)
