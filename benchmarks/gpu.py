"""Tenon on a GPU beside PyTorch, eager and compiled: ``python -m benchmarks --target cuda``.

Engines are given the same numbers, and what they make of them is compared before anything is timed. Each measurement is
a median of CUDA events, made by the engines in turns, in one run on one GPU.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

from benchmarks import gpu_engines, gpu_torch, gpu_versions
from benchmarks.gpu_results import disagreement
from benchmarks.gpu_work import WORK, Result, Work, median, table

_ROUNDS, _REPEATS = 5, 20


def measure(work: Work, peers: bool, copy: float) -> Result:
    """Rounds of all engines in turns, and their medians, if PyTorch's first results are Tenon's."""
    engines = {"tenon": gpu_engines.tenon(work)}
    if peers:
        engines |= gpu_torch.engines(work)
    ours, *theirs = (engine.results() for engine in engines.values())
    for results in theirs:
        if wrong := disagreement(work, ours, results):
            return Result(work, {}, copy, wrong)
    found: dict[str, list[float]] = {name: [] for name in engines}
    for engine in engines.values():
        engine.run(3)
    for _ in range(_ROUNDS):
        for name, engine in engines.items():
            found[name] += engine.run(_REPEATS)
    return Result(work, {name: median(times) for name, times in found.items()}, copy)


def main(names: str, peers: bool, out: Path) -> int:
    """Measure the work whose names begin with one of ``names`` (or all); writes OUT.md. Returns 1 where results
    are wrong, 2 where there is no GPU."""
    try:
        print(gpu_versions.text())
    except gpu_versions.NoGPU as error:
        print(f"nothing was measured: {error}", file=sys.stderr)
        return 2
    from runtime.cuda.ceilings import copy_bandwidth
    from runtime.cuda.devices import open_device

    copy = copy_bandwidth(open_device(0))
    print(f"copies: {copy / 1e9:.0f} GB/s\n")
    chosen = [w for w in WORK if names == "all" or any(w.name.startswith(n) for n in names.split(","))]
    if not chosen:
        raise SystemExit(f"unknown workload {names!r}; known are all, {', '.join(w.name for w in WORK)}")
    results = []
    for work in chosen:
        print(work.name, file=sys.stderr)
        results.append(measure(work, peers, copy))
        gc.collect()
        out.with_suffix(".md").write_text(f"{gpu_versions.text()}\n\n{table(results)}\n", "utf-8")
    print(table(results))
    return int(any(r.wrong for r in results))
