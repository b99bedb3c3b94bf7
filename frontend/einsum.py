"""Products and sums over named axes, as transpositions and matrix products; products of vectors and matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.dims import Size, broadcast, product, shape_text
from engine.errors import ShapeError, TenonError
from engine.rules import normal_axis
from frontend import shaping
from frontend.dispatch import call
from frontend.rearranging import diagonal, unbind
from frontend.sizes import plain_shape

if TYPE_CHECKING:
    from frontend.tensor import Tensor

Names = tuple[str, ...]
"""One name an axis. Those of an ellipsis are numbers, counted from the last."""


def einsum(equation: str, *operands: Any) -> Tensor:
    """The sum over all axes that the output does not name of the product of the operands: ``"bij,bjk->bik"``.

    Axes of one name are the same; ``...`` stands for all axes without one, which broadcast. Without ``->`` the output
    has the names that occur once, in alphabetical order. Operands are multiplied pair by pair, the pair with the
    smallest result first. Raises TenonError for an equation that does not fit.

    PyTorch: torch.einsum.
    """
    from frontend.tensor import as_tensor

    given = operands[0] if len(operands) == 1 and isinstance(operands[0], (tuple, list)) else operands
    tensors = [as_tensor(x) for x in given]
    inputs, output = _parsed(equation, [x.ndim for x in tensors])
    sizes: dict[str, Size] = {}
    parts: list[tuple[Names, Tensor]] = []
    for names, x in zip(inputs, tensors, strict=True):
        names, x = _without_repeats(names, x)
        for name, size in zip(names, plain_shape(x.shape), strict=True):
            if sizes.setdefault(name, size) == 1:
                sizes[name] = size
        parts.append((names, x))
    while len(parts) > 1:
        i, j = _cheapest(parts, output, sizes)
        right, left = parts.pop(j), parts.pop(i)
        kept = set(output).union(*(names for names, _ in parts))
        parts.append(_multiplied(left, right, kept))
    names, x = _summed(parts[0][0], parts[0][1], set(output))
    return shaping.permute(x, [names.index(n) for n in output]) if names != output else x


def _parsed(equation: str, ranks: Sequence[int]) -> tuple[list[Names], Names]:
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise TenonError(f"einsum: {equation!r} names {len(terms)} operands, and got {len(ranks)}")
    inputs = [_names(term, rank, equation) for term, rank in zip(terms, ranks, strict=True)]
    every = [n for names in inputs for n in names]
    spread = sorted({n for n in every if n.isdigit()}, key=int, reverse=True)
    if not arrow:
        return inputs, (*spread, *sorted(n for n in set(every) if every.count(n) == 1 and not n.isdigit()))
    output: list[str] = []
    for name in right.replace("...", "."):
        output += spread if name == "." else [name]
    unknown = set(output) - set(every)
    if unknown or len(set(output)) < len(output):
        raise TenonError(f"einsum: the output of {equation!r} must name axes of its operands, each once")
    return inputs, tuple(output)


def _names(term: str, rank: int, equation: str) -> Names:
    before, dots, after = term.partition("...")
    letters = before + after
    spread = rank - len(letters)
    if (letters and not letters.isalpha()) or spread < 0 or (spread and not dots):
        raise TenonError(f"einsum: {term!r} in {equation!r} does not name the axes of a tensor of {rank} axes")
    return (*before, *(str(i) for i in reversed(range(spread))), *after)


def _without_repeats(names: Names, x: Tensor) -> tuple[Names, Tensor]:
    """A name that occurs twice in one operand takes the diagonal of its axes."""
    for name in dict.fromkeys(names):
        while names.count(name) > 1:
            i = names.index(name)
            j = names.index(name, i + 1)
            x = diagonal(x, 0, i, j)
            names = (*(n for k, n in enumerate(names) if k not in (i, j)), name)
    return names, x


def _cheapest(parts: list[tuple[Names, Tensor]], output: Names, sizes: dict[str, Size]) -> tuple[int, int]:
    """The pair whose product has the fewest elements, a symbolic size counting as large."""

    def cost(i: int, j: int) -> int:
        rest = set(output).union(*(n for k, (n, _) in enumerate(parts) if k not in (i, j)))
        result = (set(parts[i][0]) | set(parts[j][0])) & rest
        return int(product(s if isinstance(s, int) else 1024 for n, s in sizes.items() if n in result))

    pairs = [(i, j) for i in range(len(parts)) for j in range(i + 1, len(parts))]
    return min(pairs, key=lambda p: cost(*p))


def _summed(names: Names, x: Tensor, kept: set[str]) -> tuple[Names, Tensor]:
    gone = tuple(i for i, n in enumerate(names) if n not in kept)
    return (tuple(n for n in names if n in kept), call("sum", x, axes=gone)) if gone else (names, x)


def _multiplied(left: tuple[Names, Tensor], right: tuple[Names, Tensor], kept: set[str]) -> tuple[Names, Tensor]:
    """The product of two operands, summed over what nobody else needs: one matrix product."""
    (a_names, a), (b_names, b) = left, right
    a_names, a = _summed(a_names, a, kept | set(b_names))
    b_names, b = _summed(b_names, b, kept | set(a_names))
    shared = [n for n in a_names if n in b_names]
    inner = [n for n in shared if n not in kept]
    batch = [n for n in shared if n in kept]
    a_only, b_only = [n for n in a_names if n not in shared], [n for n in b_names if n not in shared]
    sizes = dict(zip(a_names, plain_shape(a.shape), strict=True))
    for n, own in zip(b_names, plain_shape(b.shape), strict=True):
        if sizes.setdefault(n, own) == 1:
            sizes[n] = own
    a, b = (
        _arranged(a, a_names, [*batch, *a_only, *inner], sizes),
        _arranged(b, b_names, [*batch, *inner, *b_only], sizes),
    )

    def size(names: list[str]) -> Size:
        return product(sizes[n] for n in names)

    lead = tuple(sizes[n] for n in batch)
    rows = call("reshape", a, shape=(*lead, size(a_only), size(inner)))
    columns = call("reshape", b, shape=(*lead, size(inner), size(b_only)))
    found = call("matmul", rows, columns) if inner else rows * columns
    names = (*batch, *a_only, *b_only)
    return names, call("reshape", found, shape=tuple(sizes[n] for n in names))


def _arranged(x: Tensor, names: Names, order: list[str], sizes: dict[str, Size]) -> Tensor:
    turned = shaping.permute(x, [names.index(n) for n in order])
    return call("broadcast_to", turned, shape=tuple(sizes[n] for n in order))


# --- products by name ------------------------------------------------------------------------------------------------


def tensordot(a: Tensor, b: Tensor, dims: int | Sequence[Sequence[int]] = 2) -> Tensor:
    """The sum of products over the last axes of ``a`` and the first of ``b``, or over the axes given for each.

    PyTorch: torch.tensordot.
    """
    if isinstance(dims, int):
        dims = (range(a.ndim - dims, a.ndim), range(dims))
    ours, theirs = ([normal_axis(d, x.ndim, "tensordot") for d in axes] for x, axes in zip((a, b), dims, strict=True))
    if len(ours) != len(theirs):
        raise ShapeError(f"tensordot: {len(ours)} axes do not pair with {len(theirs)}")
    first = [chr(97 + i) for i in range(a.ndim)]
    second = [first[ours[theirs.index(j)]] if j in theirs else chr(65 + j) for j in range(b.ndim)]
    kept = [n for i, n in enumerate(first) if i not in ours] + [n for j, n in enumerate(second) if j not in theirs]
    return einsum(f"{''.join(first)},{''.join(second)}->{''.join(kept)}", a, b)


def _ranks(op: str, tensors: Sequence[Tensor], ranks: Sequence[int]) -> None:
    if any(x.ndim != rank for x, rank in zip(tensors, ranks, strict=True)):
        shapes = " and ".join(shape_text(plain_shape(x.shape)) for x in tensors)
        raise ShapeError(f"{op} takes tensors of {' and '.join(map(str, ranks))} axes, not shapes {shapes}")


def mm(a: Tensor, b: Tensor) -> Tensor:
    """The product of two matrices.

    PyTorch: torch.mm.
    """
    _ranks("mm", (a, b), (2, 2))
    return shaping.matmul(a, b)


def bmm(a: Tensor, b: Tensor) -> Tensor:
    """The products of two batches of matrices.

    PyTorch: torch.bmm.
    """
    _ranks("bmm", (a, b), (3, 3))
    return shaping.matmul(a, b)


def mv(a: Tensor, b: Tensor) -> Tensor:
    """The product of a matrix and a vector.

    PyTorch: torch.mv.
    """
    _ranks("mv", (a, b), (2, 1))
    return shaping.matmul(a, b)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The sum of the products of two vectors.

    PyTorch: torch.dot.
    """
    _ranks("dot", (a, b), (1, 1))
    return shaping.matmul(a, b)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """The sum of products over the last axes of both; a number multiplies.

    PyTorch: torch.inner.
    """
    return a * b if a.ndim == 0 or b.ndim == 0 else tensordot(a, b, ((-1,), (-1,)))


