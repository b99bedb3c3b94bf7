"""From the start of a process to its first result, with an empty compile cache and a full one.

    python -m benchmarks.startup --workloads cnn:train,mlp

Cold starts compile everything; warm ones load from the cache that a cold one left, and import neither Numba nor a pass
of the compiler. Every start is a process of its own, all imports, the model's initialisation and its data counted.
Python's own bytecode is written before.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.models import CASES, chosen

_FIRST = "import sys; from benchmarks.startup import first_result; first_result(sys.argv[1])"


def first_result(case: str) -> None:
    """Run one step, and print when it was done."""
    from benchmarks.engines import tenon

    tenon(CASES[case])()()
    print(time.monotonic())


def start(case: str, cache: str) -> float:
    """Seconds that a process with this compile cache takes for its first result."""
    command, environment = [sys.executable, "-c", _FIRST, case], os.environ | {"TENON_CACHE": cache}
    begin = time.monotonic()  # one clock for all processes
    found = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return float(found.stdout.split()[-1]) - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default="all", help="comma list (%(default)s)")
    parser.add_argument("--cold", type=int, default=1, help="cold starts (%(default)s)")
    parser.add_argument("--warm", type=int, default=9, help="warm starts (%(default)s)")
    args = parser.parse_args()
    from benchmarks.paired import write_bytecode  # what is imported above counts as time of every start

    write_bytecode()
    print("| workload | cold (s) | warm (s) | fastest | slowest |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for case in chosen(args.workloads):
            caches = [os.path.join(folder, f"{case.name}-{i}") for i in range(args.cold)]
            cold = statistics.median(start(case.name, cache) for cache in caches)
            warm = [start(case.name, caches[-1]) for _ in range(args.warm)]
            print(f"| {case.name} | {cold:.2f} | {statistics.median(warm):.2f} | {min(warm):.2f} | {max(warm):.2f} |")


if __name__ == "__main__":
    main()
