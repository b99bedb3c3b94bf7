"""The words of generated kernels as Python functions, on NumPy scalars and checked memory.

Each does what its namesake does, which runtime/cpu/intrinsics.py, mathlib.py, microkernel.py and others compile; there
are no alias scopes here.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from engine import dtypes
from runtime.checked_memory import CheckedMemory
from runtime.cpu.group_lanes import GroupLanes
from runtime.scalar_words import WORDS

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


def _largest_rows(tile: np.ndarray, window: int) -> np.ndarray:
    """The largest elements of each ``window`` rows of ``tile``; NaN is larger than all."""
    return tile.reshape(-1, window, tile.shape[-1]).max(1)


def _folded(sums: np.ndarray, groups: GroupLanes) -> np.ndarray:
    """The outputs of all groups, one group after the other, of each row of vectors of ``sums``."""
    parts = [sum(sums[:, q, chosen] for q, chosen in terms) for terms in groups.fold()]
    return np.concatenate([np.reshape(p, (len(sums), groups.count, -1)) for p in parts], -1).reshape(len(sums), -1)


class _Words:
    """Every word as an attribute; those that have sizes in their names are made when they are asked for."""

    def __init__(self, memory: CheckedMemory):
        self.memory = memory
        for name, dtype in _STORED.items():
            setattr(self, f"load_{name}", self._loader(dtype))
            setattr(self, f"store_{name}", self._storer(dtype))
        self.store_address = self._storer(_I64)

    def claim(self, pointer: int) -> None:
        """Nothing: there are no caches here."""

    def fetch(self, pointer: int) -> None:
        """Nothing: there are no caches here."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if found := re.fullmatch(
            r"tile_(f32|f64)_(\d+)x(\d+)x(\d+)(_unit)?(_packed|_jumps|_near|_taps)?(_sums)?", name
        ):
            rows, columns = int(found[2]), int(found[3]) * int(found[4])
            sums = self._sums(_STORED[found[1]], rows, columns, bool(found[5]), found[6] or "")
            return sums if found[7] else self._tile(_STORED[found[1]], rows, columns, sums)
        if found := re.fullmatch(r"tile_(f32|f64)_(\d+)x(\d+)x(\d+)(_unit)?_(fold|spread)(\d+)", name):
            groups = GroupLanes(int(found[7]), int(found[3]), int(found[4]))
            return self._groups(_STORED[found[1]], int(found[2]), groups, bool(found[5]), found[6] == "fold")
        if found := re.fullmatch(r"(load_row|load_part|store_row|store_rows|own_rows)_(f32|f64)_([\dx]+)", name):
            return self._rows(found[1], _STORED[found[2]], [int(n) for n in found[3].split("x")])
        if found := re.fullmatch(r"largest_rows_(?:f32|f64)_[\dx]+_of_(\d+)", name):
            return partial(_largest_rows, window=int(found[1]))
        if found := re.fullmatch(r"dot_(f32|f64)_(\d+)x(\d+)", name):
            return self._dot(_STORED[found[1]], int(found[2]))
        if found := re.fullmatch(r"transpose_(f32|f64)_(\d+)", name):
            return self._transpose(_STORED[found[1]], int(found[2]))
        if name in WORDS:
            return WORDS[name]
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

    def _sums(self, dtype: np.dtype, rows: int, columns: int, unit_k: bool, packed: str) -> Callable[..., np.ndarray]:
        size, view = dtype.itemsize, self.memory.view
        entry = 2 if packed == "_near" else rows

        def sums(outer: int, inner: int, a_step: int, table: int, b: int, b_step: int) -> np.ndarray:
            a_step = size if unit_k else a_step
            b_step, given = columns * size if packed in ("_packed", "_jumps", "_near") else b_step, b_step
            total = np.zeros((rows, columns), dtype)
            if outer > 0 and inner > 0:
                entries = view(table, (outer, entry), (8 * entry, 8), _I64, "reads")
                for t, words in enumerate(entries.tolist()):
                    first = b + t * (given if packed == "_jumps" else inner * b_step)
                    if packed == "_near":
                        words, first = [given + words[0] + i * size for i in range(rows)], b + words[1]
                    if packed == "_taps":
                        distances = view(a_step, (inner,), (8,), _I64, "reads").tolist()
                        a = np.array([[self.memory.load(base + d, dtype) for d in distances] for base in words])
                    else:
                        a = np.stack([view(base, (inner,), (a_step,), dtype, "reads") for base in words])
                    panel = view(first, (inner, columns), (b_step, size), dtype, "reads")
                    total += a @ panel
            return total

        return sums

    def _tile(self, dtype: np.dtype, rows: int, columns: int, sums: Callable[..., np.ndarray]) -> Callable[..., None]:
        def tile(*operands_and_result: int) -> None:
            *operands, c, c_step, accumulate = operands_and_result
            target = self.memory.view(c, (rows, columns), (c_step, dtype.itemsize), dtype, "writes")
            target[...] = sums(*operands) + target if accumulate else sums(*operands)

        return tile

    def _groups(self, dtype: np.dtype, rows: int, groups: GroupLanes, unit_k: bool, folds: bool) -> Callable[..., None]:
        size, lanes, outputs, view = dtype.itemsize, groups.lanes, groups.outputs, self.memory.view
        width = outputs * (lanes if folds else groups.count)

        def tile(outer: int, inner: int, a_step: int, table: int, b: int, b_step: int, *result: int) -> None:
            c, c_step, accumulate = result
            step, origin = (width * size, b_step) if folds else (b_step, 0)
            total = np.zeros((rows, outputs, lanes), dtype)
            if outer > 0 and inner > 0:
                strides = size if unit_k else a_step, size
                for t, bases in enumerate(view(table, (outer, rows), (8 * rows, 8), _I64, "reads").tolist()):
                    a = np.stack([view(base + origin, (inner, lanes), strides, dtype, "reads") for base in bases])
                    panel = view(b + t * inner * step, (inner, width), (step, size), dtype, "reads")
                    if folds:
                        weights = panel.reshape(inner, outputs, lanes)
                    else:
                        weights = np.stack([panel[:, groups.spread(j)] for j in range(outputs)], 1)
                    total += np.einsum("rkl,kol->rol", a, weights)
            found = _folded(total, groups) if folds else total.reshape(rows, -1)
            target = view(c, found.shape, (c_step, size), dtype, "writes")
            target[...] = found + target if accumulate and not folds else found

        return tile

    def _rows(self, word: str, dtype: np.dtype, sizes: list[int]) -> Callable[..., Any]:
        """Words on rows of ``sizes``: of registers and lanes, for several rows their number comes first."""
        columns, step = (sizes[-2] * sizes[-1],), (dtype.itemsize,)
        view, load = self.memory.view, self.memory.load

        def load_row(pointer: int, index: int) -> np.ndarray:
            return np.array(view(int(pointer) + int(index) * dtype.itemsize, columns, step, dtype, "reads"))

        def load_part(pointer: int, index: int, first: int, end: int) -> np.ndarray:
            row = np.zeros(columns, dtype)
            for j in range(max(first, 0), min(end, columns[0])):
                row[j] = load(int(pointer) + (int(index) + j) * dtype.itemsize, dtype)
            return row

        def store_row(pointer: int, index: int, tile: np.ndarray) -> None:
            view(int(pointer) + int(index) * dtype.itemsize, columns, step, dtype, "writes")[...] = tile

        def store_rows(table: int, offset: int, tile: np.ndarray) -> None:
            for i in range(sizes[0]):
                start = int(load(int(table) + 8 * i, _I64)) + int(offset)
                view(start, columns, step, dtype, "writes")[...] = tile[i]

        def own_rows(table: int, offset: int) -> None:
            store_rows(table, offset, np.zeros((sizes[0], *columns), dtype))

        words: dict[str, Callable[..., Any]] = {
            "load_row": load_row, "load_part": load_part, "store_row": store_row, "store_rows": store_rows,
            "own_rows": own_rows,
        }  # fmt: skip
        return words[word]

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
