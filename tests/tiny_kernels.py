"""Hand-written kernels of a few lines, and programs made of them, for tests of what runs programs."""

from __future__ import annotations

import hashlib

from engine import dims
from engine.buffers import Buffer
from engine.dims import Size
from engine.dtypes import f32, i64
from engine.program import ERROR, Arg, Call, Check, Kernel, Pointer, Port, Program

IMPORTS = "from runtime.cpu.intrinsics import load_f32, load_i64, report, slot, store_f32, store_i64\n\n\n"
B = dims.dim("B")


def kernel(name: str, body: str) -> Kernel:
    """A kernel whose ``body`` runs for each task ``t``, with the argument block's slots as ``slot(args, i)``."""
    lines = "\n".join("        " + line for line in body.strip().splitlines())
    source = f"{IMPORTS}def {name}(args, lo, hi, scratch):\n    for t in range(lo, hi):\n{lines}\n"
    return Kernel(name, hashlib.sha256(source.encode()).hexdigest(), source)


ADD = kernel(
    "add",
    """
n = slot(args, 3)
for i in range(t * n, (t + 1) * n):
    store_f32(slot(args, 2), i, load_f32(slot(args, 0), i, 0) + load_f32(slot(args, 1), i, 1), 2)
""",
)
"""Three f32 arrays and the elements of a task: out = a + b."""

CHECK_INDEX = kernel(
    "check_index",
    """
value = load_i64(slot(args, 0), t, 0)
report(slot(args, 1), value >= slot(args, 2), 1, value)
""",
)
"""An i64 array, the error word and a limit: reports code 1 for a value at or above the limit."""

SUM_THROUGH_SCRATCH = kernel(
    "sum_through_scratch",
    """
n = slot(args, 2)
for i in range(n):
    store_f32(scratch, i, load_f32(slot(args, 0), t * n + i, 0), 1)
total = load_f32(scratch, 0, 1)
for i in range(1, n):
    total += load_f32(scratch, i, 1)
store_f32(slot(args, 1), t, total, 2)
""",
)
"""An f32 array, one result a task, and the elements of a task, which it copies to its scratch first."""


def add(a: str, b: str, out: str, tasks: Size, elements: Size = 4, offset: Size = 0) -> Call:
    args: tuple[Arg, ...] = (Pointer(a, offset), Pointer(b), Pointer(out), elements)
    return Call(ADD.key, f"{out} = {a} + {b}", args, tasks, (a, b), (out,))


def check(indices: str, limit: int, tasks: Size) -> Call:
    return Call(CHECK_INDEX.key, "check", (Pointer(indices), Pointer(ERROR), limit), tasks, (indices,), ())


def chain(length: int, tasks: Size = B) -> Program:
    """x: f32[tasks, 4] -> x * (length + 1), by so many additions, each of which needs the one before."""
    names = ["x", *(f"t{i}" for i in range(length - 1)), "y"]
    kinds = ["input", *["temp"] * (length - 1), "output"]
    shape = (tasks, 4)
    return Program(
        "chain",
        (Port("x", shape, f32, "x"),),
        (Port("y", shape, f32, "y"),),
        (),
        (),
        tuple(Buffer(n, k, f32, 4 * tasks) for n, k in zip(names, kinds, strict=True)),
        tuple(add(a, "x", b, tasks) for a, b in zip(names, names[1:], strict=False)),
        kernels=(ADD,),
        lifetimes={f"t{i}": (i, i + 1) for i in range(length - 1)},
    )


def accumulate() -> Program:
    """State total: f32[4] += x: f32[4], if the labels i: i64[B] are below 10; returns x + x."""
    return Program(
        "accumulate",
        (Port("x", (4,), f32, "x"), Port("i", (B,), i64, "i")),
        (Port("y", (4,), f32, "y"),),
        (Port("total", (4,), f32, "total"),),
        ("total",),
        (
            Buffer("x", "input", f32, 4),
            Buffer("i", "input", i64, B),
            Buffer("y", "output", f32, 4),
            Buffer("total", "state", f32, 4),
        ),
        (check("i", 10, B), add("x", "x", "y", 1), add("total", "x", "total", 1)),
        kernels=(ADD, CHECK_INDEX),
        checks=(Check("the label {value} is not below 10", "digits.py:7 in step"),),
    )


def variants(count: int) -> list[Kernel]:
    """Kernels that differ in a constant."""
    body = "store_f32(slot(args, 1), t, load_f32(slot(args, 0), t, 0) * {}, 1)"
    return [kernel(f"scale_{i}", body.format(i)) for i in range(count)]
