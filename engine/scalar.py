"""The closed vocabulary of scalar functions, in which every elementwise op and fused kernel is written.

A backend that maps these few names can run any elementwise op. Each entry holds the NumPy function that
defines its meaning; constants in an expression take the dtype of the value they meet.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from engine import dtypes
from engine.dtypes import DType
from engine.errors import DTypeError, UnsupportedError
from engine.records import dataclass


@dataclass(frozen=True)
class ScalarFunction:
    """``name`` with ``arity`` arguments; ``numpy`` defines it. ``result`` is ``same`` (the promoted dtype of the
    arguments), ``float`` (that, or f64 for integers, as in NumPy) or ``bool``."""

    name: str
    arity: int
    numpy: Callable[..., np.ndarray]
    result: str = "same"


_erf_ufunc = np.frompyfunc(math.erf, 1, 1)


def _erf(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x)
    return np.asarray(_erf_ufunc(x.astype(np.float64))).astype(x.dtype if x.dtype.kind == "f" else np.float64)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x)
    with np.errstate(over="ignore", under="ignore"):
        e = np.exp(-np.abs(x))
        return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(e.dtype)


def _round(x: np.ndarray) -> np.ndarray:
    return np.rint(x) if np.asarray(x).dtype.kind == "f" else np.asarray(x)


def _kept_integer(f: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: f(x) if np.asarray(x).dtype.kind == "f" else np.asarray(x)


_Table = dict[str, tuple[int, Callable[..., Any]]]

_SAME: _Table = {
    "neg": (1, np.negative), "abs": (1, np.abs), "sign": (1, np.sign), "square": (1, np.square),
    "floor": (1, _kept_integer(np.floor)), "ceil": (1, _kept_integer(np.ceil)),
    "trunc": (1, _kept_integer(np.trunc)), "round": (1, _round), "invert": (1, np.invert),
    "add": (2, np.add), "sub": (2, np.subtract), "mul": (2, np.multiply),
    "floordiv": (2, np.floor_divide), "mod": (2, np.mod), "pow": (2, np.power),
    "maximum": (2, np.maximum), "minimum": (2, np.minimum),
    "bitand": (2, np.bitwise_and), "bitor": (2, np.bitwise_or), "bitxor": (2, np.bitwise_xor),
    "shl": (2, np.left_shift), "shr": (2, np.right_shift),
    "where": (3, np.where),
}  # fmt: skip
_FLOAT: _Table = {
    "div": (2, np.true_divide), "sqrt": (1, np.sqrt), "exp": (1, np.exp), "expm1": (1, np.expm1),
    "log": (1, np.log), "log1p": (1, np.log1p), "sin": (1, np.sin), "cos": (1, np.cos), "tan": (1, np.tan),
    "atan": (1, np.arctan), "atan2": (2, np.arctan2), "tanh": (1, np.tanh), "sigmoid": (1, _sigmoid), "erf": (1, _erf),
}  # fmt: skip
_BOOL: _Table = {
    "eq": (2, np.equal), "ne": (2, np.not_equal), "lt": (2, np.less), "le": (2, np.less_equal),
    "gt": (2, np.greater), "ge": (2, np.greater_equal),
    "and_": (2, np.logical_and), "or_": (2, np.logical_or), "not_": (1, np.logical_not),
    "isnan": (1, np.isnan), "isfinite": (1, np.isfinite),
}  # fmt: skip

_TABLES: tuple[tuple[str, _Table], ...] = (("same", _SAME), ("float", _FLOAT), ("bool", _BOOL))
VOCABULARY: dict[str, ScalarFunction] = {
    name: ScalarFunction(name, arity, f, result) for result, table in _TABLES for name, (arity, f) in table.items()
}

_OPERATORS: dict[type, str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.FloorDiv: "floordiv", ast.Mod: "mod",
    ast.Pow: "pow", ast.BitAnd: "bitand", ast.BitOr: "bitor", ast.BitXor: "bitxor",
    ast.LShift: "shl", ast.RShift: "shr", ast.USub: "neg", ast.Invert: "invert",
    ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge",
}  # fmt: skip

Operand = str | int | float | bool


@dataclass(frozen=True)
class Instruction:
    """``name = op(*args)``; an argument is an earlier name, a parameter or a number."""

    name: str
    op: str
    args: tuple[Operand, ...]


@lru_cache(maxsize=1024)
def instructions(expression: str) -> tuple[Instruction, ...]:
    """``expression`` as a straight line of instructions, the last being its value.

    A bare parameter or number becomes one ``identity`` instruction. Raises UnsupportedError for a function that
    is not in the vocabulary.
    """
    lines: list[Instruction] = []

    def emit(op: str, args: list[Operand]) -> str:
        if op not in VOCABULARY or VOCABULARY[op].arity != len(args):
            raise UnsupportedError(f"{op} with {len(args)} arguments is not in the scalar vocabulary")
        lines.append(Instruction(f"_{len(lines)}", op, tuple(args)))
        return lines[-1].name

    def walk(node: ast.expr) -> Operand:
        match node:
            case ast.Name(id=name):
                return name
            case ast.Constant(value=v) if isinstance(v, (int, float)):
                return v
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=v)) if isinstance(v, (int, float)):
                return -v
            case ast.UnaryOp(op=op, operand=x):
                return emit(_OPERATORS[type(op)], [walk(x)])
            case ast.BinOp(left=a, op=op, right=b):
                return emit(_OPERATORS[type(op)], [walk(a), walk(b)])
            case ast.Compare(left=a, ops=[op], comparators=[b]):
                return emit(_OPERATORS[type(op)], [walk(a), walk(b)])
            case ast.Call(func=ast.Name(id=name), args=args):
                return emit(name, [walk(a) for a in args])
        raise UnsupportedError(f"not a scalar expression: {ast.unparse(node)}")

    value = walk(ast.parse(expression, mode="eval").body)
    if not lines or value != lines[-1].name:
        lines.append(Instruction(f"_{len(lines)}", "identity", (value,)))
    return tuple(lines)


@dataclass(frozen=True)
class Typed:
    """An instruction with its dtypes: arguments are cast to ``arg_types`` and the result has ``result``, both wide
    enough to compute with (f32 for 16-bit floats). ``declared`` is the dtype the graph gives the result."""

    name: str
    op: str
    args: tuple[Operand, ...]
    arg_types: tuple[DType, ...]
    result: DType
    declared: DType


@lru_cache(maxsize=4096)
def typed(expression: str, names: tuple[str, ...], types: tuple[DType, ...]) -> tuple[Typed, ...]:
    """The instructions of ``expression`` with dtypes, its parameters ``names`` having ``types``. Raises DTypeError."""
    known = dict(zip(names, types, strict=True))
    lines: list[Typed] = []
    for line in instructions(expression):
        tensors = [known[a] for a in line.args if isinstance(a, str)]
        beside = dtypes.promote(*tensors) if tensors else None
        own = [known[a] if isinstance(a, str) else dtypes.of_scalar(a, beside) for a in line.args]
        args, declared = _rule(line.op, own)
        known[line.name] = declared
        wide = tuple(a.computed for a in args)
        lines.append(Typed(line.name, line.op, line.args, wide, declared.computed, declared))
    return tuple(lines)


def _rule(op: str, own: list[DType]) -> tuple[list[DType], DType]:
    """The dtypes that ``op`` casts its arguments to, and its result's."""
    if op == "identity":
        return own, own[0]
    if op == "where":
        value = dtypes.promote(*own[1:])
        return [dtypes.bool_, value, value], value
    if op in ("and_", "or_", "not_"):
        return [dtypes.bool_] * len(own), dtypes.bool_
    common = dtypes.promote(*own)
    result = VOCABULARY[op].result
    if result == "bool":
        return [common] * len(own), dtypes.bool_
    if result == "float":
        common = common if common.is_float else dtypes.f64
    elif op in _BITS and common.is_float:
        raise DTypeError(f"{op} takes integers or bools, not {common}")
    elif op in _NUMBERS and common == dtypes.bool_:
        raise DTypeError(f"{op} takes numbers, not bool; cast first, or use a logical op")
    return [common] * len(own), common


_BITS = frozenset({"bitand", "bitor", "bitxor", "shl", "shr", "invert"})
_NUMBERS = frozenset({"neg", "sub", "sign", "square", "floordiv", "mod", "pow", "shl", "shr"})


def evaluate(expression: str, names: tuple[str, ...], arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    """``expression`` on NumPy arrays, with broadcasting. Overflow and invalid values pass silently, as in a kernel."""
    types = tuple(dtypes.as_dtype(np.asarray(a).dtype) for a in arrays)
    known = dict(zip(names, arrays, strict=True))
    with np.errstate(all="ignore"):
        for line in typed(expression, names, types):
            args = [
                np.asarray(known[a] if isinstance(a, str) else a).astype(t.numpy, copy=False)
                for a, t in zip(line.args, line.arg_types, strict=True)
            ]
            value = args[0] if line.op == "identity" else VOCABULARY[line.op].numpy(*args)
            known[line.name] = np.asarray(value).astype(line.result.numpy, copy=False)
        return known[line.name].astype(line.declared.numpy, copy=False)
