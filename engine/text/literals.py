"""How types, attributes and constants are spelled in a printed graph."""

from __future__ import annotations

import ast
import json
import math
from typing import Any

import numpy as np

from engine import dims, dtypes
from engine.dims import Expr
from engine.dtypes import DType
from engine.errors import TextError
from engine.graph import Graph, TensorType, Value

DTYPES = {d.name: d for d in dtypes.ALL}

INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
"""Ops printed as operators, where :func:`plain` holds for their dtypes."""

NO_LOCATION = "(no source line)"
"""The comment that ends the reach of the comment before it."""

SMALL = 16
"""Constants of at most so many elements are spelled out."""


def plain(dtype: DType) -> bool:
    """Whether NumPy's own arithmetic on arrays of ``dtype`` is what the ops do."""
    return dtype in (dtypes.f32, dtypes.f64, dtypes.i32, dtypes.i64)


def literals(graph: Graph) -> frozenset[Value]:
    """The scalar constants that are printed where they are used: all that are not themselves a result or a kernel's
    whole work."""
    whole = {n for g in graph.groups if all(n.is_literal for n in g.nodes) for n in g.nodes}
    found = {n.output for n in graph.nodes if n.is_literal and n not in whole}
    return frozenset(found.difference(graph.results))


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


# --- types -----------------------------------------------------------------------------------------------


def type_text(type: TensorType, order: tuple[int, ...] | None = None) -> str:
    return str(type) if order is None else f"{type}.order({', '.join(map(str, order))})"


def type_from(node: ast.expr) -> tuple[TensorType, tuple[int, ...] | None]:
    """The type that an annotation spells, and its order of axes if it has one. Raises TextError."""
    match node:
        case ast.Call(func=ast.Attribute(value=inner, attr="order"), args=axes, keywords=[]):
            found, _ = type_from(inner)
            return found, tuple(_int(a) for a in axes)
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Tuple(elts=sizes)) if name in DTYPES:
            return TensorType(tuple(map(_size, sizes)), DTYPES[name]), None
        case ast.Subscript(value=ast.Name(id=name), slice=size) if name in DTYPES:
            return TensorType((_size(size),), DTYPES[name]), None
    raise TextError(f'not a type: {ast.unparse(node)}; expected such as f32["B", 3] or f32[()]')


def _size(node: ast.expr) -> dims.Size:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return dims.parse(node.value)
    return _int(node)


def _int(node: ast.expr) -> int:
    value = attr_from(node)
    if type(value) is not int:
        raise TextError(f"an integer was expected, not {ast.unparse(node)}")
    return value


# --- attributes ------------------------------------------------------------------------------------------


def attr_text(value: Any, nested: bool = False) -> str:
    """An attribute as Python. Inside a tuple a bare string is a size; elsewhere sizes and strings are told apart by
    ``dim("...")`` and ``str("...")``. Raises TextError for what has no spelling."""
    if isinstance(value, tuple):
        inner = ", ".join(attr_text(v, nested=True) for v in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, Expr):
        return quoted(str(value)) if nested else f"dim({quoted(str(value))})"
    if type(value) is str:
        return f"str({quoted(value)})" if nested else quoted(value)
    if type(value) is float:
        return repr(value)
    if value is None or type(value) in (bool, int, DType):
        return str(value)
    raise TextError(f"an attribute of type {type(value).__name__} cannot be printed: {value!r}")


def attr_from(node: ast.expr, nested: bool = False) -> Any:
    """The attribute that an expression spells. Raises TextError."""
    match node:
        case ast.Tuple(elts=elements):
            return tuple(attr_from(e, nested=True) for e in elements)
        case ast.Constant(value=str(text)):
            return dims.parse(text) if nested else text
        case ast.Constant(value=None | bool() | int() | float() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant() | ast.Name() as operand):
            value = attr_from(operand)
            if type(value) in (int, float):
                return -value
        case ast.Call(func=ast.Name(id="dim" | "str" as kind), args=[ast.Constant(value=str(text))], keywords=[]):
            return dims.parse(text) if kind == "dim" else text
        case ast.Name(id="inf" | "nan" as name):
            return float(name)
        case ast.Name(id=name) if name in DTYPES:
            return DTYPES[name]
    raise TextError(f"not an attribute: {ast.unparse(node)}")


# --- constants -------------------------------------------------------------------------------------------


def number_text(value: Any, dtype: DType) -> str:
    """One element, such that reading it as a Python number and converting to ``dtype`` gives the same bits (of a NaN,
    only that it is one)."""
    number = value.item() if dtype.kind in "biu" else float(value)
    if dtype == dtypes.f32 and math.isfinite(number):
        short = str(value)  # NumPy's shortest form for float32
        return short if np.float32(float(short)) == value else repr(number)
    return repr(number)


def array_text(array: np.ndarray, dtype: DType) -> str:
    """The elements as nested lists, or one number."""
    if array.ndim == 0:
        return number_text(array[()], dtype)
    return f"[{', '.join(array_text(a, dtype) for a in array)}]"


def array_from(node: ast.expr) -> Any:
    """Nested lists of numbers, or one number. Raises TextError."""
    if isinstance(node, ast.List):
        return [array_from(e) for e in node.elts]
    value = attr_from(node)
    if type(value) not in (bool, int, float):
        raise TextError(f"a number was expected, not {ast.unparse(node)}")
    return value


def as_constant(value: Any, dtype: DType, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A constant's array from Python numbers. Raises TextError where they do not fit ``dtype`` or ``shape``."""
    try:
        with np.errstate(over="raise"):
            array = np.array(value, dtype.numpy, order="C")
    except (ValueError, OverflowError, FloatingPointError, TypeError) as error:
        raise TextError(f"these numbers are no {dtype} array: {error}") from None
    if array.size and np.asarray(value).dtype.kind == "f" and not dtype.is_float:
        raise TextError(f"a float was given for {dtype}")
    if shape is not None:
        if array.size != math.prod(shape):
            raise TextError(f"{array.size} elements do not fill the shape {shape}")
        array = array.reshape(shape)
    array.flags.writeable = False
    return array
