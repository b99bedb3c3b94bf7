"""What profiling costs, and whether its totals are those of a stopwatch around calls that are not profiled.

    python -m benchmarks.profiling --workloads cnn:train,gpt:train

Plain and profiled calls take turns in blocks of some 20 ms, so that what else the machine does meets both. Told are the
median of the blocks' ratios, and the parts of the profile.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from benchmarks.engines import tenon_program
from benchmarks.models import Case, chosen
from runtime.cache import default
from runtime.cpu.loading import timed_driver

_BLOCK = 0.02  # seconds


def block(exe: Any, arrays: list[Any], calls: int) -> float:
    """The median seconds of some calls."""
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        exe(*arrays)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(case: Case, seconds: float) -> str:
    """A line on one workload."""
    exe, arrays = tenon_program(case), case.arrays()
    driver = timed_driver(default())
    exe.profile(*arrays, repeats=2)
    one = block(exe, arrays, 5)
    calls = max(3, int(_BLOCK / one))
    plain, ratios = [], []
    end = time.perf_counter() + seconds
    while len(ratios) < 3 or time.perf_counter() < end:  # quartiles need some
        before = block(exe, arrays, calls)
        with exe.executor.logged(driver, arrays):
            profiled = block(exe, arrays, calls)
        plain.append((before + block(exe, arrays, calls)) / 2)
        ratios.append(profiled / plain[-1] - 1)
    low, cost, high = statistics.quantiles(ratios, n=4)
    found = exe.profile(*arrays)
    kernels = sum(step.seconds for step in found.steps)
    whole = found.seconds
    return (
        f"{case.name:15} {statistics.median(plain) * 1e3:8.3f} ms a call; profiled {cost:+.2%} (quartiles {low:+.2%}, "
        f"{high:+.2%} of {len(ratios)}); kernels {kernels / whole:.1%}, barriers {found.barriers / whole:.2%}, call "
        f"overhead {found.overhead / whole:.2%}, together {(kernels + found.barriers + found.overhead) / whole:.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.profiling", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    usual = "mlp:train,cnn:train,lstm:train,gpt:train"
    parser.add_argument("--workloads", default=usual, help="comma list (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each workload (%(default)s)")
    args = parser.parse_args()
    for case in chosen(args.workloads):
        print(measure(case, args.seconds), flush=True)


if __name__ == "__main__":
    main()
