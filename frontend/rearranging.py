"""Functions that take tensors apart, repeat them, turn them round, and keep their triangles and diagonals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from engine import dtypes
from engine.dims import broadcast, shape_text
from engine.errors import ShapeError
from engine.rules import normal_axis
from frontend import gathering, shaping
from frontend.dispatch import call
from frontend.sizes import SizeLike, plain_shape, sizes_of

if TYPE_CHECKING:
    from frontend.tensor import Tensor


def _known(x: Tensor, axis: int, op: str) -> int:
    size = x.shape[axis]
    if not isinstance(size, int):
        raise ShapeError(f"{op} needs an axis of known size, and axis {axis} is {size}")
    return size


def narrow(x: Tensor, dim: int, start: int, length: SizeLike) -> Tensor:
    """``length`` elements along ``dim``, from ``start``.

    PyTorch: torch.narrow.
    """
    axis = normal_axis(dim, x.ndim, "narrow")
    return x[(*(slice(None),) * axis, slice(start, start + length))]


def select(x: Tensor, dim: int, index: int) -> Tensor:
    """Element ``index`` along ``dim``, which goes.

    PyTorch: torch.select.
    """
    axis = normal_axis(dim, x.ndim, "select")
    return x[(*(slice(None),) * axis, index)]


def split(x: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Parts of so many elements along ``dim`` (the last may be smaller), or of each of the given sizes.

    PyTorch: torch.split.
    """
    axis = normal_axis(dim, x.ndim, "split")
    size = _known(x, axis, "split")
    if isinstance(split_size_or_sections, int):
        each = split_size_or_sections
        if each < 1:
            raise ShapeError(f"split: parts have at least one element, not {each}")
        sections = [min(each, size - i) for i in range(0, size, each)] or [0]
    else:
        sections = list(split_size_or_sections)
        if sum(sections) != size or min(sections, default=0) < 0:
            raise ShapeError(f"split: parts of {sections} elements do not add up to the {size} of axis {dim}")
    starts = [sum(sections[:i]) for i in range(len(sections))]
    return tuple(narrow(x, axis, start, n) for start, n in zip(starts, sections, strict=True))


