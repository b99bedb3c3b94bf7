"""Attention alone, Tenon beside PyTorch: result and gradients, or the result; and the memory that length costs.

    python -m benchmarks.attention

Queries, keys and values come as (batch, length, heads, features), as multi-head attention's projections make them. Each
engine runs in a process of its own; the first results are compared before anything is timed. Memory is what the process
holds at its peak in one call, less what it held before.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.paired import Worker, compare, serve, table

ENGINES = ("tenon", "torch")
LENGTHS = (1024, 2048, 4096)


@dataclass(frozen=True)
class Shape:
    """Queries (batch, length, heads, features) and keys (batch, keys, heads, features)."""

    batch: int
    heads: int
    length: int
    keys: int
    features: int
    causal: bool = False
    train: bool = True


SHAPES = {
    **{f"long{n}": Shape(1, 8, n, n, 64) for n in LENGTHS},
    "causal4096": Shape(1, 8, 4096, 4096, 64, causal=True),
    "encoder": Shape(16, 8, 64, 64, 16),
    "seq2seq": Shape(16, 8, 32, 32, 16),
    "gpt": Shape(8, 8, 128, 128, 32, causal=True),
    "gpt-infer": Shape(8, 8, 128, 128, 32, causal=True, train=False),
    "encoder-infer": Shape(16, 8, 64, 64, 16, train=False),
    "token": Shape(1, 8, 1, 1024, 32, train=False),
}


def arrays(shape: Shape) -> list[np.ndarray]:
    """q, k, v and the gradient of the result, float32."""
    rng = np.random.default_rng(0)
    lengths = (shape.length, shape.keys, shape.keys, shape.length)
    return [rng.standard_normal((shape.batch, n, shape.heads, shape.features)).astype(np.float32) for n in lengths]


def tenon_call(shape: Shape) -> Callable[[], list[np.ndarray]]:
    import tenon as tn
    from tenon import F

    def attend(q, k, v):  # type: ignore[no-untyped-def]
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=shape.causal).transpose(1, 2)

    def gradients(q, k, v, g):  # type: ignore[no-untyped-def]
        slopes = tn.grad(lambda q, k, v: (attend(q, k, v) * g).sum(), (0, 1, 2))
        return attend(q, k, v), *slopes(q, k, v)

    given = arrays(shape)[: 4 if shape.train else 3]
    run = tn.compile(gradients if shape.train else attend, *(tn.spec(*x.shape) for x in given))
    if not shape.train:
        return lambda: [run(*given)]
    return lambda: list(run(*given))


def torch_call(shape: Shape) -> Callable[[], list[np.ndarray]]:
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    q, k, v, g = map(torch.from_numpy, arrays(shape))
    inputs = [x.requires_grad_(shape.train) for x in (q, k, v)]

    def attend() -> torch.Tensor:
        turned = [x.transpose(1, 2) for x in inputs]
        return scaled_dot_product_attention(*turned, is_causal=shape.causal).transpose(1, 2)

    def infer() -> list[np.ndarray]:
        with torch.inference_mode():
            return [attend().numpy()]

    def train() -> list[np.ndarray]:
        out = attend()
        return [out.detach().numpy(), *(d.numpy() for d in torch.autograd.grad(out, inputs, g))]

    return train if shape.train else infer


def resident() -> int:
    """Kibibytes that this process holds, and resets the peak."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return peak("VmRSS")


def peak(field: str = "VmHWM") -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))


def worker(engine: str, shape: Shape) -> None:
    """Answer with sums of the first results and the memory of a first call, then time calls."""
    call = {"tenon": tenon_call, "torch": torch_call}[engine](shape)
    before = resident() if sys.platform == "linux" else 0
    found = call()
    memory = peak() - before if sys.platform == "linux" else 0
    sums = {f"sum{i}": float(np.abs(x).sum()) for i, x in enumerate(found)}
    given = sum(x.nbytes for x in found) >> 10
    del found
    serve(call, sums | {"memory": memory, "results": given})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=",".join(SHAPES), help=f"some of {','.join(SHAPES)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each engine in a round")
    parser.add_argument("--worker", choices=ENGINES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, SHAPES[args.shapes])
        return
    names = [n for n in ENGINES if importlib.util.find_spec(n) is not None]
    print(f"Attention, {args.threads} threads, {platform.machine()}")
    for name in args.shapes.split(","):
        workers = [Worker.start("benchmarks.attention", n, args.threads, ["--shapes", name]) for n in names]
        for w in workers[1:]:
            for key, value in workers[0].first.items():
                if key.startswith("sum"):
                    np.testing.assert_allclose(w.first[key], value, rtol=1e-3, err_msg=f"{w.name} differs")
        found = compare(workers, args.rounds, args.seconds)
        for w in workers:
            w.stop()
        memory = ", ".join(f"{w.name} {w.first['memory'] / 1024:.1f}" for w in workers)
        print(f"\n{name}: {SHAPES[name]}")
        print(f"memory of the first call, MiB: {memory}; results {workers[0].first['results'] / 1024:.1f}\n")
        print(table(found, workers[0].name))


if __name__ == "__main__":
    main()
