"""What a program takes: the shapes and dtypes of its inputs, with names for the sizes that differ between calls."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from engine import dims, dtypes
from engine.dtypes import DType
from engine.errors import ShapeError, TenonError, TextError
from engine.graph import TensorType
from engine.records import dataclass


@dataclass(frozen=True)
class TensorSpec:
    """One input: its shape (integers and symbolic sizes) and dtype, and a ``name`` where the argument's will not do."""

    shape: dims.Shape
    dtype: DType
    name: str | None = None

    @property
    def type(self) -> TensorType:
        return TensorType(self.shape, self.dtype)

    def __repr__(self) -> str:
        sizes = "".join(f"{s if isinstance(s, int) else repr(str(s))}, " for s in self.shape)
        return f"spec({sizes}dtype={self.dtype.name!r})"


def spec(*shape: object, dtype: object = dtypes.f32, name: str | None = None) -> TensorSpec:
    """An input of the given shape: ``spec("B", 1, 28, 28)``, or ``spec(("B", 1, 28, 28))``.

    A size is an integer, a size of another tensor, or text: the name of a dim, the same number wherever it appears in
    one call, or an expression over names such as ``"2*B"``. ``spec()`` is a scalar. Raises ShapeError or DTypeError.
    """
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    return TensorSpec(tuple(map(_size, shape)), dtypes.as_dtype(dtype), name)


def _size(given: object) -> dims.Size:
    if isinstance(given, dims.Expr):
        return given
    if isinstance(given, str):
        if any(given in (d.name, d.numpy_name) for d in dtypes.ALL):
            raise ShapeError(f"a spec's size is {given!r}, which is a dtype; give it by name, as in dtype={given!r}")
        try:
            size = dims.parse(given)
        except TextError as error:
            raise ShapeError(f"a spec's size is {given!r}: {error.message}") from None
    else:
        try:
            size = operator.index(given)  # type: ignore[arg-type]
        except TypeError:
            raise ShapeError(
                f"a spec's size is {type(given).__name__} {given!r}; an integer or a dim's name like 'B' was expected"
            ) from None
    if isinstance(size, int) and size < 0:
        raise ShapeError(f"a spec's size is {size}; name a size that is not fixed, as in spec('B', 3)")
    return size


def as_specs(given: Iterable[Any], whose: str) -> tuple[TensorSpec, ...]:
    """``given`` with tuples and lists read as shapes. Raises TenonError for anything else, naming ``whose`` it is."""
    if isinstance(given, TensorSpec):
        raise TenonError(f"{whose} got one spec where a list of them was expected, such as [{given!r}]")
    found = []
    for one in given:
        if isinstance(one, (tuple, list)):
            one = spec(*one)
        if not isinstance(one, TensorSpec):
            raise TenonError(
                f"{whose} got {type(one).__name__} {one!r:.60} where a spec was expected, such as tn.spec('B', 28, 28)"
            )
        found.append(one)
    return tuple(found)
