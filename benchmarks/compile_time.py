"""What compiling takes: each workload beside torch.compile from an empty cache, and graphs of growing size.

    python -m benchmarks.compile_time --workloads mlp,cnn:train --nodes 1000,4000,16000

A workload is timed from the building of its model to the end of its first step, imports apart, in a process of its own.
The graphs are residual blocks whose kernels are all alike, compiled once: what grows is the work of tracing and passes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.engines import ENGINES
from benchmarks.models import CASES, Case, chosen
from benchmarks.paired import Worker, write_bytecode

PEER = "torch.compile"
WIDTH = 8
_GROW = "import sys; from benchmarks.compile_time import compile_graph; compile_graph(int(sys.argv[1]))"


def compile_graph(wanted: int) -> None:
    """Compile a graph of about ``wanted`` nodes; write its nodes, kernels and seconds to standard output."""
    import numpy as np

    import tenon as tn

    weight = tn.tensor(np.eye(WIDTH, dtype=np.float32))
    tn.compile(lambda x: tn.tanh(x @ weight), tn.spec("B", WIDTH))  # what is imported or compiled once

    def chain(x, blocks: int):  # type: ignore[no-untyped-def]
        for _ in range(blocks):
            x = x + tn.tanh((x * 0.5 + 0.1) @ weight).mean(-1, keepdim=True)
        return x

    per_block = len(tn.compile(lambda x: chain(x, 2), tn.spec("B", WIDTH)).graph.nodes) // 2
    start = time.perf_counter()
    exe = tn.compile(lambda x: chain(x, wanted // per_block), tn.spec("B", WIDTH))
    seconds = time.perf_counter() - start
    exe(np.ones((2, WIDTH), np.float32))
    print(json.dumps({"nodes": len(exe.graph.nodes), "kernels": exe.report.kernels, "seconds": seconds}))


def first_step(engine: str, case: Case, threads: int, cache: str) -> float:
    """Seconds from the building of the model to the end of its first step, with nothing compiled before."""
    settings = {"TENON_CACHE": cache, "TORCHINDUCTOR_CACHE_DIR": cache}
    worker = Worker.start("benchmarks", engine, threads, ["--workloads", case.name], settings)
    worker.stop()
    return worker.first["first"]


def against_torch(cases: list[Case], threads: int) -> None:
    print(f"| workload | Tenon (s) | {PEER} (s) | Tenon's part |\n| --- | --- | --- | --- |")
    engines = ["tenon"] if ENGINES[PEER].missing else ["tenon", PEER]
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            found = [first_step(e, case, threads, str(Path(folder) / e)) for e in engines]
        ours, *theirs = found
        print(
            f"| {case.name} | {ours:.2f} | {''.join(f'{t:.2f} | {ours / t:.2f}' for t in theirs) or '|'} |", flush=True
        )


def by_size(sizes: list[int]) -> None:
    print("| nodes | kernels | seconds | microseconds / (n log2 n) |\n| --- | --- | --- | --- |")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", _GROW, str(size)]
            environment = os.environ | {"TENON_CACHE": folder}
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout)
        n, seconds = found["nodes"], found["seconds"]
        print(f"| {n} | {found['kernels']} | {seconds:.2f} | {seconds * 1e6 / (n * math.log2(n)):.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default=",".join(n for n in CASES if n.endswith("train")), help="(%(default)s)")
    parser.add_argument("--nodes", default="1000,4000,16000", help="sizes of graphs (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of each engine (%(default)s)")
    args = parser.parse_args()
    write_bytecode()
    if args.workloads:
        against_torch(chosen(args.workloads), args.threads)
    if args.nodes:
        by_size([int(n) for n in args.nodes.split(",")])


if __name__ == "__main__":
    main()