def chunk(x: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most ``chunks`` parts along ``dim``, equal but for the last.

    PyTorch: torch.chunk.
    """
    if chunks < 1:
        raise ShapeError(f"chunk: at least one part was expected, not {chunks}")
    axis = normal_axis(dim, x.ndim, "chunk")
    return split(x, max(1, -(-_known(x, axis, "chunk") // chunks)), axis)


def tensor_split(x: Tensor, indices_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """So many parts along ``dim``, of sizes that differ by one at most; or parts that begin at the given indices.

    PyTorch: torch.tensor_split.
    """
    axis = normal_axis(dim, x.ndim, "tensor_split")
    size = _known(x, axis, "tensor_split")
    if isinstance(indices_or_sections, int):
        each, more = divmod(size, indices_or_sections)
        return split(x, [each + (i < more) for i in range(indices_or_sections)], axis)
    cuts = [0, *(min(max(i + size if i < 0 else i, 0), size) for i in indices_or_sections), size]
    return tuple(narrow(x, axis, a, max(0, b - a)) for a, b in zip(cuts, cuts[1:], strict=False))


def unbind(x: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The parts along ``dim``, which goes.

    PyTorch: torch.unbind.
    """
    axis = normal_axis(dim, x.ndim, "unbind")
    return tuple(select(x, axis, i) for i in range(_known(x, axis, "unbind")))


# --- repeating -------------------------------------------------------------------------------------------------------


def repeat(x: Tensor, *repeats: Any) -> Tensor:
    """``x`` so many times along each axis; more numbers than axes add leading ones.

    PyTorch: torch.Tensor.repeat.
    """
    counts = sizes_of(repeats)
    extra = len(counts) - x.ndim
    if extra < 0:
        raise ShapeError(f"repeat: {len(counts)} numbers are too few for the {x.ndim} axes of {tuple(x.shape)}")
    own = (1,) * extra + plain_shape(x.shape)
    apart = tuple(n for count, size in zip(counts, own, strict=True) for n in (1, size))
    wide = tuple(n for count, size in zip(counts, own, strict=True) for n in (count, size))
    whole = tuple(count * size for count, size in zip(counts, own, strict=True))
    return call("reshape", call("broadcast_to", call("reshape", x, shape=apart), shape=wide), shape=whole)


def tile(x: Tensor, dims: Sequence[int]) -> Tensor:
    """As :func:`repeat`; fewer numbers than axes leave the leading ones as they are.

    PyTorch: torch.tile.
    """
    return repeat(x, *(1,) * (x.ndim - len(dims)), *dims)


def repeat_interleave(x: Tensor, repeats: int | Sequence[int], dim: int | None = None) -> Tensor:
    """Each element ``repeats`` times, one after the other, along ``dim`` (or of the flattened tensor); or the first as
    often as the first of several numbers says, and so on.

    PyTorch: torch.repeat_interleave. Differs: ``repeats`` is known while tracing.
    """
    from frontend.tensor import as_tensor

    if dim is None:
        return repeat_interleave(shaping.flatten(x), repeats, 0)
    axis = normal_axis(dim, x.ndim, "repeat_interleave")
    if not isinstance(repeats, int):
        counts, size = np.asarray(repeats).reshape(-1), _known(x, axis, "repeat_interleave")
        if counts.size == size:
            return gathering.index_select(x, axis, as_tensor(np.repeat(np.arange(size), counts)))
        if counts.size != 1:
            raise ShapeError(f"repeat_interleave: {counts.size} numbers do not fit the {size} elements of axis {dim}")
        repeats = int(counts[0])
    shape = plain_shape(x.shape)
    wide = (*shape[: axis + 1], repeats, *shape[axis + 1 :])
    spread = call("broadcast_to", shaping.unsqueeze(x, axis + 1), shape=wide)
    return call("reshape", spread, shape=(*shape[:axis], shape[axis] * repeats, *shape[axis + 1 :]))


# --- turning round ---------------------------------------------------------------------------------------------------


def flip(x: Tensor, *dims: Any) -> Tensor:
    """The elements along ``dims`` in reverse.

    PyTorch: torch.flip.
    """
    given = dims[0] if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else dims
    axes = {normal_axis(d, x.ndim, "flip") for d in given}
    return x[tuple(slice(None, None, -1) if i in axes else slice(None) for i in range(x.ndim))] if axes else x


def fliplr(x: Tensor) -> Tensor:
    """The second axis in reverse.

    PyTorch: torch.fliplr.
    """
    return flip(x, 1)


def flipud(x: Tensor) -> Tensor:
    """The first axis in reverse.

    PyTorch: torch.flipud.
    """
    return flip(x, 0)


def rot90(x: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Turned by ``k`` quarters from the first of ``dims`` towards the second.

    PyTorch: torch.rot90.
    """
    a, b = (normal_axis(d, x.ndim, "rot90") for d in dims)
    if k % 4 == 2:
        return flip(x, a, b)
    if k % 4 == 1:
        return shaping.transpose(flip(x, b), a, b)
    return flip(shaping.transpose(x, a, b), b) if k % 4 == 3 else x


def roll(x: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """The elements moved on by ``shifts`` along ``dims`` (or in the flattened tensor); what falls out comes in again.

    PyTorch: torch.roll.
    """
    if dims is None:
        return roll(shaping.flatten(x), shifts, 0).reshape(x.shape)
    moves = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    axes = (dims,) if isinstance(dims, int) else tuple(dims)
    if len(moves) != len(axes):
        raise ShapeError(f"roll: {len(moves)} shifts do not fit {len(axes)} axes")
    for move, dim in zip(moves, axes, strict=True):
        axis = normal_axis(dim, x.ndim, "roll")
        size = _known(x, axis, "roll")
        cut = -move % size if size else 0
        if cut:
            x = shaping.concat([narrow(x, axis, cut, size - cut), narrow(x, axis, 0, cut)], axis)
    return x


def movedim(x: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Axes ``source`` moved to ``destination``; the others keep their order.

    PyTorch: torch.movedim.
    """
    sources = (source,) if isinstance(source, int) else tuple(source)
    targets = (destination,) if isinstance(destination, int) else tuple(destination)
    if len(sources) != len(targets):
        raise ShapeError(f"movedim: {len(sources)} axes cannot go to {len(targets)} places")
    placed = {
        normal_axis(d, x.ndim, "movedim"): normal_axis(s, x.ndim, "movedim")
        for s, d in zip(sources, targets, strict=True)
    }
    rest = iter(i for i in range(x.ndim) if i not in placed.values())
    return shaping.permute(x, [placed[i] if i in placed else next(rest) for i in range(x.ndim)])


def swapaxes(x: Tensor, axis0: int, axis1: int) -> Tensor:
    """Two axes swapped.

    PyTorch: torch.swapaxes.
    """
    return shaping.transpose(x, axis0, axis1)


def diff(x: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None) -> Tensor:
    """Each element less the one before it along ``dim``, ``n`` times; ``prepend`` and ``append`` are joined on first.

    PyTorch: torch.diff.
    """
    axis = normal_axis(dim, x.ndim, "diff")
    parts = [part for part in (prepend, x, append) if part is not None]
    x = shaping.concat(parts, axis) if len(parts) > 1 else x
    for _ in range(n):
        rest = x.shape[axis] - 1
        later, earlier = narrow(x, axis, 1, rest), narrow(x, axis, 0, rest)
        x = call("ne", later, earlier) if x.dtype.kind == "b" else later - earlier
    return x


# --- triangles and diagonals -----------------------------------------------------------------------------------------


def _offsets(x: Tensor, op: str) -> Tensor:
    """The column number less the row number at each element of the last two axes."""
    if x.ndim < 2:
        raise ShapeError(f"{op} takes a tensor of at least 2 axes, not shape {shape_text(plain_shape(x.shape))}")
    shape = plain_shape(x.shape[-2:])
    return call("iota", shape=shape, axis=1) - call("iota", shape=shape, axis=0)


def _zero(x: Tensor) -> int:
    """Zero, of a kind that leaves ``x`` beside it its dtype."""
    return False if x.dtype == dtypes.bool_ else 0


def tril(x: Tensor, diagonal: int = 0) -> Tensor:
    """What lies on and under a diagonal of the last two axes; zeros elsewhere.

    PyTorch: torch.tril.
    """
    return call("where", _offsets(x, "tril") <= diagonal, x, _zero(x))


def triu(x: Tensor, diagonal: int = 0) -> Tensor:
    """What lies on and above a diagonal of the last two axes; zeros elsewhere.

    PyTorch: torch.triu.
    """
    return call("where", _offsets(x, "triu") >= diagonal, x, _zero(x))


def diagonal(x: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A diagonal of two axes, as a new last axis.

    PyTorch: torch.diagonal.
    """
    a, b = normal_axis(dim1, x.ndim, "diagonal"), normal_axis(dim2, x.ndim, "diagonal")
    if a == b:
        raise ShapeError(f"diagonal: {dim1} and {dim2} are one axis")
    x = movedim(x, (a, b), (-2, -1))
    rows, columns = _known(x, x.ndim - 2, "diagonal"), _known(x, x.ndim - 1, "diagonal")
    down, right = max(0, -offset), max(0, offset)
    length = max(0, min(rows - down, columns - right))
    if not length:
        return x[..., 0, :0]
    # In row-major order the elements of a diagonal lie columns + 1 apart.
    flat = call("reshape", x, shape=(*plain_shape(x.shape[:-2]), rows * columns))
    first = down * columns + right
    return flat[..., first : first + (length - 1) * (columns + 1) + 1 : columns + 1]


def diag_embed(x: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices with the last axis of ``x`` on a diagonal, and zeros elsewhere.

    PyTorch: torch.diag_embed.
    """
    length = x.shape[-1]
    size = length + abs(offset)
    low, high = max(0, -offset), max(0, offset)
    rows = call("iota", shape=plain_shape((size, length)), axis=0)
    places = call("iota", shape=plain_shape((size, length)), axis=1)
    square = call("where", rows == places + low, shaping.unsqueeze(x, -2), 0)
    none = (0,) * (x.ndim - 1)
    side = {"low": (*none, 0, high), "high": (*none, 0, low)}
    # Element i stands in row i + low; its column is i + high.
    wide = call("pad", square, **side, step=(1,) * square.ndim)
    return movedim(wide, (-2, -1), (dim1, dim2))


def diag(x: Tensor, diagonal: int = 0) -> Tensor:
    """The diagonal of a matrix, or a matrix with a vector on its diagonal.

    PyTorch: torch.diag.
    """
    if x.ndim == 1:
        return diag_embed(x, diagonal)
    if x.ndim != 2:
        raise ShapeError(f"diag takes a vector or a matrix, not shape {shape_text(plain_shape(x.shape))}")
    return _diagonal(x, diagonal)


_diagonal = diagonal


def diagflat(x: Tensor, offset: int = 0) -> Tensor:
    """A matrix with all elements of ``x`` on a diagonal, and zeros elsewhere.

    PyTorch: torch.diagflat.
    """
    return diag_embed(ravel(x), offset)


def trace(x: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix.

    PyTorch: torch.trace.
    """
    return diag(x).sum()


# --- joining and making more of --------------------------------------------------------------------------------------


def ravel(x: Tensor) -> Tensor:
    """All elements along one axis.

    PyTorch: torch.ravel.
    """
    return shaping.reshape(x, (-1,))


def broadcast_to(x: Tensor, shape: Sequence[SizeLike]) -> Tensor:
    """``x`` repeated along new axes and axes of size 1.

    PyTorch: torch.broadcast_to.
    """
    return shaping.expand(x, *shape)


def atleast_1d(x: Tensor) -> Tensor:
    """With at least one axis.

    PyTorch: torch.atleast_1d.
    """
    return x if x.ndim else shaping.reshape(x, (1,))


def atleast_2d(x: Tensor) -> Tensor:
    """With at least two axes; new ones come first.

    PyTorch: torch.atleast_2d.
    """
    return x if x.ndim >= 2 else shaping.unsqueeze(atleast_1d(x), 0)


def atleast_3d(x: Tensor) -> Tensor:
    """With at least three axes; a matrix gets its new one last.

    PyTorch: torch.atleast_3d.
    """
    return x if x.ndim >= 3 else shaping.unsqueeze(atleast_2d(x), -1)


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along the second axis, vectors along their only one.

    PyTorch: torch.hstack.
    """
    parts = [atleast_1d(x) for x in tensors]
    return shaping.concat(parts, 0 if parts and parts[0].ndim == 1 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along the first axis, vectors as rows.

    PyTorch: torch.vstack.
    """
    return shaping.concat([atleast_2d(x) for x in tensors], 0)


def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along the third axis.

    PyTorch: torch.dstack.
    """
    return shaping.concat([atleast_3d(x) for x in tensors], 2)


def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along the second axis, vectors as columns.

    PyTorch: torch.column_stack.
    """
    return hstack([x if x.ndim > 1 else shaping.reshape(x, (-1, 1)) for x in tensors])


def hsplit(x: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """Parts along the second axis, of a vector along its only one.

    PyTorch: torch.hsplit.
    """
    return _equal_parts("hsplit", x, indices_or_sections, 0 if x.ndim == 1 else 1)


def vsplit(x: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """Parts along the first axis.

    PyTorch: torch.vsplit.
    """
    return _equal_parts("vsplit", x, indices_or_sections, 0)


def dsplit(x: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """Parts along the third axis.

    PyTorch: torch.dsplit.
    """
    return _equal_parts("dsplit", x, indices_or_sections, 2)


def _equal_parts(op: str, x: Tensor, parts: int | Sequence[int], dim: int) -> tuple[Tensor, ...]:
    size = _known(x, normal_axis(dim, x.ndim, op), op)
    if isinstance(parts, int) and (parts < 1 or size % parts):
        raise ShapeError(f"{op}: {size} elements do not split into {parts} equal parts; see tensor_split")
    return tensor_split(x, parts, dim)


def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors repeated along axes until all have one shape.

    PyTorch: torch.broadcast_tensors.
    """
    shape = broadcast(*(plain_shape(x.shape) for x in tensors))
    return tuple(call("broadcast_to", x, shape=shape) for x in tensors)


def block_diag(*tensors: Tensor) -> Tensor:
    """A matrix with matrices (or vectors, as rows) along its diagonal, and zeros elsewhere.

    PyTorch: torch.block_diag.
    """
    blocks = [atleast_2d(x) for x in tensors]
    width = sum(_known(x, 1, "block_diag") for x in blocks)
    rows, left = [], 0
    for x in blocks:
        own = _known(x, 1, "block_diag")
        rows.append(call("pad", x, low=(0, left), high=(0, width - left - own), step=(1, 1), value=0))
        left += own
    return shaping.concat(rows, 0)


def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All combinations of the elements of vectors, one a row.

    PyTorch: torch.cartesian_prod.
    """
    if len(tensors) == 1:
        return tensors[0]
    return shaping.stack([ravel(g) for g in meshgrid(*tensors)], 1)


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Vectors as grids of coordinates, one axis each; with ``indexing="xy"`` the first two axes are swapped.

    PyTorch: torch.meshgrid.
    """
    vectors = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    if indexing not in ("ij", "xy"):
        raise ShapeError(f'meshgrid: indexing must be "ij" or "xy", not {indexing!r}')
    shape = tuple(v.shape[0] for v in vectors)
    grids = [
        shaping.expand(shaping.reshape(v, tuple(-1 if j == i else 1 for j in range(len(vectors)))), *shape)
        for i, v in enumerate(vectors)
    ]
    swap = indexing == "xy" and len(grids) > 1
    return tuple(shaping.transpose(g, 0, 1) if swap else g for g in grids)


def unfold(x: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows of ``size`` elements along an axis, ``step`` apart, as a new last axis.

    PyTorch: torch.Tensor.unfold.
    """
    return call("window", x, axis=normal_axis(dimension, x.ndim, "unfold"), size=size, step=step)
