"""The seed's CNN (1x28x28, 32-64 channels): Tenon beside PyTorch, same weights, same batch.

    python -m benchmarks.cnn --task sgd --batch 64

A task is a training step (``sgd``, ``adam``) or ``infer``, the logits alone. Engines that are not installed are named
and left out. The first results of all engines are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Callable

import numpy as np

from benchmarks.paired import Worker, compare, serve, table

SHAPES = {
    "conv1.weight": (32, 1, 3, 3),
    "conv1.bias": (32,),
    "conv2.weight": (64, 32, 3, 3),
    "conv2.bias": (64,),
    "fc1.weight": (128, 64 * 7 * 7),
    "fc1.bias": (128,),
    "fc2.weight": (10, 128),
    "fc2.bias": (10,),
}
ENGINES = ("tenon", "torch", "torch.channels_last", "torch.compile")
RATES = {"sgd": 1e-2, "adam": 1e-3}
"""Tasks that train, and their learning rates."""
WARMUP = 3


def weights() -> dict[str, np.ndarray]:
    """The same small weights for every engine, float32."""
    rng = np.random.default_rng(0)
    return {
        name: (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def batch(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (size, 1, 28, 28) float32 and classes (size,) int64."""
    rng = np.random.default_rng(1)
    return rng.standard_normal((size, 1, 28, 28)).astype(np.float32), rng.integers(0, 10, size)


def network(nn, functional):  # type: ignore[no-untyped-def]
    """The seed's CNN in the vocabulary that Tenon and PyTorch share."""

    class CNN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(1, 32, kernel_size=3, stride=1, padding=1)
            self.conv2 = nn.Conv2d(32, 64, kernel_size=3, stride=1, padding=1)
            self.pool = nn.MaxPool2d(kernel_size=2, stride=2)
            self.fc1 = nn.Linear(64 * 7 * 7, 128)
            self.fc2 = nn.Linear(128, 10)

        def forward(self, x):  # type: ignore[no-untyped-def]
            x = self.pool(functional.relu(self.conv1(x)))
            x = self.pool(functional.relu(self.conv2(x)))
            x = x.reshape(-1, 64 * 7 * 7)  # the seed writes view, which PyTorch refuses in channels_last
            return self.fc2(functional.relu(self.fc1(x)))

    return CNN()


def answer(step: Callable[[], float]) -> None:
    """Time the first calls, compilation included, then whatever the parent asks for."""
    start = time.perf_counter()
    results = [step() for _ in range(WARMUP)]
    serve(step, {"build": time.perf_counter() - start, **{str(i): v for i, v in enumerate(results)}})


def tenon_step(task: str, size: int) -> Callable[[], float]:
    """One training step, or one inference, as a call that returns a number of its result."""
    import tenon as tn
    from tenon import F, nn, optim

    model = network(nn, F)
    model.load_state_dict(weights())
    x, y = batch(size)
    images = tn.spec("B", 1, 28, 28)
    if task == "infer":
        infer = tn.compile(model.eval(), images)
        return lambda: float(infer(x)[0, 0])
    optimizer = {"sgd": optim.SGD, "adam": optim.Adam}[task](model.parameters(), lr=RATES[task])
    step = tn.train_step(model, F.cross_entropy, optimizer, specs=[images, tn.spec("B", dtype="i64")])
    return lambda: float(step(x, y))


def torch_worker(task: str, size: int, variant: str) -> None:
    import torch
    import torch.nn.functional as functional

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = network(torch.nn, functional)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights().items()})
    x, y = map(torch.from_numpy, batch(size))
    if variant == "torch.channels_last":
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    forward = torch.compile(model) if variant == "torch.compile" else model
    if task == "infer":
        model.eval()
        with torch.inference_mode():
            answer(lambda: forward(x)[0, 0].item())
        return
    optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[task](model.parameters(), lr=RATES[task])

    def step() -> float:
        optimizer.zero_grad()
        loss = functional.cross_entropy(forward(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    answer(step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=(*RATES, "infer"), default="sgd")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--engines", default="tenon,torch", help=f"some of {','.join(ENGINES)}")
    parser.add_argument("--worker", choices=ENGINES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        if args.worker == "tenon":
            answer(tenon_step(args.task, args.batch))
        else:
            torch_worker(args.task, args.batch, args.worker)
        return
    names = args.engines.split(",")
    for missing in [n for n in names if importlib.util.find_spec(n.split(".")[0]) is None]:
        print(f"{missing} is not installed and is left out", file=sys.stderr)
        names.remove(missing)
    task = ["--task", args.task, "--batch", str(args.batch)]
    workers = [Worker.start("benchmarks.cnn", name, args.threads, task) for name in names]
    for w in workers:
        first = [w.first[str(i)] for i in range(WARMUP)]
        expected = [workers[0].first[str(i)] for i in range(WARMUP)]
        np.testing.assert_allclose(first, expected, rtol=1e-3, atol=1e-5, err_msg=f"{w.name} computes something else")
    found = compare(workers, args.rounds, args.steps)
    for w in workers:
        w.stop()
    print(f"CNN, {args.task}, batch {args.batch}, {args.threads} threads, {platform.machine()}\n")
    print(table(found, workers[0].name))


if __name__ == "__main__":
    main()
