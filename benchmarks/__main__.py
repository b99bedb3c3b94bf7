"""Tenon beside its peers: same weights, same inputs, same results, two threads each, in interleaved rounds.

    python -m benchmarks --peers torch,torch.compile,jax,onnxruntime --workloads all

A workload is one of {cases}, a model (``cnn``: all its workloads), or ``all``. Peers that are not installed, or that
cannot do a workload, are named and left out. The peer ``tenon.tuned`` is Tenon with ``autotune=True``. What is measured
joins what the files of ``--out`` already hold, so a long comparison may be done in pieces.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import machine, report, work
from benchmarks.engines import ENGINES
from benchmarks.models import CASES, Case, chosen
from benchmarks.paired import Worker, answer, check_equal, compare, write_bytecode
from runtime import ceilings


def started(engine: str, case: Case, threads: int, folder: Path) -> tuple[Worker, dict[str, Any]]:
    """A worker that is ready to be timed, and what starting it cost. What it compiles is kept in ``folder`` only."""
    caches = {"TENON_CACHE": "tenon", "TORCHINDUCTOR_CACHE_DIR": "inductor", "CACHEDB": "tinygrad.db"}
    settings = {variable: str(folder / name) for variable, name in caches.items()}

    def start() -> Worker:
        return Worker.start("benchmarks", engine, threads, ["--workloads", case.name], settings)

    worker = start()
    found: dict[str, Any] = {"cold": worker.first["first"]}
    if ENGINES[engine].cached:
        worker.stop()
        worker = start()
        found["warm"] = worker.first["first"]
    found["memory"] = worker.first["memory"]
    return worker, found


def measure(case: Case, engines: list[str], threads: int, rounds: int, seconds: float) -> dict[str, Any]:
    """The report of one case, as :mod:`benchmarks.report` describes it."""
    workers: list[Worker] = []
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in engines:
            if not ENGINES[name].supports(case):
                continue
            try:
                worker, found[name] = started(name, case, threads, Path(folder))
            except RuntimeError as error:
                if name == report.OURS:
                    raise
                print(f"{case.name}: left out: {error}", file=sys.stderr)
                continue
            workers.append(worker)
        check_equal(workers)
        for name, times in compare(workers, rounds, seconds).items():
            found[name]["seconds"] = times
        for worker in workers:
            worker.stop()
    flops, size = work.of_case(case)
    ceiling = {"peak": ceilings.peak_flops(threads), "bandwidth": ceilings.copy_bandwidth(threads)}
    return {"engines": found, "flops": flops, "bytes": size, **ceiling}


def available(names: list[str]) -> list[str]:
    """The engines of these that are installed; the others are named. Raises SystemExit for one that is unknown."""
    for name in names:
        if name not in ENGINES:
            raise SystemExit(f"unknown peer {name!r}; known are {', '.join(ENGINES)}")
        if ENGINES[name].missing:
            print(f"{name} is left out: {', '.join(ENGINES[name].missing)} not installed", file=sys.stderr)
    return [n for n in names if not ENGINES[n].missing]


def main() -> None:
    text = (__doc__ or "").replace("{cases}", ", ".join(CASES))
    parser = argparse.ArgumentParser("python -m benchmarks", description=text)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    known = [name for name in ENGINES if not name.startswith(report.OURS)]
    parser.add_argument("--peers", default=",".join(known), help="comma list (%(default)s)")
    parser.add_argument("--workloads", default="all", help="comma list (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of each engine (%(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="that count (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.3, help="that each engine runs in a round (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("benchmark"), help="results go to OUT.json, .md, .svg")
    parser.add_argument("--target", choices=("cpu", "cuda"), default="cpu", help="see benchmarks/gpu.py (%(default)s)")
    parser.add_argument("--worker", choices=ENGINES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.target == "cuda":
        from benchmarks import gpu

        sys.exit(gpu.main(args.workloads, "torch" in args.peers, args.out))
    cases = chosen(args.workloads)
    if args.worker:
        answer(ENGINES[args.worker].start(cases[0]))
        return
    engines = available([report.OURS, *args.peers.split(",")])
    write_bytecode()
    path = args.out.with_suffix(".json")
    found = json.loads(path.read_text("utf-8")) if path.exists() else {"machine": {}, "cases": {}}
    found["machine"] = machine.describe()
    for case in cases:
        print(case.name, file=sys.stderr)
        found["cases"][case.name] = measure(case, engines, args.threads, args.rounds, args.seconds)
        found["cases"] = {name: found["cases"][name] for name in CASES if name in found["cases"]}
        path.write_text(json.dumps(found, indent=1), "utf-8")
        args.out.with_suffix(".md").write_text(report.markdown(found), "utf-8")
    print(report.markdown(found))
    if not report.chart(found, args.out.with_suffix(".svg")):
        print("no chart: matplotlib is not installed", file=sys.stderr)


if __name__ == "__main__":
    main()
