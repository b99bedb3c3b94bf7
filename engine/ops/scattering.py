"""Writing where an index tensor says: the counterpart of gather."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine import dims, dtypes
from engine.errors import DTypeError, ShapeError, TenonError
from engine.graph import Node, TensorType, Value, apply, constant
from engine.op import REQUIRED, Op, register
from engine.ops.indexing import need_axis
from engine.rules import full, need_equal, need_integer, sum_to

MODES = {
    "set": None,
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}
"""What is done with the element that is there, and the one that comes."""


def _rule(x: TensorType, index: TensorType, src: TensorType, axis: int, mode: str) -> TensorType:
    need_integer("scatter", index)
    need_axis("scatter", x, axis)
    if mode not in MODES:
        raise TenonError(f"scatter: the mode must be one of {', '.join(MODES)}, not {mode!r}")
    if src.dtype != x.dtype:
        raise DTypeError(f"scatter puts elements of one dtype together, not {src.dtype} into {x.dtype}")
    if x.dtype == dtypes.bool_ and mode != "set":
        raise DTypeError(f"scatter with mode {mode!r} takes numbers, not bool")
    if not x.rank == index.rank == src.rank:
        shapes = ", ".join(dims.shape_text(t.shape) for t in (x, index, src))
        raise ShapeError(f"scatter: tensor, index and source must have as many axes each, not shapes {shapes}")
    for i, (a, b) in enumerate(zip(x.shape, dims.broadcast(index.shape, src.shape), strict=True)):
        if i != axis and a != 1:
            need_equal(a, b, f"scatter: axis {i} of {dims.shape_text(x.shape)} meets a source of size {b}")
    return x


def _reference(x: np.ndarray, index: np.ndarray, src: np.ndarray, axis: int, mode: str) -> np.ndarray:
    space = np.broadcast_shapes(index.shape, src.shape)
    at = []
    own: np.ndarray
    for i, own in enumerate(np.indices(space, sparse=True)):
        places = index.astype(np.int64) if i == axis else own * (x.shape[i] != 1)
        at.append(np.broadcast_to(places, space))
    wide = x.astype(np.float32) if x.dtype.itemsize == 2 else x.copy()
    if not np.prod(space, dtype=np.int64):
        return wide
    combine = MODES[mode]
    if combine is None:
        flat = np.ravel_multi_index(tuple(at), x.shape).ravel()
        last = len(flat) - 1 - np.unique(flat[::-1], return_index=True)[1]  # the last in order stays
        wide.reshape(-1)[flat[last]] = np.broadcast_to(src, space).ravel()[last]
    else:
        combine.at(wide, tuple(at), np.broadcast_to(src, space).astype(wide.dtype))
    return wide


def _gradient(node: Node, g: Value) -> list[Value | None]:
    x, index, src = node.inputs
    axis, mode = node.attrs["axis"], node.attrs["mode"]
    if not x.dtype.is_float:
        return [None, None, None]
    space = dims.broadcast(index.shape, src.shape)

    def there(value: Value) -> Value:
        """``value``, which is shaped as ``x``, at each point of the source."""
        found = apply("gather", value, index, axis=axis)
        return found if found.shape == space else apply("broadcast_to", found, shape=space)

    def spread(value: Value, source: Value, how: str) -> Value:
        return apply("scatter", value, index, source, axis=axis, mode=how)

    zeros = full(x.shape, 0, x.dtype)
    if mode == "add":
        return [g, None, sum_to(there(g), src.shape)]
    if mode == "set":
        kept = spread(g, full(space, 0, g.dtype), "set")
        return [kept, None, sum_to(there(g), src.shape)]
    if mode == "mul":
        return [g * spread(full(x.shape, 1, x.dtype), src, "mul"), None, _product(g, node, there, spread)]
    # Of several extrema each has its share.
    best = node.output
    own = apply("cast", apply("eq", x, best), dtype=x.dtype)
    theirs = apply("cast", apply("eq", src, there(best)), dtype=x.dtype)
    share = g / (own + spread(zeros, theirs, "add"))
    return [share * own, None, sum_to(there(share) * theirs, src.shape)]


def _product(g: Value, node: Node, there: Callable[..., Value], spread: Callable[..., Value]) -> Value:
    """The product of all others that fall on the same place: by division, except at a single zero."""
    x, _, src = node.inputs
    zero, one = apply("eq", src, 0), constant(1, x.dtype)
    count = spread(full(x.shape, 0, x.dtype), apply("cast", zero, dtype=x.dtype), "add")
    safe = apply("where", zero, one, src)
    others = spread(x, safe, "mul")
    zeros = spread(full(x.shape, 1, x.dtype), apply("where", zero, src, one), "mul")
    at_zero = apply("where", apply("eq", there(count), 1), there(g * others), constant(0, x.dtype))
    return sum_to(apply("where", zero, at_zero, there(g * others * zeros) / safe), src.shape)


register(
    Op(
        "scatter",
        "move",
        ("x", "index", "src"),
        _rule,
        _reference,
        _gradient,
        attrs={"axis": REQUIRED, "mode": REQUIRED},
        doc="``x`` with the elements of ``src`` set, added, multiplied in, or kept where greater or less, at "
        "``out[..., index[s], ...]``, in row-major order of ``s``. Index and source broadcast together; along axes "
        "where ``x`` has size 1 all fall on its one element.",
    )
)
