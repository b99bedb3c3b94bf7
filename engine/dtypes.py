"""The dtypes of tensors, and NumPy's promotion between them."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from engine.errors import DTypeError
from engine.records import dataclass


@dataclass(frozen=True, eq=False)
class DType:
    """A tensor's element type. It equals what names it: ``x.dtype == np.float32``, ``x.dtype == "f32"``.

    ``name`` is the short form used in dumps (``f32``), ``numpy_name`` NumPy's own; ``kind`` is one of
    ``f`` (float), ``i`` (signed), ``u`` (unsigned) and ``b`` (bool); ``itemsize`` is in bytes.
    ``storage_only`` types are loaded and stored, and computed with as f32.
    """

    name: str
    numpy_name: str
    kind: str
    itemsize: int
    storage_only: bool = False

    @cached_property
    def numpy(self) -> np.dtype:
        """The NumPy dtype; bf16 needs the optional package ml_dtypes."""
        if self.name == "bf16":
            try:
                import ml_dtypes
            except ImportError:
                raise DTypeError("bf16 arrays need the package ml_dtypes: pip install ml_dtypes") from None
            return np.dtype(ml_dtypes.bfloat16)
        return np.dtype(self.numpy_name)

    @property
    def computed(self) -> DType:
        """The dtype of its values inside a kernel: f32 for the storage types, else itself."""
        return f32 if self.storage_only else self

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_integer(self) -> bool:
        return self.kind in "iu"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DType):
            return self.name == other.name
        if not isinstance(other, (str, type, np.dtype)):
            return NotImplemented
        try:
            return as_dtype(other).name == self.name
        except DTypeError:
            return False

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return self.name

    __str__ = __repr__


f32 = DType("f32", "float32", "f", 4)
f64 = DType("f64", "float64", "f", 8)
f16 = DType("f16", "float16", "f", 2, storage_only=True)
bf16 = DType("bf16", "bfloat16", "f", 2, storage_only=True)
i8 = DType("i8", "int8", "i", 1)
u8 = DType("u8", "uint8", "u", 1)
i32 = DType("i32", "int32", "i", 4)
i64 = DType("i64", "int64", "i", 8)
bool_ = DType("bool", "bool", "b", 1)

ALL = (bool_, i8, u8, i32, i64, f16, bf16, f32, f64)
_ALIASES = {"half": f16, "float": f32, "double": f64, "int": i32, "long": i64}
_BY_NAME = {d.name: d for d in ALL} | {d.numpy_name: d for d in ALL} | _ALIASES


def as_dtype(value: object) -> DType:
    """The DType that ``value`` names: a DType, a short or NumPy name, a NumPy dtype, or a Python type."""
    if isinstance(value, DType):
        return value
    if value is bool:
        return bool_
    if value is int:
        return i64
    if value is float:
        return f32
    name = value if isinstance(value, str) else getattr(value, "name", None) or getattr(value, "__name__", None)
    if name in _BY_NAME:
        return _BY_NAME[name]
    try:
        found = _BY_NAME.get(np.dtype(value).name)  # type: ignore[call-overload]
    except TypeError:
        found = None
    if found is None:
        raise DTypeError(f"no dtype {value!r}; expected one of {', '.join(d.name for d in ALL)}")
    return found


def promote(*dtypes: DType) -> DType:
    """The dtype that NumPy gives a result of these (i32 for its int16); bf16 with f16 gives f32, with other floats the
    wider one."""
    result = dtypes[0]
    for other in dtypes[1:]:
        result = _promote2(result, other)
    return result


def _promote2(a: DType, b: DType) -> DType:
    if a == b:
        return a
    if bf16 in (a, b):
        other = b if a == bf16 else a
        if other.is_float:
            return f32 if other == f16 else other
        return bf16 if other.itemsize == 1 else (f64 if other.itemsize == 8 or other == i32 else f32)
    found = np.result_type(a.numpy, b.numpy)
    return i32 if found == np.int16 else as_dtype(found)


def of_scalar(value: object, beside: DType | None = None) -> DType:
    """The dtype of a Python scalar. Beside a tensor it is weak, as in NumPy 2: it takes the tensor's dtype
    unless its kind is higher (a float beside integers gives f64, an int beside bools i64); alone, a float is f32."""
    if isinstance(value, (bool, np.bool_)):
        return beside or bool_
    if isinstance(value, (int, np.integer)):
        return i64 if beside is None or beside.kind == "b" else beside
    if isinstance(value, (float, np.floating)):
        if beside is None:
            return f32
        return beside if beside.is_float else f64
    raise DTypeError(f"a tensor or a number was expected, not {type(value).__name__} {value!r}")