def outer(a: Tensor, b: Tensor) -> Tensor:
    """All products of the elements of two vectors.

    PyTorch: torch.outer.
    """
    _ranks("outer", (a, b), (1, 1))
    return shaping.unsqueeze(a, 1) * shaping.unsqueeze(b, 0)


def kron(a: Tensor, b: Tensor) -> Tensor:
    """Kronecker's product: ``b`` times each element of ``a``, side by side.

    PyTorch: torch.kron.
    """
    rank = max(a.ndim, b.ndim)
    first, second = ((1,) * (rank - x.ndim) + plain_shape(x.shape) for x in (a, b))
    apart = [call("reshape", a, shape=tuple(n for s in first for n in (s, 1)))]
    apart.append(call("reshape", b, shape=tuple(n for s in second for n in (1, s))))
    return call("reshape", apart[0] * apart[1], shape=tuple(m * n for m, n in zip(first, second, strict=True)))


def cross(a: Tensor, b: Tensor, dim: int | None = None) -> Tensor:
    """The vector product along an axis of size 3, by default the first one that has it.

    PyTorch: torch.cross.
    """
    shape = broadcast(plain_shape(a.shape), plain_shape(b.shape))
    axis = normal_axis(dim, len(shape), "cross") if dim is not None else shape.index(3) if 3 in shape else 0
    if not shape or shape[axis] != 3:
        raise ShapeError(f"cross: a vector product needs an axis of size 3, and the shape is {shape_text(shape)}")
    (ax, ay, az), (bx, by, bz) = (unbind(call("broadcast_to", v, shape=shape), axis) for v in (a, b))
    return shaping.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis)


def addmv(input: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``beta * input + alpha * (a @ b)`` for a matrix and a vector.

    PyTorch: torch.addmv.
    """
    return _scaled(mv(a, b), alpha) + _scaled(input, beta)


def addr(input: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``beta * input + alpha * outer(a, b)``.

    PyTorch: torch.addr.
    """
    return _scaled(outer(a, b), alpha) + _scaled(input, beta)


def addbmm(input: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``beta * input + alpha *`` the sum of a batch of matrix products.

    PyTorch: torch.addbmm.
    """
    return _scaled(call("sum", bmm(a, b), axes=(0,)), alpha) + _scaled(input, beta)


def addmm(input: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``beta * input + alpha * (a @ b)``.

    PyTorch: torch.addmm.
    """
    return _scaled(mm(a, b), alpha) + _scaled(input, beta)


def baddbmm(input: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``beta * input + alpha * (a @ b)`` for batches of matrices.

    PyTorch: torch.baddbmm.
    """
    return _scaled(bmm(a, b), alpha) + _scaled(input, beta)


def _scaled(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else x * factor
