"""What the training steps of four models cost, counted: a guard against regressions that needs no quiet machine.

``python -m benchmarks.guard`` compares with ``guard.json`` and fails where a count has grown; ``--renew`` writes it
anew. Kernels are generated for one processor (AVX2), whatever this one is, and none is run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from engine.program import Kernel

PATH = Path(__file__).with_name("guard.json")
MODELS = ("cnn", "lstm", "encoder", "gpt")
THREADS = 2
GROWTH = {"kernels": 0.02, "steps": 0.02, "barriers": 0.02, "arena": 0.02, "touched": 0.02, "hot loops": 0.1}
"""By how much of itself each count may grow."""

PROCESSOR = "haswell"
FEATURES = ("avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "popcnt", "sse4.1", "sse4.2")
HOT = ("contract", "conv", "attention", "lstm")
"""How the names of kernels begin in which most of the time is spent."""


def main() -> int:
    """0 where nothing has grown, 1 where something has."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.guard", description=__doc__)
    options.add_argument("--renew", action="store_true", help="write guard.json anew")
    renew = options.parse_args().renew
    if platform.machine() not in ("x86_64", "AMD64"):
        print("the counts are those of an x86-64 processor; this is none")
        return 0
    pretend_processor()
    found = {"llvm": llvm_version(), **{model: counts(model) for model in MODELS}}
    if renew:
        PATH.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return 0
    lines = list(grown(json.loads(PATH.read_text(encoding="utf-8")), found))
    print("\n".join(lines) or "nothing has grown")
    if lines:
        print("where that is as it should be: python -m benchmarks.guard --renew")
    return bool(lines)


def grown(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """What has grown by more than it may. Loops are compared only where the same LLVM made them."""
    for model in MODELS:
        for what, allowed in GROWTH.items():
            old, new = before[model][what], now[model][what]
            if what != "hot loops":
                pairs = {what: (old, new)}
            elif before["llvm"] == now["llvm"]:
                pairs = {f"instructions a multiply-add in {k}": (old[k], new[k]) for k in old.keys() & new.keys()}
            else:
                pairs = {}
            for name, (a, b) in sorted(pairs.items()):
                if b > a * (1 + allowed):
                    yield f"{model}: {name}: {a:,} has become {b:,}"


def pretend_processor() -> None:
    """From now on kernels of this process are for PROCESSOR, and must not be run."""
    from llvmlite import binding

    features = dict.fromkeys(FEATURES, True)
    known = binding.FeatureMap(features)
    binding.get_host_cpu_name = lambda: PROCESSOR
    binding.get_host_cpu_features = lambda: known


def llvm_version() -> str:
    from llvmlite import binding

    return ".".join(map(str, binding.llvm_version_info))


def counts(model: str) -> dict[str, Any]:
    """``kernels`` (different ones), ``steps``, ``barriers`` (where threads meet), ``arena`` (bytes), ``touched`` (bytes
    of the buffers that the steps read and write) and, by the names of kernels, instructions for each multiply-add of
    the innermost loop with the most of them, the most of all kernels of that name."""
    from benchmarks.engines import tenon_function
    from benchmarks.models import CASES
    from engine.state import aligned_empty
    from passes.pipeline import compile_graph
    from runtime.cpu.binding import Binding
    from runtime.cpu.driver import BARRIER, FLAGS
    from runtime.cpu.lower import lower
    from runtime.cpu.target import target
    from tenon.specs import as_specs
    from tenon.tracing import trace

    case = CASES[f"{model}:train"]
    function, specs = tenon_function(case)
    program = compile_graph(trace(function, as_specs(specs, model), model).graph, target(), lower)
    addresses = itertools.count(64, 64)
    bound = Binding(
        program,
        {"B": case.inputs[0].shape[0]},
        lambda buffer, nbytes: aligned_empty((nbytes // buffer.dtype.itemsize,), buffer.dtype),
        {kernel.key: next(addresses) for kernel in program.kernels},
        0,
        THREADS,
    )
    touched = sum(bound.plan.nbytes.get(name, 0) for c in program.main for name in {*c.touched, *c.writes})
    loops: dict[str, float] = {}
    for k in program.kernels:
        if k.name.startswith(HOT) and (ratio := hot_loop(k)):
            loops[k.name] = max(loops.get(k.name, 0.0), ratio)
    return {
        "kernels": len(program.kernels),
        "steps": len(program.main),
        "barriers": int(np.count_nonzero(bound.main.rows[:, FLAGS] & BARRIER)),
        "arena": bound.plan.arena,
        "touched": touched,
        "hot loops": loops,
    }


@cache
def hot_loop(kernel: Kernel) -> float:
    """Instructions for each multiply-add in that innermost loop of the kernel's assembly that has the most of them; 0
    where none has any."""
    from runtime.cpu.compile import inspect_kernel

    found = [(sum("fmadd" in line for line in loop), len(loop)) for loop in innermost(inspect_kernel(kernel)[1])]
    fma, length = max(found, default=(0, 0))
    return round(length / fma, 2) if fma else 0.0


def innermost(assembly: str) -> list[list[str]]:
    """The instructions of each loop that holds no other: from a label to a jump back to it."""
    lines: list[str] = []
    labels: dict[str, int] = {}
    jumps: list[tuple[int, int]] = []
    for line in map(str.strip, assembly.splitlines()):
        if label := re.fullmatch(r"(\.L\w+):.*", line):
            labels[label[1]] = len(lines)
        elif line and line[0] not in ".#" and ":" not in line:
            jump = re.fullmatch(r"j\w+\s+(\.L\w+)", line)
            if jump and jump[1] in labels:
                jumps.append((labels[jump[1]], len(lines)))
            lines.append(line)
    return [lines[a : b + 1] for a, b in jumps if not any((c, d) != (a, b) and a <= c and d <= b for c, d in jumps)]


if __name__ == "__main__":
    sys.exit(main())
