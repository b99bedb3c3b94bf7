"""The words of generated kernels as Python functions, on NumPy scalars and checked memory.

Each does what its namesake does, which runtime/cpu/intrinsics.py, mathlib.py, microkernel.py and others compile; there
are no alias scopes here.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from engine import dtypes
from engine.random import uniform_reference
from engine.scalar import VOCABULARY
from runtime.cpu.checked_memory import CheckedMemory

_STORED = {d.name: np.dtype(d.numpy) for d in dtypes.ALL}
_F32, _F64, _I64 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int64)


def importer(memory: CheckedMemory) -> Callable[..., Any]:
    """A function to import with, in kernels: it finds the words of this module where those of runtime.cpu are asked
    for."""
    words = _Words(memory)

    def find(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if not name.startswith("runtime.cpu."):
            return builtins.__import__(name, globals, locals, fromlist, level)
        if fromlist:
            return words
        return SimpleNamespace(cpu=SimpleNamespace(arrays=_Arrays(memory)))

    return find


class _Words:
    """Every word as an attribute; those that have sizes in their names are made when they are asked for."""

    def __init__(self, memory: CheckedMemory):
        self.memory = memory
        for name, dtype in _STORED.items():
            setattr(self, f"load_{name}", self._loader(dtype))
            setattr(self, f"store_{name}", self._storer(dtype))
        for name in ("exp", "expm1", "log", "log1p", "sin", "cos", "tan", "atan", "atan2", "tanh", "sigmoid", "erf"):
            setattr(self, name, _of_dtype(VOCABULARY[name].numpy))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if found := re.fullmatch(r"tile_(f32|f64)_(\d+)x(\d+)x(\d+)(_unit)?(_packed|_jumps|_near)?", name):
            rows, columns = int(found[2]), int(found[3]) * int(found[4])
            return self._tile(_STORED[found[1]], rows, columns, bool(found[5]), found[6] or "")
        if found := re.fullmatch(r"dot_(f32|f64)_(\d+)x(\d+)", name):
            return self._dot(_STORED[found[1]], int(found[2]))
        if found := re.fullmatch(r"transpose_(f32|f64)_(\d+)", name):
            return self._transpose(_STORED[found[1]], int(found[2]))
        if name in _PURE:
            return _PURE[name]
        raise AttributeError(f"no word {name!r} of kernels runs in Python")

    # -- memory

    def _loader(self, dtype: np.dtype) -> Callable[..., Any]:
        load, size = self.memory.load, dtype.itemsize
        wide = np.float32 if dtype.name in ("float16", "bfloat16") else dtype.type

        def word(pointer: int, index: int, scope: int) -> Any:
            return wide(load(int(pointer) + int(index) * size, dtype))

        return word

    def _storer(self, dtype: np.dtype) -> Callable[..., None]:
        store, size = self.memory.store, dtype.itemsize

        def word(pointer: int, index: int, value: Any, scope: int) -> None:
            store(int(pointer) + int(index) * size, value, dtype)

        return word

    def slot(self, args: int, index: int) -> int:
        return int(self.memory.load(args + 8 * index, _I64))

    def meet(self, meeting: int, count: int, total: int) -> None:
        assert count == total, "one thread runs all tasks: there is nobody to wait for"

    def report(self, pointer: int, failed: Any, code: int, value: Any) -> None:
        word = self.memory.view(pointer, (2,), (8,), _I64, "writes")
        if failed and word[0] == 0:
            word[:] = code, value

    # -- vectors

    def _tile(self, dtype: np.dtype, rows: int, columns: int, unit_k: bool, packed: str) -> Callable[..., None]:
        size, view = dtype.itemsize, self.memory.view
        entry = 2 if packed == "_near" else rows

        def tile(
            outer: int, inner: int, a_step: int, table: int, b: int, b_step: int, c: int, c_step: int, accumulate: int
        ) -> None:
            a_step = size if unit_k else a_step
            b_step, given = columns * size if packed else b_step, b_step
            target = view(c, (rows, columns), (c_step, size), dtype, "writes")
            total = np.array(target) if accumulate else np.zeros((rows, columns), dtype)
            if outer > 0 and inner > 0:
                entries = view(table, (outer, entry), (8 * entry, 8), _I64, "reads")
                for t, words in enumerate(entries.tolist()):
                    first = b + t * (given if packed == "_jumps" else inner * b_step)
                    if packed == "_near":
                        words, first = [given + words[0] + i * size for i in range(rows)], b + words[1]
                    a = np.stack([view(base, (inner,), (a_step,), dtype, "reads") for base in words])
                    panel = view(first, (inner, columns), (b_step, size), dtype, "reads")
                    total += a @ panel
            target[...] = total

        return tile

    def _dot(self, dtype: np.dtype, count: int) -> Callable[..., Any]:
        view, size = self.memory.view, dtype.itemsize

        def dot(a: int, b: int, scope_a: int, scope_b: int) -> Any:
            x, y = (view(int(p), (count,), (size,), dtype, "reads") for p in (a, b))
            return dtype.type(x @ y)

        return dot

    def _transpose(self, dtype: np.dtype, lanes: int) -> Callable[..., None]:
        view, size = self.memory.view, dtype.itemsize

        def transpose(source: int, source_step: int, target: int, target_step: int) -> None:
            square = np.array(view(source, (lanes, lanes), (source_step, size), dtype, "reads"))
            view(target, (lanes, lanes), (target_step, size), dtype, "writes")[...] = square.T

        return transpose


class _Arrays:
    """What the function around a user's kernel is written with."""

    nan, inf, minus_inf = np.nan, np.inf, -np.inf

    def __init__(self, memory: CheckedMemory):
        self.memory = memory
        self.slot = _Words(memory).slot

    @staticmethod
    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    def __getattr__(self, name: str) -> Callable[..., np.ndarray]:
        if not name.startswith("array_"):
            raise AttributeError(f"no word {name!r} of kernels runs in Python")
        dtype = np.dtype(getattr(np, name.removeprefix("array_")))

        def array(address: int, shape: tuple[int, ...]) -> np.ndarray:
            strides = [dtype.itemsize]
            for n in shape[:0:-1]:
                strides.insert(0, strides[0] * n)
            return self.memory.view(address, tuple(shape), tuple(strides[: len(shape)]), dtype, "holds")

        return array


