"""Helpers with which type rules, gradients and decompositions are written."""

from __future__ import annotations

import numpy as np

from engine import dims, scalar
from engine.dims import Shape, Size
from engine.dtypes import DType
from engine.errors import DTypeError, ShapeError
from engine.graph import TensorType, Value, apply, constant


def build(expression: str, **values: Value) -> Value:
    """``expression`` over the scalar vocabulary as graph nodes."""
    known: dict[str, Value] = dict(values)
    for line in scalar.instructions(expression):
        args = [known[a] if isinstance(a, str) else a for a in line.args]
        if line.op == "identity":
            known[line.name] = args[0] if isinstance(args[0], Value) else constant(args[0])
        else:
            known[line.name] = apply(line.op, *args)
    return known[line.name]


def sum_to(value: Value, shape: Shape) -> Value:
    """``value`` summed over the axes along which ``shape`` was broadcast to it: the gradient of a broadcast."""
    if value.shape == shape:
        return value
    extra = len(value.shape) - len(shape)
    axes = tuple(range(extra)) + tuple(
        extra + i for i, size in enumerate(shape) if size == 1 and value.shape[extra + i] != 1
    )
    if axes:
        value = apply("sum", value, axes=axes)
    return value if value.shape == shape else apply("reshape", value, shape=shape)


def keep_axes(value: Value, axes: tuple[int, ...]) -> Value:
    """``value`` with size 1 put back at ``axes``, which a reduction removed."""
    shape = list(value.shape)
    for axis in sorted(axes):
        shape.insert(axis, 1)
    return apply("reshape", value, shape=tuple(shape))


def size_value(size: Size, dtype: DType) -> Value:
    """A size as a scalar of ``dtype``: a constant where it is known, else read from the dims at run time."""
    return constant(size, dtype) if isinstance(size, int) else apply("size", size=size, dtype=dtype)


def full(shape: Shape, value: object, dtype: DType) -> Value:
    """``value`` everywhere."""
    number = constant(value, dtype)
    return apply("broadcast_to", number, shape=shape) if shape else number


def transposed(x: Value) -> Value:
    """``x`` with its last two axes swapped."""
    rank = len(x.shape)
    return apply("permute", x, axes=(*range(rank - 2), rank - 1, rank - 2))


def widened(x: np.ndarray) -> np.ndarray:
    """16-bit floats as f32, in which references compute with them; other arrays as they are."""
    return x.astype(np.float32) if x.dtype.itemsize == 2 else x


def normal_axis(axis: int, rank: int, op: str) -> int:
    """``axis`` counted from the front. Raises ShapeError."""
    if not -rank <= axis < rank:
        raise ShapeError(f"{op}: axis {axis} does not exist in a tensor of {rank} axes")
    return axis % rank if rank else 0


def need_float(op: str, *types: TensorType) -> None:
    for t in types:
        if not t.dtype.is_float:
            raise DTypeError(f"{op} takes floating point tensors, not {t.dtype}")


def need_integer(op: str, type: TensorType) -> None:
    if not type.dtype.is_integer:
        raise DTypeError(f"{op} takes integer indices, not {type.dtype}")


def need_rank(op: str, what: str, type: TensorType, rank: int) -> None:
    if type.rank != rank:
        raise ShapeError(f"{op}: {what} must have {rank} axes, not shape {dims.shape_text(type.shape)}")


def need_equal(a: Size, b: Size, reason: str) -> None:
    """Sizes that must agree: decided now, or assumed and checked at every call. Raises ShapeError."""
    dims.assume(a - b, "== 0", reason)
