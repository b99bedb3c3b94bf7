"""What was measured, as JSON, as Markdown and as a bar chart.

A report is a dict: ``machine`` (what it is), and ``cases``, by name: ``engines`` with each engine's ``seconds`` (round
by round), ``cold`` and ``warm`` (seconds to the first result) and ``memory`` (MiB); ``flops`` and ``bytes`` of a step;
``peak`` (flop/s) and ``bandwidth`` (byte/s) of the machine, as measured beside this case.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

from benchmarks.paired import ratios

OURS = "tenon"
CaseReport = dict[str, Any]


def least_seconds(report: dict[str, Any], name: str) -> float:
    """What a step takes at the machine's ceiling: the roofline of Williams, Waterman and Patterson (2009).

    The ceiling is the highest that was measured beside any case: what else the machine does can only lower it.
    """
    case, cases = report["cases"][name], report["cases"].values()
    peak, bandwidth = (max(c[key] for c in cases) for key in ("peak", "bandwidth"))
    return max(case["flops"] / peak, case["bytes"] / bandwidth)


def slower(case: CaseReport, engine: str) -> float:
    """How many times longer than Tenon this engine takes: the median over rounds."""
    return statistics.median(ratios(case["engines"][engine]["seconds"], case["engines"][OURS]["seconds"]))


def peers(report: dict[str, Any]) -> list[str]:
    """The engines beside Tenon, in the order in which they were measured first."""
    return list(dict.fromkeys(e for case in report["cases"].values() for e in case["engines"] if e != OURS))


def fastest_peer(case: CaseReport) -> float | None:
    """How many times longer than Tenon the fastest peer takes, if there is one."""
    return min((slower(case, engine) for engine in case["engines"] if engine != OURS), default=None)


def markdown(report: dict[str, Any]) -> str:
    """Tables of steps, of first results and of memory."""
    others = peers(report)
    about = ", ".join(f"{name} {value}" for name, value in report["machine"].items())
    steps = [_row("workload", "Tenon (ms)", "of the ceiling", *others, "fastest peer")]
    first = [_row("workload", *(f"{e}: first (s), memory (MiB)" for e in (OURS, *others)))]
    for name, case in report["cases"].items():
        ours = statistics.median(case["engines"][OURS]["seconds"])
        cells = [f"{slower(case, e):.2f}x" if e in case["engines"] else "" for e in others]
        fastest = fastest_peer(case)
        steps.append(
            _row(
                name,
                _number(ours * 1e3),
                f"{least_seconds(report, name) / ours:.0%}",
                *cells,
                f"{fastest:.2f}x" if fastest else "",
            )
        )
        first.append(_row(name, *(_first(case["engines"].get(e)) for e in (OURS, *others))))
    for mode in ("train", "infer", "infer1"):
        found = [fastest_peer(c) for n, c in report["cases"].items() if n.endswith(f":{mode}")]
        logs = [math.log(f) for f in found if f]
        if logs:
            steps.append(
                _row(f"geometric mean, {mode}", *[""] * (len(others) + 2), f"{math.exp(statistics.mean(logs)):.2f}x")
            )
    for lines, columns in ((steps, len(others) + 4), (first, len(others) + 2)):
        lines.insert(1, _row(*["---"] * columns))
    return f"{about}\n\n" + "\n".join(steps) + "\n\n" + "\n".join(first) + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _number(x: float) -> str:
    return f"{x:.3g}" if x < 100 else f"{x:.0f}"


def _first(engine: dict[str, Any] | None) -> str:
    if engine is None:
        return ""
    warm = f"; again {engine['warm']:.2f}" if "warm" in engine else ""
    return f"{engine['cold']:.2f}{warm}, {engine['memory']:.0f}"


def chart(report: dict[str, Any], path: Path) -> bool:
    """Draw how many times longer than Tenon every peer takes, as SVG. False where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    cases, others = report["cases"], peers(report)
    bars: dict[str, list[tuple[float, float]]] = {name: [] for name in others}
    ticks = []
    place = 0.0
    for case in cases.values():
        present = [name for name in others if name in case["engines"]]
        ticks.append(place + (len(present) - 1) / 2)
        for name in present:
            bars[name].append((place, slower(case, name) - 1))
            place += 1
        place += 1  # the gap before the next workload
    figure = Figure(figsize=(8, 1 + 0.1 * place), layout="constrained")
    axes = figure.subplots()
    for name, found in bars.items():
        axes.barh([at for at, _ in found], [beyond for _, beyond in found], 1, left=1, label=name)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}x")
    axes.grid(axis="x", alpha=0.3)
    axes.set_yticks(ticks, list(cases), fontsize=8)
    axes.set_ylim(place - 1, -1)
    axes.set_xlabel("time of a step, in multiples of Tenon's (to the right: slower than Tenon)")
    figure.legend(loc="outside upper center", ncols=len(others), frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None})
    return True