# --- scalars -----------------------------------------------------------------------------------------------


def _of_dtype(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` with results of its first argument's type."""

    def word(x: Any, *others: Any) -> Any:
        return type(x)(function(x, *others))

    return word


def _extremum(builtin: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    def word(a: Any, b: Any) -> Any:
        return builtin(a, b) if isinstance(a, int) and isinstance(b, int) else function(a, b)

    return word


def _integer_pow(base: Any, exponent: Any) -> Any:
    if exponent >= 0:
        return type(base)(np.power(base, exponent))
    if base == 1 or base == -1:
        return base if exponent % 2 else base * base
    return base - base


def _truncation(dtype: type) -> Callable[..., Any]:
    through: type = np.int64 if dtype is np.int64 else np.int32

    def word(x: Any) -> Any:
        return np.asarray(x).astype(through).astype(dtype)[()]

    return word


def _rounding(dtype: np.dtype) -> Callable[..., Any]:
    return lambda x: np.float32(np.asarray(x).astype(dtype)[()])


def _uniform(dtype: dtypes.DType) -> Callable[..., Any]:
    def word(seed: int, step: int, stream: int, index: int) -> Any:
        found = uniform_reference(int(seed), int(step), int(stream), np.asarray([int(index)]), dtype)
        return found[0]

    return word


def _select(condition: Any, a: Any, b: Any) -> Any:
    return a if condition else b


def _quotient(a: int, b: int) -> int:
    return int(a) // int(b)


_PURE: dict[str, Callable[..., Any]] = {
    "floor": _of_dtype(np.floor), "ceil": _of_dtype(np.ceil), "trunc": _of_dtype(np.trunc),
    "round_even": _of_dtype(np.rint), "absolute": _of_dtype(np.abs), "sqrt": _of_dtype(np.sqrt),
    "sign": _of_dtype(np.sign), "select": _select, "quotient": _quotient,
    "maximum": _extremum(max, np.maximum), "minimum": _extremum(min, np.minimum),
    "running_maximum": _extremum(max, np.maximum), "running_minimum": _extremum(min, np.minimum),
    "is_nan": np.isnan, "is_finite": np.isfinite,
    "integer_floordiv": _of_dtype(np.floor_divide), "integer_mod": _of_dtype(np.mod),
    "shift_left": _of_dtype(np.left_shift), "shift_right": _of_dtype(np.right_shift),
    "float_floordiv": _of_dtype(np.floor_divide), "float_mod": _of_dtype(np.mod),
    "float_pow": _of_dtype(np.power), "integer_pow": _integer_pow,
    "truncate_i8": _truncation(np.int8), "truncate_u8": _truncation(np.uint8),
    "truncate_i32": _truncation(np.int32), "truncate_i64": _truncation(np.int64),
    "round_f16": _rounding(_STORED["f16"]), "round_bf16": _rounding(_STORED["bf16"]),
    "uniform_f32": _uniform(dtypes.f32), "uniform_f64": _uniform(dtypes.f64),
}  # fmt: skip
