"""Loops, reductions and bundles that the CUDA backend is tried on: each takes a way of its own through the lowering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from cuda_harness import Case
from kernel_harness import elements, load, over, store

from engine.dims import Size, dim, evaluate
from engine.dtypes import DType, bf16, bool_, f16, f32, f64, i8, i32, i64, u8
from engine.schedule import Access, Bundle, KernelSpec, Stmt

B = dim("B")
RNG = np.random.default_rng(5)


def values(shape, dtype: DType) -> np.ndarray:
    if dtype.is_float:
        return RNG.standard_normal(shape).astype(dtype.numpy)
    return RNG.integers(0, 2 if dtype == bool_ else 100, shape).astype(dtype.numpy)


def _case(
    name: str, spec: KernelSpec, dims: dict[str, int] | None = None, tolerance: float | None = None, **sizes: int
):
    """A case on arrays of ``sizes`` elements, of the dtypes with which the accesses name them."""
    kinds = {a.buffer: a.dtype for a in (*spec.reads, *spec.writes)}
    return Case(name, spec, {n: values(size, kinds[n]) for n, size in sizes.items()}, dims or {}, tolerance)


# --- elementwise -----------------------------------------------------------------------------------------------


def _chain(name: str, shape: tuple[Size, ...], dtype: DType, offset: Size = 0) -> KernelSpec:
    """``y = x * b + 1``, and a mask of where it is positive; ``b`` is the same for all rows."""
    row = (0,) * (len(shape) - 1) + (1,)
    body = (
        load("x", 0, dtype), load("b", 1, dtype),
        Stmt("t", "mul", ("x", "b"), dtype), Stmt("r", "add", ("t", 1.0), dtype),
        Stmt("p", "gt", ("r", 0.0), bool_), store(0, "r", dtype), store(1, "p", bool_),
    )  # fmt: skip
    reads = (Access("x", dtype, elements(shape), offset), Access("b", dtype, row))
    return KernelSpec(name, shape, reads, (over("y", shape, dtype), over("p", shape, bool_)), body)


def elementwise() -> list[Case]:
    n = 600
    in_place = KernelSpec(
        "step", (n,), (over("w", (n,)), over("g", (n,), bf16), Access("rate", f32, (0,))), (over("w", (n,)),),
        (load("w", 0), load("g", 1, bf16), load("rate", 2), Stmt("g32", "cast", ("g",), f32),
         Stmt("d", "mul", ("g32", "rate"), f32), Stmt("v", "sub", ("w", "d"), f32), store(0, "v")),
    )  # fmt: skip
    drawn = KernelSpec(
        "draw", (7, 30), (Access("seed", i64, (0, 0)), Access("step", i64, (0, 0))), (over("u", (7, 30)),),
        (load("seed", 0, i64), load("step", 1, i64), Stmt("i", "index", (), i64, (30, 1)),
         Stmt("u", "uniform", ("seed", "step", 3, "i"), f32), store(0, "u")),
    )  # fmt: skip
    gathered = KernelSpec(
        "rows", (9, 40), (over("table", (50, 40)), Access("at", i32, (1, 0))), (over("y", (9, 40)),),
        (load("at", 1, i32), Stmt("i", "cast", ("at",), i64),
         Stmt("v", "load_at", (0, "i"), f32, (40,)), store(0, "v")),
    )  # fmt: skip
    gathered = KernelSpec(**{**vars(gathered), "reads": (Access("table", f32, (0, 1)), gathered.reads[1])})
    scalar = KernelSpec("one", (), (Access("x", f64, ()),), (Access("y", f64, ()),),
                        (load("x", 0, f64), Stmt("e", "exp", ("x",), f64), store(0, "e", f64)))  # fmt: skip
    cases = [
        *(_case(f"tail of {d}", _chain("chain", (1003,), d), x=1003, b=1003, y=1003, p=1003) for d in (f32, f64, bf16)),
        _case("rows", _chain("chain", (5, 48), f32), x=240, b=48, y=240, p=240),
        _case("odd rows", _chain("chain", (5, 47), f16), x=235, b=47, y=235, p=235),
        _case("symbolic", _chain("chain", (B, 10), f32), {"B": 9}, x=90, b=10, y=90, p=90),
        _case("symbolic rows", _chain("chain", (3, B), f32), {"B": 21}, x=63, b=21, y=63, p=63),
        _case(
            "misaligned", _chain("chain", (B,), bf16, offset=dim("S")), {"B": 300, "S": 3}, x=303, b=300, y=300, p=300
        ),
        _case("in place", in_place, w=n, g=n, rate=1),
        _case("random numbers", drawn, seed=1, step=1, u=210),
        _case("a row each", gathered, table=2000, at=9, y=360),
        _case("a scalar", scalar, x=1, y=1),
    ]
    cases[-2].arrays["at"][:] %= 50
    return cases


def turned() -> list[Case]:
    found = []
    for dtype in (f32, bf16, f64, u8):
        shape = (2, 37, 70)
        reads = (Access("x", dtype, (37 * 70, 1, 37)), over("b", shape, dtype))
        body = (load("x", 0, dtype), load("b", 1, dtype), Stmt("s", "add", ("x", "b"), dtype), store(0, "s", dtype))
        spec = KernelSpec("turn", shape, reads, (over("y", shape, dtype),), body)
        found.append(_case(f"turned {dtype}", spec, x=5180, b=5180, y=5180))
    return found


# --- reductions ------------------------------------------------------------------------------------------------


def _softmax(shape: tuple[Size, ...], reduced: tuple[int, ...], dtype: DType) -> KernelSpec:
    body = (
        load("x", 0, dtype), Stmt("x32", "cast", ("x",), f32), Stmt("m", "reduce_max", ("x32",), f32),
        Stmt("d", "sub", ("x32", "m"), f32), Stmt("e", "exp", ("d",), f32), Stmt("s", "reduce_sum", ("e",), f32),
        Stmt("y", "div", ("e", "s"), f32), Stmt("c", "cast", ("y",), dtype), store(0, "c", dtype),
        Stmt("l", "log", ("s",), f32), store(1, "l"),
    )  # fmt: skip
    kept = tuple(n for i, n in enumerate(shape) if i not in reduced)
    steps = iter(elements(kept))
    sums = tuple(0 if i in reduced else next(steps) for i in range(len(shape)))
    writes = (over("y", shape, dtype), Access("lse", f32, sums))
    return KernelSpec("softmax", shape, (over("x", shape, dtype),), writes, body, reduced=reduced)


def _sums(shape: tuple[Size, ...], reduced: tuple[int, ...], dtype: DType, split: int | None = None) -> KernelSpec:
    """The sum, the greatest and the place of the greatest; ``split`` into chunks that write side by side."""
    kept = tuple(n for i, n in enumerate(shape) if i not in reduced)
    steps = iter(elements(kept))
    strides = tuple(0 if i in reduced else next(steps) for i in range(len(shape)))
    count: Size = 1
    for n in kept:
        count = count * n
    factor = tuple(elements(shape)[i] if i in reduced else 0 for i in range(len(shape)))
    ops = (
        ("s", "reduce_sum", ("x",), dtype),
        ("m", "reduce_max", ("x",), dtype),
        ("a", "reduce_argmax", ("x", "i"), i64),
    )
    body = [load("x", 0, dtype), Stmt("i", "index", (), i64, factor)]
    writes = []
    for k, (name, op, args, kind) in enumerate(ops):
        body += [Stmt(name, op, args, kind), store(k, name, kind)]
        writes.append(Access(f"y{k}", kind, strides, chunk_stride=count if split else 0))
    return KernelSpec(
        "sums", shape, (over("x", shape, dtype),), tuple(writes), tuple(body), reduced=reduced, split=split
    )


def sums(name, shape, reduced, dtype=f32, split=None, dims=None):
    sizes = [evaluate(n, dims or {}) for n in shape]
    kept = int(np.prod([n for i, n in enumerate(sizes) if i not in reduced]))
    chunks = -(-sizes[reduced[0]] // split) if split else 1
    out = {f"y{k}": kept * chunks for k in range(3)}
    return _case(name, _sums(shape, reduced, dtype, split), dims, x=int(np.prod(sizes)), **out)


def softmax(name, shape, reduced, dtype=f32, dims=None, tolerance=None):
    sizes = [evaluate(n, dims or {}) for n in shape]
    kept = int(np.prod([n for i, n in enumerate(sizes) if i not in reduced]))
    count = int(np.prod(sizes))
    return _case(name, _softmax(shape, reduced, dtype), dims, tolerance, x=count, y=count, lse=kept)


def in_place(name, shape, reduced, dims=None):
    """A softmax that is written over what it is made of."""
    case = softmax(name, shape, reduced, dims=dims)
    spec = replace(case.spec, writes=(replace(case.spec.writes[0], buffer="x"), case.spec.writes[1]))
    return replace(case, spec=spec, arrays={n: a for n, a in case.arrays.items() if n != "y"})


def reductions() -> list[Case]:
    return [
        softmax("short rows", (37, 6), (1,)),
        softmax("rows of a warp", (9, 260), (1,)),
        softmax("rows of a block", (3, 3000), (1,)),
        softmax("rows too long to keep", (2, 13000), (1,), tolerance=1e-5),
        softmax("rows of 16 bits", (5, 256), (1,), bf16),
        softmax("rows of any length", (5, B), (1,), dims={"B": 77}),
        softmax("rows of any length, a multiple of four", (5, B), (1,), dims={"B": 84}),
        softmax("rows of any length, of 16 bits", (3, 2, B), (1, 2), bf16, dims={"B": 40}),
        softmax("rows of two axes", (5, 4, 24), (1, 2)),
        softmax("columns", (50, 45), (0,)),
        softmax("columns below others", (20, 3, 40), (0,)),
        in_place("short rows in place", (37, 6), (1,)),
        in_place("rows of a block in place", (2, 2000), (1,)),
        in_place("rows of any length in place", (5, B), (1,), {"B": 77}),
        in_place("columns in place", (40, 37), (0,)),
        sums("a thread's rows", (300, 1), (1,)),
        sums("integers", (7, 130), (1,), i32),
        sums("bytes", (7, 40), (1,), i8),
        sums("everything", (4000,), (0,)),
        sums("everything of some length", (B,), (0,), dims={"B": 1001}),
        sums("chunks of some length", (B,), (0,), split=256, dims={"B": 600}),
        sums("chunks of rows", (3, 1000), (1,), split=256),
        sums("chunks of a sum", (1000,), (0,), f64, split=256),
        sums("chunks of columns", (100, 40), (0,), split=32),
        sums("columns of two axes", (6, 9, 33), (0, 1)),
        sums("few columns", (90, 3), (0,)),
    ]


def shared() -> list[Case]:
    """Reductions with more points than a block is given."""
    return [
        softmax("columns in shares", (25 * B, 20), (0,), dims={"B": 9}),
        softmax("columns in shares, too short for them", (25 * B, 20), (0,), dims={"B": 1}),
        sums("sums of columns in shares", (515, 20), (0,)),
        sums("a sum in shares", (17000,), (0,), f64),
        softmax("a row in shares", (1, 33000), (1,), tolerance=1e-5),
    ]


# --- bundles ---------------------------------------------------------------------------------------------------


def bundles() -> list[Case]:
    return [updates((3, 700, 64, 2100, 8))]


def updates(sizes: Sequence[int]) -> Case:
    """A step of all arrays of these sizes, of which the third is bf16, as one kernel."""
    parts = []
    arrays = {"rate": values(1, f32)}
    for i, n in enumerate(sizes):
        dtype = bf16 if i == 2 else f32
        body = (load("w", 0, dtype), load("g", 1, dtype), load("r", 2), Stmt("g32", "cast", ("g",), f32),
                Stmt("d", "mul", ("g32", "r"), f32), Stmt("w32", "cast", ("w",), f32),
                Stmt("v", "sub", ("w32", "d"), f32), Stmt("c", "cast", ("v",), dtype),
                store(0, "c", dtype))  # fmt: skip
        reads = (over(f"w{i}", (n,), dtype), over(f"g{i}", (n,), dtype), Access("rate", f32, (0,)))
        parts.append(KernelSpec(f"update{i}", (n,), reads, (over(f"w{i}", (n,), dtype),), body))
        arrays |= {f"{name}{i}": values(n, dtype) for name in "wg"}
    return Case("updates", Bundle("updates", tuple(parts)), arrays)


ALL = (*elementwise(), *turned(), *reductions(), *shared(), *bundles())
