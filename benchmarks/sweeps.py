"""Single operations beside the peers, over many sizes: products, convolutions, loops over memory.

    python -m benchmarks.sweeps --kinds matmul,conv2d --peers torch,jax,onnxruntime

A kind is the first part of an operation's name, one of {kinds}, or a whole name. Everything is an input of each call,
weights too: nothing is packed once and kept. What is measured joins what the file of ``--out`` already holds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.paired import WARMUP, Worker, compare, median_time, ratios, restrict_threads
from benchmarks.sweep_cases import OPS, Op
from benchmarks.sweep_engines import ENGINES
from runtime import ceilings

OURS = "tenon"
KINDS = list(dict.fromkeys(op.kind for op in OPS.values()) | dict.fromkeys(n.split(":")[0] for n in OPS))


def work(engine: str) -> None:
    """Answer lines of an operation's name, when to build it, and of seconds, when to time the one built last."""
    restrict_threads()
    build = ENGINES[engine][0]()
    print("{}", flush=True)
    step = None
    for line in sys.stdin:
        word = line.strip()
        if word in OPS:
            step = build(OPS[word])
            found = step()
            first = found[0] if isinstance(found, (tuple, list)) else found
            answer: dict[str, Any] = {"results": np.asarray(first, np.float64).ravel()[:1000].tolist()}
            for _ in range(WARMUP):
                step()
        else:
            assert step is not None
            answer = {"seconds": median_time(step, float(word))}
        print(json.dumps(answer), flush=True)


def measure(op: Op, workers: list[Worker], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Times by engine, round by round. Raises AssertionError where an engine's first results are not the first's."""
    able = [w for w in workers if ENGINES[w.name][2](op)]
    answers = [np.array(w.ask(op.name)["results"]) for w in able]
    scale = np.abs(answers[0]).max()
    for w, answer in zip(able[1:], answers[1:], strict=True):
        message = f"{op.name} of {w.name} is not that of {able[0].name}"
        np.testing.assert_allclose(answer, answers[0], rtol=2e-3, atol=1e-4 * scale, err_msg=message)
    return compare(able, rounds, seconds)


def fastest_peer(times: dict[str, list[float]]) -> float:
    """How many times longer than Tenon the fastest peer takes; NaN where there is none."""
    slower = [statistics.median(ratios(t, times[OURS])) for name, t in times.items() if name != OURS]
    return min(slower, default=math.nan)


def markdown(found: dict[str, Any]) -> str:
    """A table of operations, then one of kinds."""
    peers = list(dict.fromkeys(n for times in found["ops"].values() for n in times if n != OURS))
    lines = [
        _row("operation", "Tenon (us)", "of the ceiling", *peers, "fastest peer"),
        _row(*["---"] * (len(peers) + 4)),
    ]
    factors: dict[str, list[float]] = {}
    for name, times in found["ops"].items():
        ours = statistics.median(times[OURS])
        cells = [f"{statistics.median(ratios(times[p], times[OURS])):.2f}x" if p in times else "" for p in peers]
        least = max(OPS[name].flops / found["peak"], OPS[name].bytes / found["bandwidth"])
        factor = fastest_peer(times)
        factors.setdefault(name.split(":")[0], []).append(factor)
        lines.append(_row(name, f"{ours * 1e6:.4g}", f"{least / ours:.0%}", *cells, f"{factor:.2f}x"))
    lines += ["", _row("kind", "operations", "lowest", "geometric mean"), _row(*["---"] * 4)]
    for kind, values in factors.items():
        mean = math.exp(statistics.mean(map(math.log, values)))
        lines.append(_row(kind, str(len(values)), f"{min(values):.2f}x", f"{mean:.2f}x"))
    about = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    ceiling = f"{found['peak'] / 1e9:.0f} GFLOP/s, {found['bandwidth'] / 1e9:.1f} GB/s copied"
    return f"{about}; {ceiling}\n\n" + "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def chosen(names: Iterable[str]) -> list[Op]:
    """The operations that these names or kinds mean. Raises SystemExit for one that is unknown."""
    found: list[Op] = []
    for name in names:
        ops = [op for op in OPS.values() if name in ("all", op.kind, op.name, op.name.split(":")[0])]
        if not ops:
            raise SystemExit(f"unknown kind {name!r}; known are all, {', '.join(KINDS)}")
        found += ops
    return list({op.name: op for op in found}.values())


def main() -> None:
    text = (__doc__ or "").replace("{kinds}", ", ".join(KINDS))
    parser = argparse.ArgumentParser("python -m benchmarks.sweeps", description=text)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--kinds", default="all", help="comma list (%(default)s)")
    parser.add_argument("--peers", default="torch,jax,onnxruntime", help="comma list (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of each engine (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="that count (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.05, help="that each engine runs in a round (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("sweeps"), help="results go to OUT.json and OUT.md")
    parser.add_argument("--worker", choices=ENGINES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker)
        return
    ops = chosen(args.kinds.split(","))
    workers: list[Worker] = []
    for name in (OURS, *args.peers.split(",")):
        if name not in ENGINES:
            raise SystemExit(f"unknown peer {name!r}; known are {', '.join(n for n in ENGINES if n != OURS)}")
        missing = [p for p in ENGINES[name][1] if importlib.util.find_spec(p) is None]
        if missing:
            print(f"{name} is left out: {', '.join(missing)} not installed", file=sys.stderr)
        else:
            workers.append(Worker.start("benchmarks.sweeps", name, args.threads, []))
    path = args.out.with_suffix(".json")
    found = json.loads(path.read_text("utf-8")) if path.exists() else {"ops": {}, "peak": 0.0, "bandwidth": 0.0}
    found["machine"] = machine.describe()
    for op in ops:
        print(op.name, file=sys.stderr)
        found["ops"][op.name] = measure(op, workers, args.rounds, args.seconds)
        found["ops"] = {name: found["ops"][name] for name in OPS if name in found["ops"]}
        found["peak"] = max(found["peak"], ceilings.peak_flops(args.threads))
        found["bandwidth"] = max(found["bandwidth"], ceilings.copy_bandwidth(args.threads))
        path.write_text(json.dumps(found, indent=1), "utf-8")
        args.out.with_suffix(".md").write_text(markdown(found), "utf-8")
    for worker in workers:
        worker.stop()
    print(markdown(found))


if __name__ == "__main__":
    main()
