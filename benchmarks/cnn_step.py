"""A training step of the seed's CNN (1x28x28, 32-64 channels): Tenon beside PyTorch, same weights, same batch.

    python -m benchmarks.cnn_step --optimizer sgd --batch 64

Engines that are not installed are named and left out. Losses of the first steps are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import sys
import time

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
ENGINES = ("tenon", "torch", "torch.compile")
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
            x = x.view(-1, 64 * 7 * 7)
            return self.fc2(functional.relu(self.fc1(x)))

    return CNN()


def tenon_worker(optimizer: str, size: int) -> None:
    import tenon as tn
    from tenon import F, nn, optim

    model = network(nn, F)
    model.load_state_dict(weights())
    chosen = {"sgd": optim.SGD, "adam": optim.Adam}[optimizer](
        model.parameters(), lr=1e-2 if optimizer == "sgd" else 1e-3
    )
    x, y = batch(size)
    start = time.perf_counter()
    step = tn.train_step(model, F.cross_entropy, chosen, specs=[tn.spec("B", 1, 28, 28), tn.spec("B", dtype="i64")])
    losses = [float(step(x, y)) for _ in range(WARMUP)]
    serve(lambda: step(x, y), {"build": time.perf_counter() - start, **{str(i): v for i, v in enumerate(losses)}})


def torch_worker(optimizer: str, size: int, compiled: bool) -> None:
    import torch
    import torch.nn.functional as functional

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = network(torch.nn, functional)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights().items()})
    chosen = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer](
        model.parameters(), lr=1e-2 if optimizer == "sgd" else 1e-3
    )
    x, y = map(torch.from_numpy, batch(size))
    forward = torch.compile(model) if compiled else model

    def step() -> float:
        chosen.zero_grad()
        loss = functional.cross_entropy(forward(x), y)
        loss.backward()
        chosen.step()
        return loss.item()

    start = time.perf_counter()
    losses = [step() for _ in range(WARMUP)]
    serve(step, {"build": time.perf_counter() - start, **{str(i): v for i, v in enumerate(losses)}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optimizer", choices=("sgd", "adam"), default="sgd")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--engines", default="tenon,torch", help=f"some of {','.join(ENGINES)}")
    parser.add_argument("--worker", choices=ENGINES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        size, optimizer = int(os.environ["CNN_BATCH"]), os.environ["CNN_OPTIMIZER"]
        if args.worker == "tenon":
            tenon_worker(optimizer, size)
        else:
            torch_worker(optimizer, size, args.worker == "torch.compile")
        return
    os.environ.update(CNN_BATCH=str(args.batch), CNN_OPTIMIZER=args.optimizer)
    names = args.engines.split(",")
    for missing in [n for n in names if importlib.util.find_spec(n.split(".")[0]) is None]:
        print(f"{missing} is not installed and is left out", file=sys.stderr)
        names.remove(missing)
    workers = [Worker.start("benchmarks.cnn_step", name, args.threads) for name in names]
    for w in workers:
        losses = [w.first[str(i)] for i in range(WARMUP)]
        expected = [workers[0].first[str(i)] for i in range(WARMUP)]
        np.testing.assert_allclose(losses, expected, rtol=1e-3, err_msg=f"{w.name} computes something else")
    found = compare(workers, args.rounds, args.steps)
    for w in workers:
        w.stop()
    print(f"CNN training step, {args.optimizer}, batch {args.batch}, {args.threads} threads, {platform.machine()}\n")
    print(table(found, workers[0].name))


if __name__ == "__main__":
    main()
