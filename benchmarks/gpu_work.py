"""What is measured on a GPU, what it takes in operations and bytes, and how a result is held to its goal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """``least`` times the speed of ``rival``: an engine, or "copy", the GPU's measured copy bandwidth."""

    rival: str
    least: float


@dataclass(frozen=True)
class Work:
    """One measurement: ``sizes`` are what its ``group`` needs (benchmarks/gpu_engines.py), ``dtype`` what it is in."""

    name: str
    group: str
    sizes: tuple[int, ...]
    goal: Goal
    dtype: str = "bf16"
    flops: float = 0.0
    bytes: float = 0.0

    @property
    def is_step(self) -> bool:
        """Whether it is a training step; else it is a kernel."""
        return self.group in ("step", "gpt")


def matmul(m: int, n: int, k: int, goal: Goal, dtype: str = "bf16") -> Work:
    size = {"bf16": 2, "f32": 4}[dtype]
    moved = size * (m * k + k * n + m * n)
    return Work(f"matmul {dtype} {m} x {n} x {k}", "matmul", (m, n, k), goal, dtype, 2.0 * m * n * k, float(moved))


def attention(batch: int, heads: int, length: int, width: int, backward: bool, causal: bool = True) -> Work:
    """Two products of length x length x width a head forward, half of it where causal; backward takes 2.5 times as
    many operations again."""
    forward = 4.0 * batch * heads * length * length * width / (2 if causal else 1)
    flops = forward * 3.5 if backward else forward
    moved = 2.0 * batch * heads * length * width * (8 if backward else 4)
    what = "forward and backward" if backward else "forward"
    sizes = (batch, heads, length, width, int(backward), int(causal))
    return Work(f"attention {what}, {length}", "attention", sizes, Goal("eager", 0.8), "bf16", flops, moved)


def bandwidth(name: str, arrays: int, elements: int) -> Work:
    """``arrays`` arrays of float32 are read or written, each once."""
    return Work(name, name, (elements,), Goal("copy", 0.9), "f32", 0.0, 4.0 * arrays * elements)


WORK = (
    *(matmul(n, n, n, Goal("eager", 0.8)) for n in (4096, 8192)),
    *(matmul(m, 4096, 4096, Goal("eager", 0.95)) for m in (1, 4, 16)),
    matmul(4096, 4096, 4096, Goal("eager", 0.6), "f32"),
    *(attention(b, 16, t, 64, backward) for b, t in ((8, 2048), (4, 4096), (1, 16384)) for backward in (False, True)),
    bandwidth("add", 3, 1 << 26),
    bandwidth("softmax", 2, 1 << 26),
    bandwidth("layer_norm", 2, 1 << 26),
    *(
        Work(f"{seed}:train", "step", (), Goal("compile", 2.0), "f32")
        for seed in ("mlp", "cnn", "lstm", "encoder", "seq2seq")
    ),
    Work("gpt 12 x 768, 16 x 1024", "gpt", (16, 1024, 768, 12, 12, 50257), Goal("compile", 1.0), "bf16"),
)


@dataclass(frozen=True)
class Result:
    """Seconds of each engine, as medians; ``copy`` in bytes a second. Where results are ``wrong`` nothing was timed."""

    work: Work
    seconds: dict[str, float]
    copy: float
    wrong: str = ""

    @property
    def rate(self) -> str:
        """Tenon's operations or bytes a second, whichever it is measured by."""
        ours = self.seconds.get("tenon")
        if ours is None:
            return ""
        if self.work.flops and self.work.goal.rival != "copy":
            return f"{self.work.flops / ours / 1e12:.1f} TFLOP/s"
        return f"{self.work.bytes / ours / 1e9:.0f} GB/s" if self.work.bytes else ""

    @property
    def ratio(self) -> float | None:
        """Tenon's speed as a multiple of the rival's, or None where that was not measured."""
        ours = self.seconds.get("tenon")
        if ours is None:
            return None
        if self.work.goal.rival == "copy":
            return self.work.bytes / ours / self.copy
        rival = self.seconds.get(self.work.goal.rival)
        return None if rival is None else rival / ours

    @property
    def verdict(self) -> str:
        if self.wrong:
            return f"WRONG: {self.wrong}"
        if self.ratio is None:
            return f"{self.work.goal.rival} was not measured"
        return "reached" if self.ratio >= self.work.goal.least else "MISSED"


def median(seconds: Sequence[float]) -> float:
    return statistics.median(seconds)


def table(results: Sequence[Result]) -> str:
    """A line a result, in Markdown."""
    lines = [
        "| what | Tenon | PyTorch | torch.compile | Tenon's rate | speed / goal | |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for r in results:
        times = [_milliseconds(r.seconds.get(engine)) for engine in ("tenon", "eager", "compile")]
        ratio = "-" if r.ratio is None else f"{r.ratio:.2f}"
        goal = f"{ratio} / {r.work.goal.least} of {r.work.goal.rival}"
        lines.append(f"| {r.work.name} | {' | '.join(times)} | {r.rate} | {goal} | {r.verdict} |")
    return "\n".join(lines)


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.3f} ms"
