"""Starting the CNN's Adam step: from ``python`` to the end of the process after its first loss, cold and warm.

    python -m benchmarks.startup

Cold starts have an empty compile cache and compile everything; warm ones load from the cache that a cold one left.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace

from benchmarks.engines import tenon
from benchmarks.models import CASES

_FIRST_LOSS = "from benchmarks.startup import first_loss; first_loss()"


def first_loss() -> None:
    """Run one step; say on standard error whether Numba was imported for it."""
    tenon(replace(CASES["cnn:train"], optimizer="Adam"))()()
    print("numba" in sys.modules, file=sys.stderr)


def start(cache: str) -> float:
    """Seconds that a process with this compile cache takes for its first loss."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", _FIRST_LOSS], env=os.environ | {"TENON_CACHE": cache}, check=True)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cold", type=int, default=3, help="cold starts")
    parser.add_argument("--warm", type=int, default=9, help="warm starts")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        caches = [os.path.join(folder, str(i)) for i in range(args.cold + 1)]
        # The first start writes Python's own bytecode, too, and is not counted.
        report("cold", [start(cache) for cache in caches][1:])
        report("warm", [start(caches[-1]) for _ in range(args.warm)])


def report(name: str, times: list[float]) -> None:
    print(f"{name}: {min(times):.2f} to {max(times):.2f} s, median {statistics.median(times):.2f}")


if __name__ == "__main__":
    main()
