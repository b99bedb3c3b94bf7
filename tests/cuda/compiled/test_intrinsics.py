"""Every intrinsic compiles to the PTX that it is declared with, for every architecture."""

from __future__ import annotations

from types import ModuleType

import pytest

from engine.errors import CompileError, UnsupportedError
from engine.program import Kernel
from runtime.cuda import ptx, ptx_hopper, toolkit
from runtime.cuda.assembler import assemble

VALUES = {"array": "sums", "i32": "a", "f32": "x", "f64": "y", "u16": "a", "u32": "a", "u64": "a"}


def intrinsics(module: ModuleType) -> list[str]:
    """The names of those that a module declares."""
    return [n for n, f in vars(module).items() if not n.startswith("_") and type(f).__name__ == "_Intrinsic"]


def calling(name: str, module: ModuleType) -> Kernel:
    """A kernel that calls the intrinsic ``name`` and stores what it gives."""
    annotations = dict(getattr(module, name)._defn.__wrapped__.__annotations__)
    result = annotations.pop("return")
    literals = iter((64, 0, 0) if "sums" in annotations else (0,) if "wait" in name else (64,))
    lines = [f"r = {name}({', '.join(VALUES.get(w) or str(next(literals)) for w in annotations.values())})"]
    if "sums" in annotations:
        lines = ["sums = cuda.local.array(32, float32)", *lines, "st_global_f32(b, sums[0])"]
    if result.startswith("tuple"):
        lines += [f"store(b + {8 * i}, r[{i}])" for i in range(result.count(",") + 1)]
    elif result != "None":
        lines += ["store(b, r)"]
    source = "\n".join([
        "from numpy import float32, float64",
        f"from {module.__name__} import {name}",
        "from runtime.cuda.ptx import st_global_u32, st_global_f32",
        "from runtime.cuda.toolkit import cuda, device",
        "",
        "@device",
        "def store(address, value):",
        f"    {'st_global_f32' if 'f32' in result else 'st_global_u32'}(address, value)",
        "",
        f"def of_{name}(a, b):",
        "    x, y = float32(a), float64(a)",
        *(f"    {line}" for line in lines),
    ])  # fmt: skip
    return Kernel(f"of_{name}", name, source + "\n", threads=32)


@pytest.mark.parametrize("name", intrinsics(ptx))
def test_an_intrinsic_compiles(name):
    text = toolkit.to_ptx(calling(name, ptx), "sm_80")
    assert f".entry of_{name}(" in text and ".maxntid 32" in text
    assert name == "shared_memory" or "// begin inline asm" in text


@pytest.mark.parametrize("name", intrinsics(ptx_hopper))
def test_an_intrinsic_of_hopper_assembles(name):
    text = toolkit.to_ptx(calling(name, ptx_hopper), "sm_90a")
    assert "// begin inline asm" in text
    assert assemble(text, "sm_90a").resources.stack == 0


def test_integers_are_narrowed_to_what_an_intrinsic_takes():
    source = """\
from runtime.cuda.ptx import shared_memory, st_shared_u32
from runtime.cuda.toolkit import cuda

def narrow(n):
    t = cuda.threadIdx.x
    st_shared_u32(shared_memory() + (t & 31) * 4 + (t >> 5) * 128, t)
"""
    text = toolkit.to_ptx(Kernel("narrow", "0", source, threads=64), "sm_90a")
    assert ".target sm_90a" in text and "mul.lo.s64" not in text and "add.s64" not in text


def test_what_does_not_compile_is_shown():
    source = "def wrong(a):\n    return a.nothing\n"
    with pytest.raises(CompileError, match=r"kernel 'wrong' does not compile for sm_80(.|\n)*2     return a.nothing"):
        toolkit.to_ptx(Kernel("wrong", "1", source, threads=32), "sm_80")
    with pytest.raises(UnsupportedError, match="'sm_x' is not an architecture"):
        toolkit.to_ptx(Kernel("wrong", "1", source, threads=32), "sm_x")
