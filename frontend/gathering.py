"""Reading and writing elements where index tensors say, with PyTorch's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.dims import shape_text
from engine.errors import DTypeError, ShapeError, TenonError
from engine.rules import normal_axis
from frontend.dispatch import call
from frontend.sizes import as_size, plain, plain_shape

if TYPE_CHECKING:
    from frontend.tensor import Tensor


def checked_index(index: Any, size: Any, op: str, wrap: bool = False) -> Tensor:
    """``index`` as i64, known to lie in ``0 .. size-1`` in every call; with ``wrap`` negative ones count from the end.
    Raises DTypeError for what is no integer tensor."""
    from frontend.tensor import as_tensor

    found = as_tensor(index)
    if not found.dtype.is_integer:
        raise DTypeError(f"{op} takes integer indices, not {found.dtype}")
    found = found.long()
    if wrap:
        found = call("where", found < 0, found + size, found)
    return call("check_index", found, limit=plain(size))


def _aligned(op: str, x: Tensor, index: Tensor, axis: int) -> Tensor:
    """``x`` cut to the sizes of ``index`` along the other axes."""
    if index.ndim != x.ndim:
        raise ShapeError(f"{op}: the index {tuple(index.shape)} must have as many axes as {tuple(x.shape)}")
    cut = tuple(
        slice(None) if i == axis or plain(a) == plain(b) else slice(0, b)
        for i, (a, b) in enumerate(zip(x.shape, index.shape, strict=True))
    )
    return x[cut] if any(c != slice(None) for c in cut) else x


def gather(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """``out[i][j] = x[index[i][j]][j]`` for ``dim=0``: along ``dim`` the index says where. It may be smaller than ``x``
    along the other axes.

    PyTorch: torch.gather.
    """
    axis = normal_axis(dim, x.ndim, "gather")
    where = checked_index(index, x.shape[axis], "gather")
    return call("gather", _aligned("gather", x, where, axis), where, axis=axis)


def take_along_dim(x: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """As :func:`gather`, with broadcasting along the other axes, as np.take_along_axis; without ``dim`` both are
    flattened.

    PyTorch: torch.take_along_dim.
    """
    if dim is None:
        return take_along_dim(x.reshape(-1), indices.reshape(-1), 0)
    axis = normal_axis(dim, x.ndim, "take_along_dim")
    return call("gather", x, checked_index(indices, x.shape[axis], "take_along_dim"), axis=axis)


def index_select(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """The parts along ``dim`` that a vector of indices names.

    PyTorch: torch.index_select.
    """
    axis = normal_axis(dim, x.ndim, "index_select")
    where = checked_index(index, x.shape[axis], "index_select").reshape(-1)
    return call("gather", x, _along(where, axis, x.ndim), axis=axis)


def _along(vector: Tensor, axis: int, rank: int) -> Tensor:
    return vector.reshape(tuple(-1 if i == axis else 1 for i in range(rank)))


def take(x: Tensor, index: Tensor) -> Tensor:
    """The elements that ``index`` counts in row-major order; negative ones count from the end.

    PyTorch: torch.take.
    """
    where = checked_index(index, x.numel(), "take", wrap=True)
    return call("gather", x.reshape(-1), where.reshape(-1), axis=0).reshape(where.shape)


# --- writing -------------------------------------------------------------------------------------------------------

_REDUCTIONS = {"sum": "add", "add": "add", "prod": "mul", "multiply": "mul", "amax": "max", "amin": "min"}


def _scatter(op: str, x: Tensor, dim: int, index: Tensor, src: Any, mode: str) -> Tensor:
    from frontend.tensor import Tensor

    axis = normal_axis(dim, x.ndim, op)
    where = checked_index(index, x.shape[axis], op)
    if where.ndim != x.ndim:
        raise ShapeError(f"{op}: the index {tuple(where.shape)} must have as many axes as {tuple(x.shape)}")
    if any(i != axis and plain(a) != plain(b) for i, (a, b) in enumerate(zip(x.shape, where.shape, strict=True))):
        shapes = f"{shape_text(plain_shape(where.shape))} and {shape_text(plain_shape(x.shape))}"
        raise ShapeError(f"{op}: index and tensor must be equal along the axes other than {axis}, not {shapes}")
    if isinstance(src, Tensor):
        source = _cut(op, src, where)
    else:
        source = call("broadcast_to", _number(x, src), shape=plain_shape(where.shape))
    return call("scatter", x, where, source.to(x.dtype), axis=axis, mode=mode)


def _number(x: Tensor, value: Any) -> Tensor:
    from frontend.tensor import as_tensor

    return as_tensor(value, x.dtype)


def _cut(op: str, src: Tensor, index: Tensor) -> Tensor:
    if src.ndim != index.ndim:
        raise ShapeError(
            f"{op}: the source {tuple(src.shape)} must have as many axes as the index {tuple(index.shape)}"
        )
    return src[tuple(slice(0, n) for n in index.shape)]


def scatter(x: Tensor, dim: int, index: Tensor, src: Any, reduce: str | None = None) -> Tensor:
    """``x`` with ``out[index[i][j]][j] = src[i][j]`` for ``dim=0``; with ``reduce`` "add" or "multiply" instead of set.
    Of several that fall on one element the last in row-major order stays.

    PyTorch: torch.scatter. Differs: along the other axes the index is as large as the tensor.
    """
    if reduce is not None and reduce not in ("add", "multiply"):
        raise TenonError(f'scatter: reduce must be "add" or "multiply", not {reduce!r}; see also scatter_reduce')
    return _scatter("scatter", x, dim, index, src, "set" if reduce is None else _REDUCTIONS[reduce])


def scatter_add(x: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """``x`` with ``out[index[i][j]][j] += src[i][j]`` for ``dim=0``.

    PyTorch: torch.scatter_add. Differs: along the other axes the index is as large as the tensor.
    """
    return _scatter("scatter_add", x, dim, index, src, "add")


def scatter_reduce(x: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, include_self: bool = True) -> Tensor:
    """As :func:`scatter_add` with "sum", "prod", "mean", "amax" or "amin"; without ``include_self`` elements on which
    something falls do not count themselves.

    PyTorch: torch.scatter_reduce. Differs: along the other axes the index is as large as the tensor.
    """
    if reduce not in ("sum", "prod", "mean", "amax", "amin"):
        raise TenonError(f"scatter_reduce: reduce must be sum, prod, mean, amax or amin, not {reduce!r}")
    from frontend import creation

    start = x
    if not include_self:
        neutral = {"sum": 0, "mean": 0, "prod": 1, "amax": -float("inf"), "amin": float("inf")}[reduce]
        start = _scatter("scatter_reduce", x, dim, index, neutral, "set")
    if reduce != "mean":
        return _scatter("scatter_reduce", start, dim, index, src, _REDUCTIONS[reduce])
    total = _scatter("scatter_reduce", start, dim, index, src, "add")
    counted = creation.ones_like(x) if include_self else creation.zeros_like(x)
    count = _scatter("scatter_reduce", counted, dim, index, 1.0, "add")
    return total / call("maximum", count, 1.0)


def index_add(x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """``x`` with the parts of ``source`` along ``dim``, times ``alpha``, added to those that ``index`` names.

    PyTorch: torch.index_add.
    """
    return _by_vector("index_add", x, dim, index, source if alpha == 1 else source * alpha, "add")


def index_copy(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """``x`` with the parts of ``source`` along ``dim`` in the places that ``index`` names.

    PyTorch: torch.index_copy.
    """
    return _by_vector("index_copy", x, dim, index, source, "set")


def index_fill(x: Tensor, dim: int, index: Tensor, value: float) -> Tensor:
    """``x`` with ``value`` in the parts along ``dim`` that ``index`` names.

    PyTorch: torch.index_fill.
    """
    return _by_vector("index_fill", x, dim, index, value, "set")


def _by_vector(op: str, x: Tensor, dim: int, index: Tensor, source: Any, mode: str) -> Tensor:
    axis = normal_axis(dim, x.ndim, op)
    where = checked_index(index, x.shape[axis], op).reshape(-1)
    shape = tuple(plain(where.shape[0]) if i == axis else n for i, n in enumerate(plain_shape(x.shape)))
    values = _number(x, source) if isinstance(source, (int, float)) else source
    wide = call("broadcast_to", values, shape=shape).to(x.dtype)
    return call("scatter", x, _along(where, axis, x.ndim), wide, axis=axis, mode=mode)


def masked_fill(x: Tensor, mask: Tensor, value: Any) -> Tensor:
    """``value`` where the mask is true, else ``x``.

    PyTorch: torch.masked_fill.
    """
    return call("where", mask, value, x)


def index_put(x: Tensor, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Tensor:
    """``x`` with ``x[indices] = values``, or ``+=`` with ``accumulate``: one integer tensor for each leading axis.

    PyTorch: torch.index_put. Differs: masks are not taken; use where.
    """
    from frontend.tensor import as_tensor

    flat, where, rest = flattened(x, list(indices), "index_put")
    shape = (*plain_shape(where.shape), *rest)
    wide = call("broadcast_to", as_tensor(values, x.dtype), shape=shape)
    count = plain(where.numel())
    columns = call("reshape", wide, shape=(count, plain(flat.shape[1])))
    found = call("scatter", flat, where.reshape(-1, 1), columns, axis=0, mode="add" if accumulate else "set")
    return found.reshape(x.shape)


def flattened(x: Tensor, indices: list[Any], op: str) -> tuple[Tensor, Tensor, tuple[Any, ...]]:
    """``x`` as (rows, columns), a row for each combination of its leading axes, one for each index; the row that the
    indices name (broadcast together); and the sizes of the other axes."""
    shape = plain_shape(x.shape)
    if len(indices) > x.ndim:
        raise ShapeError(f"{op}: {len(indices)} indices are too many for shape {shape_text(shape)}")
    row: Any = None
    rows: Any = 1
    for size, index in zip(shape, indices, strict=False):
        where = checked_index(index, as_size(size), op, wrap=True)
        row = where if row is None else row * as_size(size) + where
        rows = rows * size
    rest = shape[len(indices) :]
    columns: Any = 1
    for size in rest:
        columns = columns * size
    return call("reshape", x, shape=(rows, columns)), row, rest
